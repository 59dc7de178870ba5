"""HEP3 as sngrep reads it, and traces as the SDK collects them."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dpkt
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from proxy.audit.redact import Redaction, Redactor
from proxy.export.hep import HepSink, hep_packet
from proxy.export.traces import TraceSink
from proxy.sip.message import Message
from tests.support.bench import ANSWER, Bench
from tests.support.processes import free_port

WALL = 1_795_000_000.0


def call_with_retry() -> Bench:
    bench = Bench()
    bench.invite(extra="X-Api-Key: canary-secret-7731\nP-Asserted-Identity: <sip:+15550104477@192.0.2.10>")
    bench.respond(400, "Bad Request")
    bench.advance(0.5)
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("ACK")
    bench.advance(5.0)
    bench.caller_request("BYE", cseq=2)
    bench.respond(200, "OK", request=bench.requests("BYE")[-1])
    return bench


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5.0)
        yield listener


def captured(server: socket.socket, bench: Bench) -> list[bytes]:
    """The packets that the sink sends for all messages of a bench."""
    sink = HepSink(server.getsockname(), Redaction(), node_id=77, auth_key="homer-key", wall_offset=WALL)
    for event in bench.events:
        sink.emit(event)
    sink.close()
    return [server.recv(65_535) for event in bench.events if event.kind == "message"]


def wait_until(done: Callable[[], bool], limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether some process has a UDP socket on a port."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") for line in lines)


def test_sngrep_reads_the_packets(tmp_path: Path) -> None:
    """sngrep takes HEP as Homer does, and writes what it understood: an independent decoder."""
    program = shutil.which("sngrep")
    assert program is not None, "sngrep is missing: scripts/system-tools"
    bench, port, out = call_with_retry(), free_port(), tmp_path / "out.pcap"
    command = [program, "-F", "-N", "-q", "-L", f"udp:127.0.0.1:{port}", "-O", str(out)]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        wait_until(lambda: listens(port))
        messages = [event for event in bench.events if event.kind == "message"]
        for event in messages:  # one at a time: it looks up calls while it reads
            sink = HepSink(("127.0.0.1", port), Redaction(), node_id=77, wall_offset=WALL)
            sink.emit(event)
            sink.close()
            time.sleep(0.02)
        time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)
    with out.open("rb") as file:
        packets = [(moment, ethernet) for moment, ethernet in dpkt.pcap.Reader(file)]
    assert len(packets) == len(messages) > 8
    redactor = Redactor(Redaction())
    for (moment, frame), event in zip(packets, messages, strict=True):
        ip = dpkt.ethernet.Ethernet(frame).data
        peer = "192.0.2.10" if event.leg == "a" else "203.0.113.5"
        ends = (peer, "198.51.100.1") if event.fields["direction"] == "in" else ("198.51.100.1", peer)
        assert (socket.inet_ntoa(ip.src), socket.inet_ntoa(ip.dst)) == ends
        assert (ip.data.sport, ip.data.dport) == (5060, 5060)
        assert moment == pytest.approx(event.time + WALL, abs=0.001)
        message = event.fields["message"]
        assert isinstance(message, Message)
        assert bytes(ip.data.data).decode() == redactor.text(message.serialize().decode())


def test_homer_gets_no_number_and_no_secret(server: socket.socket) -> None:
    data = b"".join(captured(server, call_with_retry()))
    assert b"15550104477" not in data
    assert b"canary-secret-7731" not in data
    assert b"+1555*****77" in data


def test_ipv6_and_limits() -> None:
    packet = hep_packet("tls", ("2001:db8::1", 5061), ("2001:db8::2", 5061), 1_500_000, b"x", node_id=1)
    assert packet[:4] == b"HEP3"
    assert int.from_bytes(packet[4:6], "big") == len(packet)
    assert socket.inet_pton(socket.AF_INET6, "2001:db8::1") in packet
    with pytest.raises(ValueError, match="does not fit"):
        hep_packet("udp", ("192.0.2.1", 1), ("192.0.2.2", 2), 1_000_000, b"x" * 65_000, node_id=1)


def test_a_server_that_is_gone_harms_nothing() -> None:
    sink = HepSink(("127.0.0.1", 1), Redaction(), wall_offset=WALL)
    for event in call_with_retry().events:
        sink.emit(event)
    sink.close()
    assert sink.dropped > 0


@pytest.fixture
def spans() -> dict[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    sink = TraceSink(provider, Redaction(), wall_offset=WALL)
    for event in call_with_retry().events:
        sink.emit(event)
    sink.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_span_for_call_legs_and_attempts(spans: dict[str, ReadableSpan]) -> None:
    assert sorted(spans) == ["attempt 1", "attempt 2", "call", "leg a", "leg b"]
    call = spans["call"]
    assert call.context is not None
    for name, span in spans.items():
        assert span.context is not None
        assert span.context.trace_id == call.context.trace_id
        assert (span.parent is None) == (name == "call")
    assert call.start_time == int((1000.0 + WALL) * 1e9)
    assert (spans["attempt 1"].status.is_ok, spans["attempt 2"].status.is_ok) == (False, True)
    assert spans["attempt 1"].attributes is not None
    assert spans["attempt 1"].attributes["sip.response.status_code"] == 400
    assert [event.name for event in call.events] == ["retry", "answered"]
    assert call.attributes is not None
    assert call.attributes["trunkline.outcome"] == "answered"
    assert spans["leg b"].end_time == call.end_time


def test_traces_hold_no_number_and_no_secret(spans: dict[str, ReadableSpan]) -> None:
    text = "".join(span.to_json() for span in spans.values())
    assert "15550104477" not in text
    assert "canary-secret-7731" not in text
    assert "5550100002" not in text
