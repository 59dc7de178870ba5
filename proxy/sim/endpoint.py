"""A small asyncio shell around the transaction layer: sockets, connections, one timer.

The simulators have their own, so that what they find does not rest on the transports of the product.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final, cast

from proxy.sip.errors import SipError
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Request, Response
from proxy.sip.parser import MalformedMessage, StreamFramer, check_request, parse_message
from proxy.sip.respond import make_response
from proxy.transaction.client import ClientTransaction, ClientUser
from proxy.transaction.layer import LayerUser, TransactionLayer
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import Timer, TimerQueue, TimerSettings

__all__ = ["Endpoint", "Listen", "Traffic", "bracketed", "client_context", "parse_listen", "server_context"]

TRANSPORTS: Final = ("udp", "tcp", "tls")
_BACKLOG: Final = 1024
_RECEIVE_BUFFER_BYTES: Final = 1 << 22
_REMEMBERED: Final = 4096
_KEEP_ALIVES: Final = (b"\r\n\r\n", b"\r\n", b"\x00", b"")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: `transport` "udp", "tcp" or "tls", `host` an IP address, `port` (0: any free one)."""

    transport: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.transport}:{bracketed(self.host)}:{self.port}"


def bracketed(host: str) -> str:
    """An address as it stands before a colon and a port: IPv6 in square brackets."""
    return f"[{host}]" if ":" in host else host


def parse_listen(text: str) -> Listen:
    """Read `transport:address:port`, IPv6 in square brackets. Raises ValueError that says what is wrong."""
    transport, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if transport.lower() not in TRANSPORTS or not host:
        raise ValueError(f"{text!r} is not of the form udp|tcp|tls:address:port, for example tls:127.0.0.1:5061")
    if not port.isdigit() or int(port) > 65535:
        raise ValueError(f"the port in {text!r} is not a number from 0 to 65535")
    return Listen(transport.lower(), host, int(port))


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS for a listener, from PEM files. Raises ValueError for files that are no use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ValueError(f"certificate {certificate} and key {key}: {error.strerror or error}") from error
    return context


def client_context(ca_file: str | None = None, *, verify: bool = True) -> ssl.SSLContext:
    """TLS for connections that we open, trusting the CAs of a PEM file, or the system's.

    Raises ValueError for a file that is no use.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"CA file {ca_file}: {error.strerror or error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _bind(listen: Listen) -> socket.socket:
    """A socket that is bound. Raises OSError with the listener in its text."""
    kind = socket.SOCK_DGRAM if listen.transport == "udp" else socket.SOCK_STREAM
    sock = socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((listen.host, listen.port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{listen}: {error.strerror or error}") from error
    return sock


def _local_address(hop: Hop) -> str:
    """The address of ours that a hop is reached from; nothing is sent. Raises OSError when there is no route."""
    with socket.socket(socket.AF_INET6 if ":" in hop.host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((hop.host, hop.port))
        address: str = probe.getsockname()[0]
        return address


@dataclass(slots=True)
class Traffic:
    """What went over an endpoint's sockets, in messages. Retransmissions are told by equal bytes, over UDP only."""

    sent: int = 0
    received: int = 0
    retransmissions_sent: int = 0
    retransmissions_received: int = 0
    malformed_received: int = 0
    unsent: int = 0
    connections_opened: int = 0
    connections_lost: int = 0

    def to_dict(self) -> dict[str, int]:
        """The counters by name."""
        return asdict(self)


class _Remembered:
    """Hashes of the latest messages: two generations, so that the memory is bounded and forgetting costs nothing."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()

    def seen(self, data: bytes) -> bool:
        """Whether these bytes were here before; from now on they were."""
        mark = hash(data)
        if mark in self._new or mark in self._old:
            return True
        if len(self._new) >= _REMEMBERED:
            self._old, self._new = self._new, set()
        self._new.add(mark)
        return False


class _Link:
    """What a flow's handle can do."""

    def write(self, data: bytes, flow: Flow) -> None:
        """Send one message."""
        raise NotImplementedError

    def close(self, *, reset: bool) -> None:
        """Close the path; with `reset` by RST, so that the peer sees an error."""


