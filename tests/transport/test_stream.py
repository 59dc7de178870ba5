"""TCP and TLS connections that come in: framing, keep-alives, limits."""

import asyncio
import dataclasses
import shutil
import socket
import struct
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from proxy.sip.flow import Flow
from proxy.transport.manager import Transports
from proxy.transport.stream import StreamSettings
from proxy.transport.tls import TlsSettings
from tests.transport.conftest import Start, write_certificate
from tests.transport.peers import Hooks, Streams, close, connect, message, read_to_end

HASTY = StreamSettings(half_message_timeout_s=0.1, idle_timeout_s=0.1, handshake_timeout_s=0.2)
both = pytest.mark.parametrize("transport", ["tcp", "tls"])


async def dial(start: Start, tls: TlsSettings, transport: str, stream: StreamSettings | None = None) -> "Line":
    transports, hooks = await start(f"{transport}:127.0.0.1:0", tls=tls, stream=stream)
    reader, writer = await connect(transports, 0, str(tls.ca_file))
    return Line(transports, hooks, reader, writer)


@dataclasses.dataclass
class Line:
    """A connection to a listener, from both ends."""

    transports: Transports
    hooks: Hooks
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def flow(self) -> Flow:
        self.writer.write(message("first"))
        await self.hooks.until_messages(1)
        return self.hooks.messages[0][1]

    async def closed(self) -> bytes:
        """What came before the other side closed."""
        rest = await read_to_end(self.reader)
        await self.hooks.until(lambda: self.hooks.ended)
        await close(self.writer)
        return rest


@both
async def test_messages_come_whole_and_in_order_however_they_are_cut(
    start: Start, tls: TlsSettings, transport: str
) -> None:
    line = await dial(start, tls, transport)
    sent = [message(str(number), b"x" * number * 37) for number in range(20)]
    stream = b"".join(sent)
    for at in range(0, len(stream), 97):
        line.writer.write(stream[at : at + 97])
        if at % 970 == 0:
            await asyncio.sleep(0)
    await line.hooks.until_messages(20)
    assert [data for data, _ in line.hooks.messages] == sent
    flows = {flow for _, flow in line.hooks.messages}
    assert len(flows) == 1
    flow = flows.pop()
    assert (flow.transport, flow.reliable) == (transport, True)
    assert flow.listener == str(line.transports.listeners[0])
    assert flow.advertised == f"127.0.0.1:{line.transports.listeners[0].port}"
    assert flow.remote == line.writer.get_extra_info("sockname")
    line.transports.send(flow, b"answer")
    assert await line.reader.readexactly(6) == b"answer"
    await close(line.writer)
    await line.hooks.until(lambda: line.hooks.ended == [flow])


@both
async def test_large_message_passes_both_ways(start: Start, tls: TlsSettings, transport: str) -> None:
    line = await dial(start, tls, transport)
    large = message("large", bytes(range(256)) * 240)
    line.writer.write(large)
    await line.hooks.until_messages(1)
    assert line.hooks.messages[0][0] == large
    line.transports.send(line.hooks.messages[0][1], large)
    assert await asyncio.wait_for(line.reader.readexactly(len(large)), 5) == large
    await close(line.writer)


@both
async def test_ping_is_answered_by_one_pong(start: Start, tls: TlsSettings, transport: str) -> None:
    line = await dial(start, tls, transport)
    line.writer.write(b"\r\n\r\n")
    assert await line.reader.readexactly(2) == b"\r\n"
    line.writer.write(message("1") + b"\r\n\r\n" + message("2") + b"\r\n")
    await line.hooks.until_messages(2)
    line.transports.send(line.hooks.messages[0][1], b"end")
    assert await line.reader.readexactly(5) == b"\r\nend"
    await close(line.writer)


@both
async def test_stream_that_can_not_be_framed_is_reported_and_closed(
    start: Start, tls: TlsSettings, transport: str
) -> None:
    line = await dial(start, tls, transport)
    line.writer.write(message("1").replace(b"Content-Length: 0", b"Content-Length: none"))
    assert await line.closed() == b""
    (flow, error), *more = line.hooks.errors
    assert more == []
    assert (error.status, flow.closed, line.hooks.ended) == (400, True, [flow])
    assert line.hooks.messages == []


async def test_messages_before_the_fault_are_taken_first(start: Start, tls: TlsSettings) -> None:
    line = await dial(start, tls, "tcp")
    line.hooks.on_message = lambda _, flow: line.transports.send(flow, b"answer")
    line.writer.write(message("1") + message("2") + b"\r\rgarbage" + message("3"))
    assert await line.closed() == b"answeranswer"
    assert [data for data, _ in line.hooks.messages] == [message("1"), message("2")]
    assert len(line.hooks.errors) == 1


@both
async def test_what_was_sent_leaves_before_a_connection_is_closed(
    start: Start, tls: TlsSettings, transport: str
) -> None:
    line = await dial(start, tls, transport)
    flow = await line.flow()
    last = bytes(300_000)
    line.transports.send(flow, last)
    line.transports.close_flow(flow, "done")
    assert flow.closed
    line.transports.send(flow, b"too late")
    assert await line.closed() == last
    assert line.hooks.ended == [flow]


@both
async def test_after_a_close_nothing_more_is_taken(start: Start, tls: TlsSettings, transport: str) -> None:
    line = await dial(start, tls, transport)
    line.hooks.on_message = lambda _, flow: line.transports.close_flow(flow, "enough")
    line.writer.write(message("1") + message("2"))
    await line.closed()
    assert [data for data, _ in line.hooks.messages] == [message("1")]


