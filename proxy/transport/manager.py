"""All listeners and connections behind one door: start, open, send, close."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

import structlog

from proxy.audit.throttle import Throttle
from proxy.sip.flow import Flow, Hop
from proxy.transport.errors import ListenError, reason_of
from proxy.transport.listener import Listener, bracketed
from proxy.transport.pool import ConnectionPool, Opened
from proxy.transport.stream import StreamConnection, StreamHooks, StreamSettings
from proxy.transport.tls import TlsSettings, client_context, server_context
from proxy.transport.udp import UdpSocket, udp_socket

__all__ = ["Transports", "server_socket"]

_BACKLOG: Final = 1024
_STOP_S: Final = 1.0
_ACCEPT_PAUSE_S: Final = 0.1
_LOG_INTERVAL_S: Final = 10.0
_MAX_KNOWN: Final = 1024

_log = structlog.get_logger(__name__)


class _Handle(Protocol):
    """What a Flow's handle can do."""

    def send(self, flow: Flow, data: bytes) -> None:
        """Send bytes."""

    def close(self, why: str) -> None:
        """Close after what was sent has left."""


class Transports:
    """The transports of one process.

    Args:
        hooks: whom messages, stream errors and ends of connections are reported to.
        public_address: what peers reach us at, for listeners that say nothing else; None takes their own address.
        tls: certificates and trust.
        stream: limits of TCP and TLS connections; its `idle_timeout_s` counts for UDP peers too.
        max_udp_flows: how many UDP peers a socket remembers.
        welcome: whether a connection that comes in, told by its flow, is worth keeping; None keeps all.
        shared: whether other processes listen on the same ports (SO_REUSEPORT).

    Attributes:
        listeners: what is listened at, with the real ports, after `start`.
        refused: how many connections that came in were closed at once.
    """

    def __init__(
        self,
        hooks: StreamHooks,
        *,
        public_address: str | None = None,
        tls: TlsSettings | None = None,
        stream: StreamSettings | None = None,
        max_udp_flows: int = 65_536,
        welcome: Callable[[Flow], bool] | None = None,
        shared: bool = False,
    ) -> None:
        self.listeners: tuple[Listener, ...] = ()
        self.refused = 0
        self._hooks = hooks
        self._public_address = public_address
        self._tls = tls or TlsSettings()
        self._stream = stream or StreamSettings()
        self._max_udp_flows = max_udp_flows
        self._welcome = welcome
        self._shared = shared
        self._by_address: dict[str, int] = {}
        self._udp: list[UdpSocket] = []
        # The socket that reaches an address; sockets are only ever added at the end.
        self._udp_of: dict[str, UdpSocket] = {}
        self._servers: list[asyncio.Server] = []
        self._server_tls: ssl.SSLContext | None = None
        self._client_tls: ssl.SSLContext | None = None
        self._inbound: set[StreamConnection] = set()
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._udp_waiting: dict[int, list[tuple[Hop, Opened]]] = {}
        self._advertised: dict[str, str] = {}
        self._noted = Throttle(_LOG_INTERVAL_S)
        self._pool = ConnectionPool(
            hooks,
            self._stream,
            self._client_context,
            verify=self._tls.verify,
            advertised=self._advertised_for,
        )

    async def start(self, listeners: Sequence[Listener]) -> None:
        """Open all listeners, or none: raises ListenError or TlsError with one line that names the listener."""
        if not self._tls.verify:
            _log.warning("tls-verification-off", advice="anybody can pose as a target; only for tests on loopback")
        try:
            for listener in listeners:
                bound = await self._listen(listener)
                self.listeners += (bound,)
        except BaseException:
            await self.stop()
            raise

    async def _listen(self, listener: Listener) -> Listener:
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_DGRAM if listener.transport == "udp" else socket.SOCK_STREAM
        if listener.transport == "tls":
            self._server_context()
        try:
            found = await loop.getaddrinfo(listener.host, listener.port, type=kind, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            make = udp_socket if kind == socket.SOCK_DGRAM else server_socket
            sock = make(family, address, shared=self._shared)
        except OSError as error:
            raise ListenError(f"{listener}: {reason_of(error)}") from error
        port = int(sock.getsockname()[1])
        bound = dataclasses.replace(listener, port=port)
        advertised = listener.advertised(port, self._public_address)
        self._advertised.setdefault(listener.transport, advertised)
        if kind == socket.SOCK_DGRAM:
            await self._serve_udp(sock, str(bound), advertised)
        else:
            if listener.transport == "tls":
                self._accepting.append(loop.create_task(self._accept_tls(sock, bound, advertised)))
            else:
                accept = functools.partial(_Acceptor, self, bound, advertised)
                self._servers.append(await loop.create_server(accept, sock=sock, backlog=_BACKLOG))
        _log.info("listening", listener=str(bound), advertised=advertised)
        return bound

    async def _serve_udp(self, sock: socket.socket, name: str, advertised: str) -> UdpSocket:
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: UdpSocket(
                name,
                advertised,
                self._hooks.receive,
                max_flows=self._max_udp_flows,
                idle_s=self._stream.idle_timeout_s,
            ),
            sock=sock,
        )
        self._udp.append(protocol)
        return protocol

    def send(self, flow: Flow, data: bytes) -> None:
        """Write to a flow; what can't be sent is logged, never raised."""
        cast("_Handle", flow.handle).send(flow, data)

    def datagram_flow(self, listener: str, host: str, port: int) -> Flow | None:
        """The flow of a UDP listener, by its name, to a peer; None when there is none."""
        for sock in self._udp:
            if sock.name == listener:
                try:
                    return sock.flow_to(host, port)
                except OSError:
                    return None
        return None

    def close_flow(self, flow: Flow, why: str) -> None:
        """Close a connection after what was sent on it has left; for UDP there is nothing to close."""
        cast("_Handle", flow.handle).close(why)

    def open(self, hop: Hop, done: Opened) -> None:
        """Give `done` a flow to a hop, or None and a reason: at once where no connection must be made first."""
        if hop.transport != "udp":
            self._pool.open(hop, done)
            return
        known = self._udp_of.get(hop.host)
        if known is not None:
            self._udp_flow(known, hop, done)
            return
        try:
            address = ipaddress.ip_address(hop.host)
        except ValueError:
            done(None, f"{hop.host} is no IP address")
            return
        for sock in self._udp:
            if _reaches(sock, address):
                if len(self._udp_of) >= _MAX_KNOWN:
                    self._udp_of.clear()
                self._udp_of[hop.host] = sock
                self._udp_flow(sock, hop, done)
                return
        # Without a fitting listener: one socket for all of its family on any free port. Who asks meanwhile, waits.
        waiting = self._udp_waiting.setdefault(address.version, [])
        waiting.append((hop, done))
        if len(waiting) == 1:
            task = asyncio.get_running_loop().create_task(self._open_udp(address.version))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _udp_flow(self, sock: UdpSocket, hop: Hop, done: Opened) -> None:
        try:
            flow = sock.flow_to(hop.host, hop.port)
        except OSError as error:
            done(None, reason_of(error))
            return
        done(flow, "")

    async def _open_udp(self, version: int) -> None:
        family, any_address = (socket.AF_INET6, "::") if version == 6 else (socket.AF_INET, "0.0.0.0")
        opened: UdpSocket | None = None
        reason = "shutting down"
        try:
            sock = udp_socket(family, (any_address, 0))
            local_port = int(sock.getsockname()[1])
            sent_from = Listener("udp", any_address, local_port).advertised(local_port, self._public_address)
            opened = await self._serve_udp(sock, "", sent_from)
        except OSError as error:
            reason = reason_of(error)
        finally:
            for hop, done in self._udp_waiting.pop(version):
                if opened is None:
                    done(None, reason)
                else:
                    self._udp_flow(opened, hop, done)

    def _advertised_for(self, transport: str, local_port: int) -> str:
        """What connections that we open tell their peer: the first listener of the transport, else their own port."""
        known = self._advertised.get(transport)
        return known or f"{bracketed(self._public_address or '0.0.0.0')}:{local_port}"

    def _server_context(self) -> ssl.SSLContext:
        if self._server_tls is None:
            self._server_tls = server_context(self._tls)
        return self._server_tls

    def _client_context(self) -> ssl.SSLContext:
        if self._client_tls is None:
            self._client_tls = client_context(self._tls)
        return self._client_tls

    def files(self) -> tuple[Path, ...]:
        """The files with certificates and keys."""
        return self._tls.files()

    def reconfigure(self, tls: TlsSettings, stream: StreamSettings) -> None:
        """Use other certificates, trust and limits for all connections that are made from now on.

        Raises TlsError, and nothing is changed, when a certificate can't be used.
        """
        before, self._tls = self._tls, tls
        try:
            self.reload_certificate()
        except BaseException:
            self._tls = before
            raise
        self._stream = stream
        self._pool.reconfigure(stream, verify=tls.verify)

    def reload_certificate(self) -> None:
        """Read certificate, key and authorities again, for all connections that are made from now on.

        Raises TlsError, and nothing is changed, when one of them can't be used.
        """
        server = server_context(self._tls) if self._server_tls is not None else None
        client = client_context(self._tls) if self._client_tls is not None else None
        self._server_tls, self._client_tls = server, client
        if server is not None or client is not None:
            _log.info("certificate-reloaded", certificate=str(self._tls.certificate))

    def counters(self) -> dict[str, int]:
        """Sizes, for metrics and leak tests."""
        return {
            "udp_flows": sum(sock.flows for sock in self._udp),
            "connections_in": len(self._inbound),
            "connection_sources": len(self._by_address),
            "connections_out": len(self._pool.all),
            "connecting": self._pool.connecting,
            "handshakes": len(self._handshakes),
        }

    async def stop(self) -> None:
        """Close everything; connections get a moment for what is still to be written."""
        for server in self._servers:
            server.close()
        for task in (*self._accepting, *self._handshakes, *self._opening):
            task.cancel()
        self._pool.shut()
        await self._pool.wait_shut()
        for connection in tuple(self._inbound):
            connection.close("shutting down")
        gone = [connection.gone for connection in (*self._inbound, *self._pool.all)]
        if gone:
            await asyncio.wait(gone, timeout=_STOP_S)
        for connection in (*self._inbound, *self._pool.all):
            connection.abort("shutting down")
        for sock in self._udp:
            sock.shut()
        await asyncio.gather(
            *[sock.closed for sock in self._udp],
            *self._accepting,
            *self._handshakes,
            *self._opening,
            return_exceptions=True,
        )
        for server in self._servers:
            await server.wait_closed()
        self._udp_of = {}
        self._udp, self._servers, self._accepting, self.listeners = [], [], [], ()

    def accepted(self, listener: Listener, advertised: str, raw: asyncio.Transport) -> None:
        """A connection without TLS came in."""
        peer = raw.get_extra_info("peername")
        if not self._enter(listener, advertised, peer):
            raw.abort()
            return
        connection = self._connection(peer[0])
        connection.connection_made(raw)
        raw.set_protocol(connection)
        self._begin(listener, advertised, connection, peer)

    async def _accept_tls(self, sock: socket.socket, listener: Listener, advertised: str) -> None:
        """Accept by hand, so that a handshake that fails is logged with its peer and its reason.

        (Not by `start_tls` on what `create_server` accepted: uvloop reads from such a connection right after
        `connection_made`, and a ClientHello that is there already would be lost.)
        """
        loop = asyncio.get_running_loop()
        with sock:
            while True:
                try:
                    accepted, peer = await loop.sock_accept(sock)
                except OSError as error:  # out of file descriptors, or the peer is gone already
                    self._note("accept-failed", listener, reason_of(error), None)
                    await asyncio.sleep(_ACCEPT_PAUSE_S)
                    continue
                if not self._enter(listener, advertised, peer):
                    accepted.close()
                    continue
                task = loop.create_task(self._handshake(listener, advertised, accepted, peer))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)

    async def _handshake(self, listener: Listener, advertised: str, accepted: socket.socket, peer: Any) -> None:
        connection = self._connection(peer[0])
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._server_context(),
                ssl_handshake_timeout=self._stream.handshake_timeout_s,
            )
        except (OSError, RuntimeError) as error:
            self._note("tls-handshake-failed", listener, reason_of(error), peer)
            accepted.close()
            self._leave(peer[0])
            return
        except asyncio.CancelledError:
            accepted.close()
            self._leave(peer[0])
            raise
        if connection.lost:
            self._leave(peer[0])
        else:
            self._begin(listener, advertised, connection, peer)

    def _connection(self, address: str) -> StreamConnection:
        def lost(connection: StreamConnection) -> None:
            self._inbound.discard(connection)
            self._leave(address)

        return StreamConnection(self._hooks, self._stream, on_lost=lost)

    def _enter(self, listener: Listener, advertised: str, peer: Any) -> bool:
        """Whether a connection may come in; it then counts for its address until `_leave`."""
        limits = self._stream
        if not peer:
            return False  # gone before we looked
        address = peer[0]
        probe = Flow(listener.transport, (listener.host, listener.port), tuple(peer[:2]), advertised, str(listener))
        reason = ""
        if self._welcome is not None and not self._welcome(probe):
            reason = "source not allowed"
        elif len(self._inbound) + len(self._handshakes) >= limits.max_connections:
            reason = f"{limits.max_connections} connections are open"
        elif self._by_address.get(address, 0) >= limits.max_connections_per_address:
            reason = f"{limits.max_connections_per_address} connections of this address are open"
        elif len(self._handshakes) >= limits.max_handshakes:
            reason = f"{limits.max_handshakes} handshakes are under way"
        if reason:
            self.refused += 1
            self._note("connection-refused", listener, reason, peer)
            return False
        self._by_address[address] = self._by_address.get(address, 0) + 1
        return True

    def _leave(self, address: str) -> None:
        left = self._by_address.get(address, 0) - 1
        if left > 0:
            self._by_address[address] = left
        else:
            self._by_address.pop(address, None)

    def _begin(self, listener: Listener, advertised: str, connection: StreamConnection, peer: Any) -> None:
        transport = connection.transport
        local, remote = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if not local or not remote:
            transport.abort()  # gone before we looked
            self._leave(peer[0])
            return
        flow = Flow(
            listener.transport,
            tuple(local[:2]),
            tuple(remote[:2]),
            advertised,
            str(listener),
            handle=connection,
        )
        self._inbound.add(connection)
        _log.debug("connection-accepted", flow=str(flow), listener=str(listener))
        connection.begin(flow)

    def _note(self, event: str, listener: Listener, reason: str, peer: Any) -> None:
        host, port = peer[:2] if peer else ("?", 0)
        suppressed = self._noted.allow((event, host, reason), asyncio.get_running_loop().time())
        if suppressed is not None:
            remote = f"{bracketed(host)}:{port}"
            _log.warning(event, listener=str(listener), peer=remote, reason=reason, suppressed=suppressed)


class _Acceptor(asyncio.Protocol):
    """The first protocol of a connection that came in."""

    __slots__ = ("_advertised", "_listener", "_owner")

    def __init__(self, owner: Transports, listener: Listener, advertised: str) -> None:
        self._owner = owner
        self._listener = listener
        self._advertised = advertised

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection over."""
        self._owner.accepted(self._listener, self._advertised, cast("asyncio.Transport", transport))


def server_socket(family: int, address: Any, *, shared: bool = False) -> socket.socket:
    """A bound stream socket; `shared` with other processes. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # A restart must not wait for the last connections of its predecessor to time out.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _reaches(sock: UdpSocket, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether datagrams for an address can leave from a socket: same family, and not bound to loopback only."""
    if (sock.family == socket.AF_INET6) != (address.version == 6):
        return False
    return address.is_loopback or not ipaddress.ip_address(sock.local[0].partition("%")[0]).is_loopback
