"""What transports report to, and peers on loopback to talk to them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from proxy.sip.errors import SipError
from proxy.sip.flow import Flow, Hop
from proxy.transport.manager import Transports

PATIENCE_S = 5.0


class Hooks:
    """Notes everything that transports report."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, Flow]] = []
        self.errors: list[tuple[Flow, SipError]] = []
        self.ended: list[Flow] = []
        self.used: set[Flow] = set()
        self.on_message: Callable[[bytes, Flow], None] | None = None
        self._news = asyncio.Event()

    def receive(self, data: bytes, flow: Flow) -> None:
        self.messages.append((data, flow))
        if self.on_message is not None:
            self.on_message(data, flow)
        self._news.set()

    def stream_error(self, flow: Flow, error: SipError) -> None:
        self.errors.append((flow, error))
        self._news.set()

    def closed(self, flow: Flow) -> None:
        assert flow.closed
        self.ended.append(flow)
        self._news.set()

    def in_use(self, flow: Flow) -> bool:
        return flow in self.used

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition on what was reported."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_messages(self, count: int) -> None:
        """Wait for so many messages in all."""
        await self.until(lambda: len(self.messages) >= count)


class UdpPeer(asyncio.DatagramProtocol):
    """A UDP socket with a queue."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport | None = None
        self.address: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.address = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.put_nowait((data, addr))

    def send(self, data: bytes, address: Any) -> None:
        assert self.transport is not None
        self.transport.sendto(data, address)

    async def get(self) -> tuple[bytes, Any]:
        return await asyncio.wait_for(self.received.get(), PATIENCE_S)

    def close(self) -> None:
        assert self.transport is not None
        self.transport.close()


async def open_udp_peer(host: str = "127.0.0.1") -> UdpPeer:
    _, peer = await asyncio.get_running_loop().create_datagram_endpoint(UdpPeer, local_addr=(host, 0))
    return peer


def message(call_id: str, body: bytes = b"") -> bytes:
    """A request as a stream needs it."""
    head = (
        f"OPTIONS sip:a@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK{call_id}\r\n"
        f"From: <sip:b@127.0.0.1>;tag=1\r\nTo: <sip:a@127.0.0.1>\r\nCall-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\n"
        f"Max-Forwards: 70\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(transports: Transports, at: int = 0, trust: str | None = None) -> Streams:
    """Connect to a listener; over TLS with a CA file."""
    listener = transports.listeners[at]
    context = None
    if listener.transport == "tls":
        context = ssl.create_default_context(cafile=trust)
    host = "sip.example.com" if context else None
    return await asyncio.open_connection(listener.host, listener.port, ssl=context, server_hostname=host)


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side closes or resets."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def open_flow(transports: Transports, hop: Hop) -> tuple[Flow | None, str]:
    """`Transports.open` as a coroutine."""
    future: asyncio.Future[tuple[Flow | None, str]] = asyncio.get_running_loop().create_future()
    transports.open(hop, lambda flow, reason: future.set_result((flow, reason)))
    return await asyncio.wait_for(future, PATIENCE_S)


async def opened(transports: Transports, hop: Hop) -> Flow:
    """A flow to a hop that must be reachable."""
    flow, reason = await open_flow(transports, hop)
    assert flow is not None, reason
    return flow


async def refused(transports: Transports, hop: Hop) -> str:
    """The reason why a hop can't be reached."""
    flow, reason = await open_flow(transports, hop)
    assert flow is None
    return reason


async def close(writer: asyncio.StreamWriter) -> None:
    """Close our side, whatever the other one did."""
    writer.close()
    try:
        await writer.wait_closed()
    except (OSError, ssl.SSLError):
        pass
