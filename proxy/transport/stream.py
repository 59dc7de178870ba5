"""TCP and TLS connections: framing, keep-alives and the limits that one peer may use up."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

import structlog

from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.parser import MAX_MESSAGE_BYTES, StreamFramer
from proxy.transport.errors import reason_of

__all__ = ["StreamConnection", "StreamHooks", "StreamSettings"]

_CLOSE_TIMEOUT_S: Final = 5.0
_SLOWEST_MESSAGE: Final = 4
_LONGEST_KEEPALIVE: Final = len(StreamFramer.PING)
_TCP_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Time limits in seconds and sizes in bytes for TCP and TLS.

    Attributes:
        connect_timeout_s: for opening a connection, TLS handshake included.
        handshake_timeout_s: for the TLS handshake of a connection that comes in.
        first_message_timeout_s: how long a connection that came in may be open before its first whole message.
        half_message_timeout_s: how long a half-sent message may stand without progress.
        idle_timeout_s: how long a connection that came in may go without a message, while no call uses it.
        outbound_idle_timeout_s: the same for a connection that we opened and keep alive.
        keepalive_s: the longest time between two pings on a connection that we opened (RFC 5626 section 4.4.1).
        pong_timeout_s: how long a peer that has answered pings before may take to answer one.
        write_buffer_bytes: how much may wait for a peer that does not read.
        max_message_bytes: of one message, head and body.
        max_connections: how many connections may be open that came in, those of one address among them:
        max_connections_per_address.
        max_handshakes: how many TLS handshakes of connections that come in may be under way.
    """

    connect_timeout_s: float = 5.0
    handshake_timeout_s: float = 5.0
    first_message_timeout_s: float = 30.0
    half_message_timeout_s: float = 15.0
    idle_timeout_s: float = 600.0
    outbound_idle_timeout_s: float = 3600.0
    keepalive_s: float = 30.0
    pong_timeout_s: float = 10.0
    write_buffer_bytes: int = 1024 * 1024
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_connections: int = 10_000
    max_connections_per_address: int = 500
    max_handshakes: int = 500


class StreamHooks(Protocol):
    """Whom connections report to."""

    def receive(self, data: bytes, flow: Flow) -> None:
        """One whole message came in."""

    def stream_error(self, flow: Flow, error: SipError) -> None:
        """The peer sent what can't be framed; the connection is closed right after this."""

    def closed(self, flow: Flow) -> None:
        """The connection is gone."""

    def in_use(self, flow: Flow) -> bool:
        """Whether a call still needs the connection."""


