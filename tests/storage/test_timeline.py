"""What is packed for a call is what happened, line by line, masked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit.plain import valid_text
from proxy.audit.records import Change, Event
from proxy.audit.redact import Redaction, Redactor
from proxy.sip.flow import Flow
from proxy.sip.message import Request, read_header
from proxy.storage.chunks import Packer, unpack
from proxy.storage.timeline import PARTS, Timeline, message_lines

FLOW = Flow("tls", ("0.0.0.0", 5061), ("2001:db8::1", 61000), "edge.example.com:5061")
TEXTS = st.text(st.sampled_from("ab+15:;@ \t\r\né\udc80"), max_size=12)
LINES = st.lists(
    st.builds(lambda name, text: f"{name}: {text}", st.sampled_from(("X", "From", "v")), TEXTS), max_size=5
)
BODIES = st.lists(st.sampled_from(["v=0", "a=x", " fold", "", "\n", "\udc80", "k=s"]), max_size=6).flatmap(
    lambda lines: st.sampled_from(["\r\n", "\n", "\r\n "]).map(lambda end: end.join(lines))
)


def kept(timeline: Timeline) -> list[dict[str, object]]:
    return unpack(Packer().pack(timeline.events, timeline.texts))


def message_event(request: Request, **fields: object) -> Event:
    return Event("message", 1.0, "c", "b", 2, {"direction": "out", "flow": FLOW, "message": request, **fields})


@given(LINES, BODIES)
def test_any_message_comes_back_as_it_was(lines: list[str], body: str) -> None:
    request = Request(
        "INVITE", "sip:a@b", [read_header(line) for line in lines], body.encode("utf-8", "surrogateescape")
    )
    whole = request.serialize().decode("utf-8", "surrogateescape")
    found = []
    for settings in (Redaction(False, False), Redaction()):
        timeline = Timeline(Redactor(settings))
        timeline.add_message(message_event(request), 1_500_000, message_lines(request))
        found += kept(timeline)
    open_event, masked = found
    assert open_event["message"] == valid_text(whole)
    assert str(masked.pop("message")).count("\n") == whole.count("\n")
    assert masked == {
        "at": 1.5, "event": "message", "leg": "b", "attempt": 2, "direction": "out", "flow": "tls:[2001:db8::1]:61000",
        "local": "edge.example.com:5061",
    }  # fmt: skip


CHANGES = st.builds(
    Change,
    st.sampled_from(("rule:s/a", "rule:s/b", "builtin:target")),
    st.sampled_from(PARTS),
    st.integers(0, 9),
    st.none() | st.sampled_from(("From: <sip:+15550100002@h>", "X: 1", "v=0")),
    st.none() | st.sampled_from(("From: <sip:+15550100002@h>", "X: 2", "v=1")),
)


@given(st.lists(CHANGES), st.booleans())
def test_changes_and_source_come_back_masked(changes: list[Change], other: bool) -> None:
    request = Request("INVITE", "sip:a@b", [], b"")
    source = Request("BYE", "sip:+15550100002@b", [], b"")
    redactor = Redactor(Redaction())
    timeline = Timeline(redactor)
    event = message_event(request, changes=changes, **({"source": source} if other else {}))
    timeline.add_message(event, 0, message_lines(request))
    (found,) = kept(timeline)
    assert found["changes"] == [
        {
            "step": change.step,
            "part": change.part,
            "index": change.index,
            "before": None if change.before is None else redactor.line(change.before),
            "after": None if change.after is None else redactor.line(change.after),
        }
        for change in changes
    ]
    assert found.get("source") == ("BYE sip:+1555*****02@b SIP/2.0\r\n\r\n" if other else None)
    assert sorted(timeline.rules()) == sorted({change.step[5:] for change in changes if change.step[:5] == "rule:"})


def test_events_of_other_kinds_keep_their_fields() -> None:
    timeline = Timeline(Redactor(Redaction()))
    fields: dict[str, object] = {
        "call_id": "+15550100002@h", "from": "15550100002", "to": "sip:+15550100002@h",
        "detail": "two\r\nlines +15550100002",
        "status": 200, "setup_s": 0.25, "answered": True, "reason": None, "attempt": 3, "flow": FLOW,
        "tags": ["vip", "+15550100002"], "none": [],
    }  # fmt: skip
    encoded = timeline.add(Event("attempt-end", 1.0, "c", "b", 1, {**fields, "left": 1}), 2, without="left")
    (event,) = kept(timeline)
    assert event == {
        **{name: fields[name] for name in ("call_id", "status", "setup_s", "answered", "reason", "none")},
        "at": 2e-6, "event": "attempt-end", "leg": "b", "attempt": 1, "attempt_": 3, "flow": "tls:[2001:db8::1]:61000",
        "from": "1555*****02", "to": "sip:+1555*****02@h", "detail": "two\r\nlines +1555*****02",
        "tags": ["vip", "+1555*****02"],
    }  # fmt: skip
    assert [timeline.text(encoded.get(name)) for name in ("to", "status", "tags", "nothing")] == [
        "sip:+1555*****02@h", None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["application/dtmf-relay", "multipart/mixed"])
def test_what_was_dialled_is_masked(kind: str) -> None:
    body = b"Signal=7\r\nDuration=160\r\n"
    if kind == "multipart/mixed":
        body = b"--x\r\nContent-Type: application/dtmf\r\n\r\n7\r\n--x--\r\n"
    request = Request("INFO", "sip:a@b", [read_header(f"Content-Type: {kind}")], body)
    timeline = Timeline(Redactor(Redaction()))
    timeline.add_message(message_event(request), 0, message_lines(request))
    (found,) = kept(timeline)
    assert found["message"] == request.serialize().decode().replace("=7", "=*").replace("\n7", "\n*")


def test_a_message_without_a_flow_is_kept_too() -> None:
    timeline = Timeline(Redactor(Redaction()))
    request = Request("INVITE", "sip:+15550100002@b", [], b"")
    event = Event("message", 1.0, "c", "a", 0, {"direction": "in", "message": request})
    timeline.add_message(event, 0, message_lines(request))
    (found,) = kept(timeline)
    assert found["message"] == "INVITE sip:+1555*****02@b SIP/2.0\r\n\r\n"
    assert found["event"] == "message"


def test_lines_are_kept_once() -> None:
    timeline = Timeline(Redactor(Redaction()))
    request = Request("INVITE", "sip:a@b", [read_header(f"X-{number}: {number}") for number in range(20)], b"v=0\r\n")
    for _ in range(30):
        timeline.add_message(message_event(request), 0, message_lines(request))
    assert len(timeline.texts) == 25
    with pytest.raises(ValueError, match="damaged"):
        unpack(Packer().pack(timeline.events, timeline.texts[:-1]))