class _Udp(_Link, asyncio.DatagramProtocol):
    """One UDP socket, with a flow for each peer."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._flows: dict[tuple[str, int], Flow] = {}
        self.transport: asyncio.DatagramTransport | None = None
        self.local = ("", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every loop derives its transports from asyncio's own classes.
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.local = transport.get_extra_info("sockname")[:2]
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)

    def flow_to(self, remote: tuple[str, int]) -> Flow:
        """The flow to a peer; always the same object for the same address."""
        flow = self._flows.get(remote)
        if flow is None:
            advertised = f"{bracketed(self.local[0])}:{self.local[1]}"
            flow = self._flows[remote] = Flow("udp", self.local, remote, advertised, "udp", handle=self)
        return flow

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data not in _KEEP_ALIVES:
            self._endpoint.receive(data, self.flow_to((addr[0], addr[1])))

    def write(self, data: bytes, flow: Flow) -> None:
        if self.transport is not None:
            self.transport.sendto(data, flow.remote)


class _Stream(_Link, asyncio.Protocol):
    """One TCP or TLS connection."""

    def __init__(self, endpoint: Endpoint, transport_name: str, listen: Listen | None, server_name: str = "") -> None:
        self._endpoint = endpoint
        self._name = transport_name
        self._listen = listen
        self._server_name = server_name
        self._framer = StreamFramer()
        self.transport: asyncio.Transport | None = None
        self.flow: Flow | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        local = transport.get_extra_info("sockname")[:2]
        remote = transport.get_extra_info("peername")[:2]
        port = self._listen.port if self._listen is not None else local[1]
        name = str(self._listen) if self._listen is not None else ""
        advertised = f"{bracketed(local[0])}:{port}"
        self.flow = Flow(self._name, local, remote, advertised, name, self._server_name, handle=self)
        self._endpoint.connection_made(self)

    def data_received(self, data: bytes) -> None:
        assert self.flow is not None
        try:
            messages = self._framer.feed(data)
        except SipError:
            self._endpoint.traffic.malformed_received += 1
            self.close(reset=False)
            return
        for message in messages:
            if message == StreamFramer.PING:
                self.write(StreamFramer.PONG, self.flow)
            elif message != StreamFramer.PONG:
                self._endpoint.receive(message, self.flow)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.flow is not None:
            self.flow.closed = True
            self._endpoint.connection_lost(self, self.flow)

    def write(self, data: bytes, flow: Flow) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def close(self, *, reset: bool) -> None:
        if self.transport is None:
            return
        if reset:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()


@dataclass(slots=True)
class _Sockets:
    """What an endpoint must close."""

    udp: list[_Udp] = field(default_factory=list)
    servers: list[asyncio.Server] = field(default_factory=list)
    streams: set[_Stream] = field(default_factory=set)


class Endpoint:
    """SIP over real sockets: feeds a transaction layer, and sends what it wants sent.

    Attributes:
        layer: the transactions.
        traffic: message counters.
        data: the bytes of the message that is being handed in, as they came.
    """

    def __init__(self, user: LayerUser, settings: TimerSettings | None = None) -> None:
        self.settings = settings if settings is not None else TimerSettings()
        self.traffic = Traffic()
        self.data = b""
        self._timers = TimerQueue()
        self.layer = TransactionLayer(self.settings, self._timers, self.send, user)
        self._sockets = _Sockets()
        self._received = _Remembered()
        self._sent = _Remembered()
        self._armed: asyncio.Handle | None = None
        self._armed_for = 0.0
        self._armed_for = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drained: asyncio.Event | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the endpoint was first used in."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    @property
    def now(self) -> float:
        """The time that transactions go by: seconds of the loop's clock."""
        return self.loop.time()

    async def listen(self, listen: Listen, tls: ssl.SSLContext | None = None) -> Listen:
        """Open a listener, and return where it really listens. Raises OSError, with the listener in its text."""
        if listen.transport == "tls" and tls is None:
            raise OSError(None, f"{listen}: a TLS listener needs a certificate")
        # The socket is bound first, so that a connection knows the port that it came in by.
        sock = _bind(listen)
        bound = Listen(listen.transport, listen.host, sock.getsockname()[1])
        if listen.transport == "udp":
            _, udp = await self.loop.create_datagram_endpoint(lambda: _Udp(self), sock=sock)
            self._sockets.udp.append(udp)
            return bound
        server = await self.loop.create_server(
            lambda: _Stream(self, bound.transport, bound),
            sock=sock,
            ssl=tls if listen.transport == "tls" else None,
            backlog=_BACKLOG,
        )
        self._sockets.servers.append(server)
        return bound

    async def connect(self, hop: Hop, tls: ssl.SSLContext | None = None, timeout_s: float = 5.0) -> Flow:
        """A flow to a hop: a new connection, or over UDP the first UDP listener's flow. Raises OSError."""
        if hop.transport == "udp":
            if not self._sockets.udp:
                await self.listen(Listen("udp", _local_address(hop), 0))
            return self._sockets.udp[0].flow_to((hop.host, hop.port))
        context = tls if hop.transport == "tls" else None
        if hop.transport == "tls" and context is None:
            context = client_context()
        name = (hop.server_name or hop.host) if context is not None else None
        async with asyncio.timeout(timeout_s):
            _, stream = await self.loop.create_connection(
                lambda: _Stream(self, hop.transport, None, name or ""),
                hop.host,
                hop.port,
                ssl=context,
                server_hostname=name,
            )
        assert stream.flow is not None
        self.traffic.connections_opened += 1
        return stream.flow

    def flow_to(self, remote: tuple[str, int]) -> Flow | None:
        """The UDP flow to an address from the first UDP socket; None when there is none."""
        return self._sockets.udp[0].flow_to(remote) if self._sockets.udp else None

    def send(self, flow: Flow, data: bytes) -> None:
        """Send one message; on a closed flow it is only counted."""
        link = flow.handle
        if flow.closed or not isinstance(link, _Link):
            self.traffic.unsent += 1
            return
        self.traffic.sent += 1
        if not flow.reliable and self._sent.seen(data):
            self.traffic.retransmissions_sent += 1
        link.write(data, flow)

    def send_request(self, request: Request, flow: Flow, user: ClientUser) -> ClientTransaction:
        """Begin a client transaction."""
        transaction = self.layer.send_request(request, flow, user, self.now)
        self._arm()
        return transaction

    def respond(self, transaction: ServerTransaction, response: Response) -> None:
        """Answer a request."""
        transaction.respond(response, self.now)
        self._arm()

    def after(self, delay_s: float, callback: Callable[[float], None]) -> Timer:
        """Have `callback(now)` called once, `delay_s` from now."""
        timer = self._timers.schedule(self.now + delay_s, callback)
        self._arm()
        return timer

    def close_flow(self, flow: Flow, *, reset: bool = False) -> None:
        """Close a connection; with `reset` by RST. A UDP flow has nothing to close."""
        if isinstance(flow.handle, _Link):
            flow.handle.close(reset=reset)

    async def stop(self) -> None:
        """Close everything at once, and wait until it is closed."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        for server in self._sockets.servers:
            server.close()
        for udp in self._sockets.udp:
            if udp.transport is not None:
                udp.transport.close()
        for stream in list(self._sockets.streams):
            if stream.transport is not None:
                stream.transport.abort()
        for server in self._sockets.servers:
            await server.wait_closed()
        self._drained = asyncio.Event()
        if self._sockets.streams:
            await self._drained.wait()
        # Transports close their sockets in a later turn of the loop.
        await asyncio.sleep(0)
        self._sockets = _Sockets()

    def receive(self, data: bytes, flow: Flow) -> None:
        """Take one whole message in. What does not parse is answered where that is possible, and counted."""
        self.traffic.received += 1
        if not flow.reliable and self._received.seen(data):
            self.traffic.retransmissions_received += 1
        self.data = data
        try:
            message = parse_message(data)
        except MalformedMessage as error:
            self.traffic.malformed_received += 1
            if error.partial is not None and error.partial.method != "ACK":
                self._refuse(error.partial, error, flow)
            return
        try:
            if isinstance(message, Request):
                check_request(message)
                self.layer.receive_request(message, flow, self.now)
            else:
                self.layer.receive_response(message, flow, self.now)
        except SipError as error:
            self.traffic.malformed_received += 1
            if isinstance(message, Request) and message.method != "ACK":
                self._refuse(message, error, flow)
        self._arm()

    def _refuse(self, request: Request, error: SipError, flow: Flow) -> None:
        try:
            response = make_response(request, error.status, error.reason, remote=flow.remote, headers=error.headers)
        except SipError:
            return
        self.send(flow, response.serialize())

    def connection_made(self, stream: _Stream) -> None:
        """A connection is open."""
        self._sockets.streams.add(stream)

    def connection_lost(self, stream: _Stream, flow: Flow) -> None:
        """A connection is gone."""
        self._sockets.streams.discard(stream)
        if self._drained is not None and not self._sockets.streams:
            self._drained.set()
        self.traffic.connections_lost += 1
        self.layer.flow_closed(flow, self.now)
        self._arm()

    def _arm(self) -> None:
        """Have the loop call us at the next deadline; a timer that is set too early is left to find nothing due."""
        deadline = self._timers.next_deadline()
        if deadline is None:
            return
        if self._armed is not None:
            # Not `self._armed.when()`: uvloop gives a plain handle for a deadline that has passed.
            if self._armed_for <= deadline:
                return
            self._armed.cancel()
        self._armed_for = deadline
        self._armed_for = deadline
        self._armed = self.loop.call_at(deadline, self._fire, deadline)

    def _fire(self, deadline: float) -> None:
        self._armed = None
        # A loop with a clock of whole milliseconds may call a little early.
        self._timers.run(max(self.now, deadline))
        self._arm()