@both
async def test_reset_by_the_peer_ends_the_flow(start: Start, tls: TlsSettings, transport: str) -> None:
    line = await dial(start, tls, transport)
    flow = await line.flow()
    sock = line.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.writer.transport.abort()
    await line.hooks.until(lambda: line.hooks.ended)
    assert flow.closed
    line.transports.send(flow, b"nobody hears it")
    line.transports.close_flow(flow, "again")
    await close(line.writer)


@both
async def test_half_sent_message_is_not_waited_for(start: Start, tls: TlsSettings, transport: str) -> None:
    line = await dial(start, tls, transport, dataclasses.replace(HASTY, idle_timeout_s=600))
    line.writer.write(message("1") + message("2")[:-5])
    await line.closed()
    assert len(line.hooks.messages) == 1


async def test_message_that_drips_in_is_not_waited_for_either(start: Start, tls: TlsSettings) -> None:
    line = await dial(start, tls, "tcp", dataclasses.replace(HASTY, idle_timeout_s=600))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for byte in message("1") + b"x" * 100:
        line.writer.write(bytes((byte,)))
        await asyncio.sleep(0.04)
        if line.hooks.ended:
            break
    assert 0.3 < loop.time() - begun < 3
    await line.closed()


async def test_message_in_several_parts_in_good_time_is_fine(start: Start, tls: TlsSettings) -> None:
    line = await dial(start, tls, "tcp", dataclasses.replace(HASTY, idle_timeout_s=600))
    data = message("1", bytes(50))
    for at in range(0, len(data), 100):
        line.writer.write(data[at : at + 100])
        await asyncio.sleep(0.05)
    await line.hooks.until_messages(1)
    await asyncio.sleep(0.15)
    assert not line.hooks.ended
    await close(line.writer)


@both
async def test_idle_connection_is_closed_unless_a_call_needs_it(start: Start, tls: TlsSettings, transport: str) -> None:
    line = await dial(start, tls, transport, HASTY)
    flow = await line.flow()
    line.hooks.used.add(flow)
    await asyncio.sleep(0.25)
    assert not flow.closed
    line.hooks.used.clear()
    line.writer.write(b"\r\n\r\n")  # a keep-alive alone is no use
    await line.closed()
    assert line.hooks.ended == [flow]


@both
async def test_peer_that_does_not_read_is_cut_off(start: Start, tls: TlsSettings, transport: str) -> None:
    line = await dial(start, tls, transport, StreamSettings(write_buffer_bytes=100_000))
    flow = await line.flow()
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(400):
        line.transports.send(flow, bytes(50_000))
        await asyncio.sleep(0)
        if flow.closed:
            break
    assert flow.closed
    await line.hooks.until(lambda: line.hooks.ended)
    line.writer.transport.abort()
    await close(line.writer)


@both
async def test_connections_have_a_limit(start: Start, tls: TlsSettings, transport: str) -> None:
    line = await dial(start, tls, transport, StreamSettings(max_connections=1))
    await line.flow()
    with capture_logs() as logs:
        try:
            reader, writer = await connect(line.transports, 0, str(tls.ca_file))
        except OSError:
            pass
        else:
            assert await read_to_end(reader) == b""
            await close(writer)
    assert [entry["event"] for entry in logs] == ["connection-refused"]
    assert line.transports.counters()["connections_in"] == 1
    await close(line.writer)


async def test_failed_handshake_is_logged_with_its_peer_and_harms_nobody(start: Start, tls: TlsSettings) -> None:
    line = await dial(start, tls, "tls", HASTY)
    flow = await line.flow()
    line.hooks.used.add(flow)
    port = line.transports.listeners[0].port
    with capture_logs() as logs:
        plain = await asyncio.open_connection("127.0.0.1", port)
        peer = f"127.0.0.1:{plain[1].get_extra_info('sockname')[1]}"
        plain[1].write(message("plain SIP on a TLS port"))
        await read_to_end(plain[0])
        await close(plain[1])
        silent = await asyncio.open_connection("127.0.0.1", port)
        await read_to_end(silent[0])
        await close(silent[1])
    failed = [entry for entry in logs if entry["event"] == "tls-handshake-failed"]
    assert failed[0]["peer"] == peer
    assert failed[0]["reason"].startswith("TLS: ")
    assert len(failed) == 2
    assert len(line.hooks.messages) == 1
    assert not flow.closed
    assert line.transports.counters()["handshakes"] == 0
    await close(line.writer)


async def test_certificate_is_read_again_on_request(
    start: Start, tls: TlsSettings, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    settings = write_certificate(tmp_path, authority, ca_file, "sip.example.com", "127.0.0.1")
    line = await dial(start, settings, "tls")
    old = line.writer.get_extra_info("peercert")["serialNumber"]
    assert tls.certificate is not None
    assert tls.key is not None
    assert settings.certificate is not None
    assert settings.key is not None
    shutil.copy(tls.certificate, settings.certificate)
    shutil.copy(tls.key, settings.key)
    line.transports.reload_certificate()
    again: Streams = await connect(line.transports, 0, str(ca_file))
    assert again[1].get_extra_info("peercert")["serialNumber"] != old
    flow = await line.flow()
    assert not flow.closed
    await close(again[1])
    await close(line.writer)