class StreamConnection(asyncio.Protocol):
    """One connection. It is silent until `begin` names its flow; what comes in before that waits.

    Args:
        hooks: whom it reports to.
        settings: its limits.
        outbound: whether we opened it; such a connection is kept alive by pings.
        on_lost: called before the hooks when it is gone.

    Attributes:
        gone: done once the connection is gone.
        opened: when `begin` was called, seconds of the loop's clock.
        tls: version and cipher suite, or "" without TLS.
    """

    __slots__ = (
        "_closing",
        "_early",
        "_framer",
        "_half_since",
        "_half_timer",
        "_hooks",
        "_idle_timer",
        "_last_message",
        "_last_read",
        "_loop",
        "_on_lost",
        "_outbound",
        "_ping_timer",
        "_pongs",
        "_settings",
        "_spoken",
        "_transport",
        "bytes_in",
        "bytes_out",
        "flow",
        "gone",
        "lost",
        "opened",
        "tls",
        "why",
    )

    def __init__(
        self,
        hooks: StreamHooks,
        settings: StreamSettings,
        *,
        outbound: bool = False,
        on_lost: Callable[[StreamConnection], None] | None = None,
    ) -> None:
        self.flow: Flow | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False
        self.opened = 0.0
        self.tls = ""
        self.why = ""
        self.bytes_in = 0
        self.bytes_out = 0
        self._hooks = hooks
        self._settings = settings
        self._outbound = outbound
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._framer = StreamFramer(settings.max_message_bytes)
        self._spoken = False
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._last_read = self._last_message = self._half_since = 0.0
        self._half_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._pongs = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open, TLS included."""
        self._transport = stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(high=self._settings.write_buffer_bytes)
        sock = stream.get_extra_info("socket")
        if sock is not None:
            _tune(sock)

    @property
    def transport(self) -> asyncio.Transport:
        """The asyncio transport; only after `connection_made`."""
        assert self._transport is not None
        return self._transport

    def facts(self) -> tuple[str, float]:
        """TLS version and cipher suite ("" without TLS), and when the connection was opened; for the record."""
        return self.tls, self.opened

    def begin(self, flow: Flow) -> None:
        """Start the work: hand in what came already, and arm the timers."""
        self.flow = flow
        now = self._loop.time()
        self._last_message = self.opened = now
        cipher = self.transport.get_extra_info("cipher")
        if cipher:
            self.tls = f"{cipher[1]} {cipher[0]}"
        early, self._early = self._early, []
        self._arm_idle()
        if self._outbound:
            self._arm_ping()
        for data in early:
            self.data_received(data)
        if self.lost:
            self._gone(flow)

    def data_received(self, data: bytes) -> None:
        """Cut bytes into messages and hand these on in order."""
        flow = self.flow
        if flow is None:
            self._early.append(data)
            return
        if flow.closed:
            return
        self.bytes_in += len(data)
        self._last_read = self._loop.time()
        framer = self._framer
        try:
            messages = framer.feed(data)
        except SipError as error:
            self._fail(flow, error)
            return
        if messages:
            self._half_since = self._last_read
            self._take(flow, messages)
            if framer.error is not None and not flow.closed:
                self._fail(flow, framer.error)
                return
        elif not self._half_since:
            self._half_since = self._last_read
        if not framer.pending_bytes:
            self._half_since = 0.0
        elif self._half_timer is None and not flow.closed:
            self._half_timer = self._loop.call_later(self._settings.half_message_timeout_s, self._check_half)

    def _take(self, flow: Flow, messages: list[bytes]) -> None:
        receive = self._hooks.receive
        for message in messages:
            if len(message) > _LONGEST_KEEPALIVE:
                self._spoken = True
                self._last_message = self._last_read
                receive(message, flow)
            elif message == StreamFramer.PING:
                self.send(flow, StreamFramer.PONG)
            else:
                self._pongs = True
            if flow.closed:
                return

    def _fail(self, flow: Flow, error: SipError) -> None:
        _log.info("stream-error", flow=str(flow), reason=error.reason)
        self._hooks.stream_error(flow, error)
        self.close(error.reason)

    def send(self, flow: Flow, data: bytes) -> None:
        """Write bytes. After the end of the connection this does nothing."""
        transport = self._transport
        if flow.closed or transport is None or transport.is_closing():
            return
        self.bytes_out += len(data)
        transport.write(data)

    def pause_writing(self) -> None:
        """The peer does not read: what waits for it has reached the limit."""
        self.abort("peer does not read")

    def close(self, why: str) -> None:
        """Close the connection after what was written has left."""
        transport = self._end(why)
        if transport is not None and not transport.is_closing():
            transport.close()
            self._closing = self._loop.call_later(_CLOSE_TIMEOUT_S, transport.abort)

    def abort(self, why: str) -> None:
        """Close the connection at once."""
        transport = self._end(why)
        if transport is not None:
            transport.abort()

    def _end(self, why: str) -> asyncio.Transport | None:
        self.why = self.why or why
        if self.flow is not None:
            self.flow.closed = True
        self._cancel_timers()
        return self._transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.lost = True
        self.why = self.why or (reason_of(exc) if exc is not None else "closed by the peer")
        if self._closing is not None:
            self._closing.cancel()
        self._cancel_timers()
        if self.flow is not None:
            self._gone(self.flow)

    def _gone(self, flow: Flow) -> None:
        flow.closed = True
        self._cancel_timers()
        _log.debug(
            "connection-closed", flow=str(flow), reason=self.why, bytes_in=self.bytes_in, bytes_out=self.bytes_out
        )
        if not self.gone.done():
            self.gone.set_result(None)
        if self._on_lost is not None:
            self._on_lost(self)
        self._hooks.closed(flow)

    def _cancel_timers(self) -> None:
        for timer in (self._half_timer, self._idle_timer, self._ping_timer):
            if timer is not None:
                timer.cancel()
        self._half_timer = self._idle_timer = self._ping_timer = None

    def _check_half(self) -> None:
        """Close when the rest of a message does not come, or only drips in."""
        self._half_timer = None
        if not self._half_since:
            return
        timeout_s = self._settings.half_message_timeout_s
        now = self._loop.time()
        left_s = min(self._last_read + timeout_s, self._half_since + _SLOWEST_MESSAGE * timeout_s) - now
        if left_s <= 0.001:
            self.close("half-sent message")
        else:
            self._half_timer = self._loop.call_later(left_s, self._check_half)

    def _idle_limit_s(self) -> float:
        settings = self._settings
        if self._outbound:
            return settings.outbound_idle_timeout_s
        return (
            settings.idle_timeout_s if self._spoken else min(settings.first_message_timeout_s, settings.idle_timeout_s)
        )

    def _arm_idle(self) -> None:
        left_s = self._last_message + self._idle_limit_s() - self._loop.time()
        self._idle_timer = self._loop.call_later(max(left_s, 0.001), self._check_idle)

    def _check_idle(self) -> None:
        """Close when nothing came for long and no call needs the connection."""
        flow = self.flow
        assert flow is not None
        now = self._loop.time()
        if now - self._last_message >= self._idle_limit_s() - 0.001:
            if not self._hooks.in_use(flow):
                self.close("idle")
                return
            self._last_message = now
        self._arm_idle()

    def _arm_ping(self) -> None:
        # RFC 5626 section 4.4.1: a random time between 80 and 100 percent, so that connections do not ping in step.
        delay_s = self._settings.keepalive_s * random.uniform(0.8, 1.0)
        self._ping_timer = self._loop.call_later(delay_s, self._ping)

    def _ping(self) -> None:
        flow = self.flow
        assert flow is not None
        self.send(flow, StreamFramer.PING)
        if self._pongs:
            sent = self._loop.time()
            self._ping_timer = self._loop.call_later(self._settings.pong_timeout_s, self._check_pong, sent)
        else:
            self._arm_ping()

    def _check_pong(self, sent: float) -> None:
        if self._last_read < sent:
            self.abort("no answer to a keep-alive")
        else:
            self._arm_ping()


def _tune(sock: socket.socket) -> None:
    """Small messages leave at once, and the kernel finds out about a peer that vanished."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
