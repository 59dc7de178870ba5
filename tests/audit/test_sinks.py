"""Events and the operational log as JSON lines."""

import io
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, cast

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit.records import Change, Event
from proxy.audit.redact import Redaction
from proxy.audit.sinks import JsonLinesSink, LineWriter, configure_logs, timestamp
from proxy.sip.flow import Flow
from proxy.sip.message import Request, header

OFFSET = 1_800_000_000.0


def written(events: list[Event], level: str = "debug", redaction: Redaction | None = None) -> list[dict[str, Any]]:
    """What a sink writes for some events."""
    stream = io.BytesIO()
    sink = JsonLinesSink(LineWriter(stream), level, redaction, wall_offset=OFFSET)
    for event in events:
        sink.emit(event)
    sink.close()
    lines = stream.getvalue().splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines)
    return [orjson.loads(line) for line in lines]


def event(kind: str, moment: float = 100.0, more: dict[str, object] | None = None, /, **fields: object) -> Event:
    return Event(kind, moment, "c1", "a", 2, {**fields, **(more or {})})


def test_line_names_time_level_kind_and_what_it_belongs_to() -> None:
    (line,) = written([event("call-end", 100.25, status=200, answered=True, setup_s=0.5, reason=None)])
    assert line == {
        "time": timestamp(OFFSET + 100.25),
        "level": "info",
        "event": "call-end",
        "call": "c1",
        "leg": "a",
        "attempt": 2,
        "status": 200,
        "answered": True,
        "setup_s": 0.5,
        "reason": None,
    }
    assert line["time"] == "2027-01-15T08:01:40.250000Z"
    (line,) = written([Event("dropped", 0.0, "", "", 0, {})])
    assert set(line) == {"time", "level", "event"}


def test_values_of_all_kinds_become_readable_and_masked() -> None:
    flow = Flow("tls", ("127.0.0.1", 5061), ("2001:db8::1", 61000), "h:5061")
    request = Request("INVITE", "sip:+15550100001@h", [header("Call-ID", "+15550100001")], b"k=clear:x\r\n")
    changes = [
        Change("rule:x/y", "header", 3, "To: <tel:+15550100001>", None),
        Change("rule:x/y", "sdp", 1, None, "a=ice-pwd:secret"),
    ]
    (line,) = written(
        [
            event(
                "message",
                100.0,
                {"from": "15550100002", "to": "+15550100001", "status": 15550100002},
                flow=flow,
                message=request,
                data=b"To: <sip:+15550100001@h>\r\n\xff",
                changes=changes,
                call_id="+15550100001@h",
                parts={"a": ("sip:5550100200@h", {"b"})},
                text="Grüße",
            )
        ]
    )
    assert line["flow"] == "tls:[2001:db8::1]:61000"
    assert line["message"] == "INVITE sip:+1555*****01@h SIP/2.0\r\nCall-ID: +15550100001\r\n\r\nk=clear:****\r\n"
    assert line["data"] == "To: <sip:+1555*****01@h>\r\n\\xff"
    assert line["changes"] == [
        {"step": "rule:x/y", "part": "header", "index": 3, "before": "To: <tel:+1555*****01>", "after": None},
        {"step": "rule:x/y", "part": "sdp", "index": 1, "before": None, "after": "a=ice-pwd:****"},
    ]
    assert (line["from"], line["to"], line["status"]) == ("1555*****02", "+1555*****01", 15550100002)
    assert line["call_id"] == "+15550100001@h"
    assert line["parts"] == {"a": ["sip:555*****00@h", ["b"]]}
    assert line["text"] == "Grüße"


def test_masking_can_be_turned_off() -> None:
    plain = Redaction(mask_numbers=False, mask_secrets=False)
    (line,) = written([event("message", data=b"To: <sip:+15550100001@h>", key="k=clear:x")], redaction=plain)
    assert line["data"] == "To: <sip:+15550100001@h>"
    assert line["key"] == "k=clear:x"


@pytest.mark.parametrize(
    ("level", "kinds"),
    [
        ("debug", ["message", "call-start", "call-end", "refused", "dropped", "new-kind"]),
        ("info", ["call-end", "refused", "dropped"]),
        ("warning", []),
    ],
)
def test_level_decides_what_is_written(level: str, kinds: list[str]) -> None:
    every = ["message", "call-start", "call-end", "refused", "dropped", "new-kind"]
    assert [line["event"] for line in written([event(kind) for kind in every], level)] == kinds


def test_another_level_is_taken_up_while_running() -> None:
    stream = io.BytesIO()
    sink = JsonLinesSink(LineWriter(stream), "warning")
    for level in ("info", "debug", "warning"):
        sink.set_level(level)
        for kind in ("call-end", "message"):
            sink.emit(event(kind, level=level))
    sink.close()
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["level_"], line["event"]) for line in lines] == [
        ("info", "call-end"),
        ("debug", "call-end"),
        ("debug", "message"),
    ]


def test_flood_is_cut_at_info_only_and_counted() -> None:
    flood = [event("dropped", 10.0 + number / 1000) for number in range(50)]
    later = [event("dropped", 11.0), event("refused", 11.0)]
    lines = written([*flood, *later], "info")
    assert len(lines) == 22
    assert lines[20]["suppressed"] == 30
    assert "suppressed" not in lines[21]
    assert len(written([*flood, *later], "debug")) == 52
    assert len(written([event("call-end", 10.0) for _ in range(50)], "info")) == 50


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5), st.binary(max_size=50))
def test_any_event_is_one_line_of_valid_json(fields: dict[str, object], raw: bytes) -> None:
    fields["line"] = raw.decode("utf-8", "surrogateescape")
    (line,) = written([event("message", 0.0, fields)])
    assert (line["event"], line["call"], line["attempt"]) == ("message", "c1", 2)


def test_bytes_that_are_no_utf8_are_readable() -> None:
    text = b"caf\xe9 \xc3\xa9".decode("utf-8", "surrogateescape")
    (line,) = written([event("message", 0.0, {text: 1}, subject=text, items=[text])])
    assert line["subject"] == "caf\\xe9 é"
    assert line["items"] == ["caf\\xe9 é"]
    assert line["caf\\xe9 é"] == 1


def test_time_follows_the_system_clock_without_an_offset() -> None:
    stream = io.BytesIO()
    sink = JsonLinesSink(LineWriter(stream))
    before = time.time()
    sink.emit(event("call-end", time.monotonic()))
    sink.close()
    line = orjson.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
    assert before - 0.5 < datetime.fromisoformat(line["time"]).timestamp() < time.time() + 0.5


@pytest.fixture
def fresh_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("fresh_structlog")
def test_operational_log_has_the_form_of_events() -> None:
    stream = io.BytesIO()
    writer = LineWriter(stream)
    configure_logs(writer, "info")
    log = structlog.get_logger("x")
    log.debug("not written")
    log.warning("resolve-failed", uri="sip:+15550100001@h", attempt=1)
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("internal-error")
    writer.close()
    first, second = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert list(first) == ["time", "level", "event", "uri", "attempt"]
    assert (first["level"], first["event"], first["uri"]) == ("warning", "resolve-failed", "sip:+1555*****01@h")
    assert second["level"] == "error"
    assert "ValueError: boom" in cast("str", second["exception"])
    assert "Traceback" in second["exception"]
