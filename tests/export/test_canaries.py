"""No secret and no whole number in what goes to others, with default settings: logs, syslog, Homer, traces, metrics."""

from __future__ import annotations

import socket
from collections.abc import Callable
from io import BytesIO

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from proxy.audit.redact import Redaction
from proxy.audit.sinks import JsonLinesSink, LineWriter, Sink, configure_logs
from proxy.export.hep import HepSink
from proxy.export.syslog import LogWithSyslog, SyslogStream
from proxy.export.traces import TraceSink
from tests.support.canaries import leaks, planted_events

MASKED, OPEN = Redaction(), Redaction(False, False)
Output = Callable[[Redaction], str]


def emitted(sink: Sink) -> None:
    """Give a sink all events, and close it."""
    for event in planted_events():
        sink.emit(event)
    sink.close()


def log(redaction: Redaction, level: str = "debug") -> str:
    out = BytesIO()
    emitted(JsonLinesSink(LineWriter(out), level, redaction))
    return out.getvalue().decode()


def syslog(redaction: Redaction) -> str:
    """What a server gets over TCP, which takes lines of any size."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = SyslogStream(("tcp", "127.0.0.1", server.getsockname()[1]), "daemon", "app")
        emitted(JsonLinesSink(LogWithSyslog(LineWriter(BytesIO()), stream), "debug", redaction))
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            return file.read().decode()


def homer(redaction: Redaction) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        server.settimeout(10)
        emitted(HepSink(server.getsockname(), redaction))
        messages = sum(event.kind == "message" for event in planted_events())
        return b"".join([server.recv(65_535) for _ in range(messages)]).decode("latin-1")


def traces(redaction: Redaction) -> str:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    emitted(TraceSink(provider, redaction))
    return "\n".join([span.to_json() for span in exporter.get_finished_spans()])


@pytest.mark.parametrize("output", [log, syslog, homer, traces])
def test_nothing_gets_out(output: Output) -> None:
    assert leaks(output(MASKED)) == []
    assert len(set(leaks(output(OPEN)))) >= 5, "the search finds what there is"


def test_nothing_in_the_log_of_every_day() -> None:
    text = log(MASKED, "info")
    assert '"event":"call-end"' in text
    assert leaks(text) == []


def test_nothing_in_the_operational_log() -> None:
    import structlog

    out = BytesIO()
    writer = LineWriter(out)
    before = structlog.get_config()
    try:
        configure_logs(writer, "debug", MASKED)
        structlog.get_logger("test").error(
            "resolve-failed", uri="sip:15557659001@h", reason="no +15557659002", caller="15557659003", to="15557659004"
        )
    finally:
        structlog.configure(**before)
    writer.close()
    assert b"resolve-failed" in out.getvalue()
    assert leaks(out.getvalue().decode()) == []
