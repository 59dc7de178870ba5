"""UDP: one socket per listener, one flow per peer address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import structlog

from proxy.audit.throttle import Throttle
from proxy.sip.flow import Flow
from proxy.transport.errors import reason_of
from proxy.transport.listener import bracketed

__all__ = ["LARGE_DATAGRAM_BYTES", "UdpSocket", "udp_socket"]

LARGE_DATAGRAM_BYTES: Final = 1300
"""Requests above this size should go by TCP, where the path MTU is unknown (RFC 3261 section 18.1.1)."""

_RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
_SHORTEST_MESSAGE_BYTES: Final = 8
_SO_RCVBUFFORCE: Final = 33
_IP_MTU_DISCOVER: Final = 10
_LOG_INTERVAL_S: Final = 60.0
_MAX_NUMERIC: Final = 1024

_log = structlog.get_logger(__name__)


class UdpSocket(asyncio.DatagramProtocol):
    """A UDP socket and the flows of its peers.

    The same peer gets the same Flow for as long as it is remembered: at least for `idle_s` after its last message, and
    for the next `max_flows / 2` peers. A flow that was forgotten stays usable, since it holds its address and this
    socket.

    Args:
        name: the listener's name, or "" for a socket that was opened for sending only.
        advertised: `host:port` that peers reach us at.
        receive: called with each datagram and its flow.
        idle_s: after at most twice this time a peer that is silent is forgotten. clock: that of the loop by default.
    """

    __slots__ = (
        "_advertised",
        "_clock",
        "_half",
        "_idle_s",
        "_large",
        "_loop",
        "_noted",
        "_numeric",
        "_old",
        "_receive",
        "_transport",
        "_turn",
        "_young",
        "bytes_in",
        "bytes_out",
        "closed",
        "family",
        "local",
        "name",
    )

    def __init__(
        self,
        name: str,
        advertised: str,
        receive: Callable[[bytes, Flow], None],
        *,
        max_flows: int = 65_536,
        idle_s: float = 600.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.name = name
        self.local: tuple[str, int] = ("", 0)
        self.family = socket.AF_INET
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.bytes_in = 0
        self.bytes_out = 0
        self._advertised = advertised
        self._receive = receive
        self._half = max(1, max_flows // 2)
        self._young: dict[Any, Flow] = {}
        self._old: dict[Any, Flow] = {}
        self._numeric: dict[tuple[str, int], Any] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._idle_s = idle_s
        self._clock = clock or self._loop.time
        self._turn = self._clock() + idle_s
        self._large = Throttle(3600.0)
        self._noted = Throttle(_LOG_INTERVAL_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        sock = transport.get_extra_info("socket")
        self.family = sock.family
        self.local = tuple(transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Hand a datagram on with the flow of its peer."""
        self.bytes_in += len(data)
        if len(data) < _SHORTEST_MESSAGE_BYTES and not data.strip(b"\r\n\x00"):
            return  # a keep-alive that only holds a NAT binding open
        flow = self._young.get(addr)
        self._receive(data, self._find(addr) if flow is None else flow)

    def flow_to(self, host: str, port: int) -> Flow:
        """The flow to a peer. Raises OSError when `host` is no IP address of the socket's family."""
        addr = self._numeric.get((host, port))
        if addr is None:
            # Only this gives an address exactly as the socket reports it, scope of a link-local one included.
            found = socket.getaddrinfo(host, port, self.family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
            addr = found[0][4]
            if len(self._numeric) >= _MAX_NUMERIC:
                self._numeric.clear()
            self._numeric[host, port] = addr
        return self._find(addr)

    def _find(self, addr: Any) -> Flow:
        """The flow of an address as the socket gives it, from the two generations of remembered ones, or a new one."""
        self._age()
        flow = self._young.get(addr) or self._old.pop(addr, None)
        if flow is None:
            host = f"{addr[0]}%{addr[3]}" if len(addr) == 4 and addr[3] and "%" not in addr[0] else addr[0]
            flow = Flow("udp", self.local, (host, addr[1]), self._advertised, self.name, handle=self)
        if len(self._young) >= self._half:
            self._next_generation()
        self._young[addr] = flow
        return flow

    def _next_generation(self) -> None:
        self._old, self._young = self._young, {}
        self._turn = self._clock() + self._idle_s

    def _age(self) -> None:
        """Forget whom nothing came from or went to for long."""
        late_s = self._clock() - self._turn
        if late_s >= 0:
            self._next_generation()
            if late_s >= self._idle_s:
                self._old = {}

    @property
    def flows(self) -> int:
        """How many peers are remembered."""
        self._age()
        return len(self._young) + len(self._old)

    def send(self, flow: Flow, data: bytes) -> None:
        """Send one datagram. What goes wrong is logged, never raised."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if len(data) > LARGE_DATAGRAM_BYTES and self._large.allow(flow.remote, self._loop.time()) is not None:
            _log.info("large-datagram", peer=str(flow), bytes=len(data), limit=LARGE_DATAGRAM_BYTES)
        try:
            transport.sendto(data, flow.remote)
            self.bytes_out += len(data)
        except (OSError, ValueError) as error:
            self._note("udp-send-failed", error, peer=str(flow), bytes=len(data))

    def error_received(self, exc: Exception) -> None:
        """A datagram could not be sent (too long, unreachable); transactions find out by their timers."""
        self._note("udp-error", exc)

    def _note(self, event: str, error: Exception, **fields: object) -> None:
        suppressed = self._noted.allow((event, type(error), getattr(error, "errno", None)), self._loop.time())
        if suppressed is not None:
            local = f"udp:{bracketed(self.local[0])}:{self.local[1]}"
            _log.warning(event, local=local, reason=reason_of(error), suppressed=suppressed, **fields)

    def close(self, why: str) -> None:
        """Nothing to do: the socket serves all peers, and there is no connection to end."""

    def shut(self) -> None:
        """Close the socket; `closed` is done afterwards."""
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        for flow in (*self._young.values(), *self._old.values()):
            flow.closed = True
        self._young, self._old = {}, {}
        if not self.closed.done():
            self.closed.set_result(None)


def udp_socket(family: int, address: Any, *, shared: bool = False) -> socket.socket:
    """A bound UDP socket with a large receive buffer that lets the network fragment large datagrams; `shared` with
    other processes. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if sys.platform == "linux":
            if family == socket.AF_INET:
                # Linux forbids fragments by default; an INVITE above the MTU would then never leave.
                sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, 0)
            with contextlib.suppress(OSError):  # the system's own limit holds for who is not privileged
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < _RECEIVE_BUFFER_BYTES:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
