"""The ladder of a call from its JSON lines."""

import json
from pathlib import Path
from typing import Any

from proxy.ladder import call_ladder, calls_in, change_lines, read_events

INVITE = "INVITE sip:b@example.com SIP/2.0\r\nCSeq: 1 INVITE\r\nContent-Length: 4\r\n\r\nv=0\n"
TRYING = "SIP/2.0 100 Trying\r\nCSeq: 1 INVITE\r\n\r\n"
REFUSED = "SIP/2.0 503 Service Unavailable Because Of A Long Reason\r\nCSeq: 1 INVITE\r\n\r\n"
OK = "SIP/2.0 200 OK\r\ncseq: 1 INVITE\r\n\r\nv=0\r\n"
BYE = "BYE sip:b@example.com SIP/2.0\r\nCSeq: 2 BYE\r\n\r\n"
BYE_OK = "SIP/2.0 200 OK\r\nCSeq: 2 BYE\r\n\r\n"


def event(ms: float, kind: str, **fields: Any) -> dict[str, Any]:
    return {"time": f"2026-01-01T00:00:{ms / 1000:09.6f}Z", "event": kind, "call": "c1", **fields}


def message(ms: float, leg: str, direction: str, text: str, **fields: Any) -> dict[str, Any]:
    return event(ms, "message", leg=leg, direction=direction, message=text, **fields)


CALL = [
    event(0, "call-start", leg="a"),
    message(0, "a", "in", INVITE),
    message(0.2, "a", "out", TRYING),
    event(0.2, "attempt-start", attempt=1, rules="twilio-openai"),
    message(1, "b", "out", INVITE, changes=[{}, {}]),
    message(3, "b", "in", REFUSED),
    event(3, "attempt-end", attempt=1, status=503, reason="Service Unavailable", cause="status"),
    event(3, "retry", attempt=1, delay_s=0.1996),
    event(203, "attempt-start", attempt=2, rules="minimal"),
    message(260, "b", "in", OK),
    message(260.5, "a", "out", OK),
    event(260.5, "attempt-end", attempt=2, status=200, reason="OK", cause="answered"),
    message(1000, "a", "in", BYE),
    message(1000, "a", "out", BYE_OK),
    event(1000, "call-end", outcome="answered", ended_by="caller", status=200, reason="OK"),
]


def test_ladder_shows_who_said_what_to_whom() -> None:
    assert [line.plain.rstrip() for line in call_ladder(CALL)] == [
        "     ms  Twilio                  Trunkline                    OpenAI",
        "    0.0  │─ INVITE (SDP) ───────────▶│                           │",
        "    0.2  │◀───────────── 100 Trying ─│                           │",
        "    0.2  │                           │ attempt 1: rules twilio-openai",
        "    1.0  │                           │─ INVITE (SDP) ───────────▶│ 2 changes",
        "    3.0  │                           │◀ 503 Service Unavailabl… ─│",
        "    3.0  │                           │ failed: 503 Service Unavailable",
        "    3.0  │                           │ again in 200 ms",
        "  203.0  │                           │ attempt 2: rules minimal",
        "  260.0  │                           │◀─────────── 200 OK (SDP) ─│",
        "  260.5  │◀─────────── 200 OK (SDP) ─│                           │",
        " 1000.0  │─ BYE ────────────────────▶│                           │",
        " 1000.0  │◀─────────── 200 OK (BYE) ─│                           │",
        " 1000.0  │                           │ answered call, ended by caller",
    ]


def test_call_that_failed_ends_with_its_status() -> None:
    end = event(1, "call-end", outcome="failed", ended_by="refused", status=488, reason="Not Acceptable Here")
    assert call_ladder([CALL[0], end])[-1].plain.endswith("│ failed: 488 Not Acceptable Here")


def test_no_events_give_a_ladder_without_rungs() -> None:
    assert len(call_ladder([])) == 1


def test_changes_are_shown_by_rule_and_counted_by_built_in_step() -> None:
    changes = [
        {"step": "rule:x/a", "part": "header", "index": 0, "before": "Subject: a", "after": None},
        {"step": "rule:x/a", "part": "sdp", "index": 3, "before": "a=ptime:20", "after": "a=ptime:30"},
        {"step": "rule:x/b", "part": "header", "index": 0, "before": None, "after": "X-Two:\r\n lines"},
        {"step": "builtin:topology", "part": "header", "index": 0, "before": "Via: x", "after": None},
        {"step": "builtin:topology", "part": "header", "index": 0, "before": "Via: y", "after": None},
        {"step": "builtin:target", "part": "start-line", "index": 0, "before": "INVITE a", "after": "INVITE b"},
        {"step": "builtin:topology", "part": "sdp", "index": 1, "before": "o=- 1 1 IN IP4 10.0.0.1", "after": "o=x"},
    ]
    lines = change_lines(message(0, "b", "out", INVITE, changes=changes))
    assert [line.plain for line in lines] == [
        "rule:x/a",
        "  - Subject: a",
        "  - a=ptime:20",
        "  + a=ptime:30",
        "rule:x/b",
        "  + X-Two:",
        "  +  lines",
        "builtin:topology  Via, o=",
        "builtin:target  start-line",
    ]
    assert change_lines(message(0, "a", "in", INVITE)) == []


def test_lines_that_are_no_events_are_skipped_and_calls_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    other = {**CALL[0], "call": "c2"}
    lines = [json.dumps(CALL[0]), "[]", json.dumps({"event": "dropped"}), json.dumps(other), '{"event": "mess']
    path.write_text("\n".join(lines))
    events = list(read_events(path))
    assert [item["event"] for item in events] == ["call-start", "dropped", "call-start"]
    assert calls_in(events) == {"c1": [CALL[0]], "c2": [other]}
