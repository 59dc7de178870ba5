"""The third law, checked on what a bench or network saw: no message is changed in secret, none is sent unrecorded."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.audit.records import Change, Event, replay
from proxy.sip.flow import Flow
from proxy.sip.message import Message, Request, Response
from proxy.sip.parser import parse_message

__all__ = ["check_records"]


def check_records(events: list[Event], sent: Iterable[bytes]) -> int:
    """Check every event of kind `message`, and everything that was sent.

    A message made from one of the other leg must be just what its changes make of that one, and every message that was
    recorded as gone must have gone. What was sent and not recorded may only be a copy, an ACK of the transaction
    layer, or an answer that belongs to no call. Returns how many messages crossed.
    """
    wire = set(sent)
    crossed = 0
    inbound: list[tuple[tuple[str, str, str], str, Message]] = []
    first: dict[str, Request] = {}
    recorded: set[bytes] = set()
    for event in events:
        if event.kind != "message":
            continue
        message, flow = event.fields["message"], event.fields["flow"]
        assert isinstance(message, Message)
        assert isinstance(flow, Flow)
        kind = "request" if isinstance(message, Request) else "response"
        method = message.method if isinstance(message, Request) else message.cseq.method
        if event.fields["direction"] == "in":
            inbound.append(((event.call, kind, method), event.leg, message))
            if isinstance(message, Request) and method == "INVITE":
                first.setdefault(event.call, message)
            continue
        data = message.serialize()
        recorded.add(data)
        assert data in wire or flow.closed, f"recorded, but never sent: {message!r}"
        changes = event.fields.get("changes")
        if changes is None:
            continue
        assert isinstance(changes, list)
        made_from = event.fields.get("source")
        if made_from is not None:
            assert isinstance(made_from, Message)
            source = made_from
            assert any(source is came for _, _, came in inbound), "made from what never came"
        elif method == "INVITE" and isinstance(message, Request) and message.to.tag is None:
            source = first[event.call]
        else:
            wanted = (event.call, kind, method)
            source = next(came for key, leg, came in reversed(inbound) if key == wanted and leg != event.leg)
        check_changes(source, message, changes)
        crossed += 1
    calls = {message.get("call-id") for _, _, message in inbound}
    refused = {(e.fields["call_id"], e.fields["status"]) for e in recorded_refusals(events)}
    for data in wire - recorded:
        check_unrecorded(data, calls, refused)
    return crossed


def check_changes(source: Message, message: Message, changes: list[Change]) -> None:
    """The message must be exactly what the changes make of its source."""
    lines = [item.line for item in source.headers]
    start_line, headers, body = replay(source.start_line, lines, source.body, changes)
    assert start_line == message.start_line
    assert headers == [item.line for item in message.headers]
    assert body == message.body


def recorded_refusals(events: list[Event]) -> list[Event]:
    """The events of requests that were refused without a call."""
    return [event for event in events if event.kind == "refused"]


def check_unrecorded(data: bytes, calls: set[str | None], refused: set[tuple[object, object]]) -> None:
    """What was sent without an event of its own must be one of the kinds that have none."""
    message = parse_message(data)
    if isinstance(message, Response):
        call_id = message.get("call-id")
        outside = call_id not in calls or message.cseq.method in ("CANCEL", "OPTIONS")
        assert outside or (call_id, message.status) in refused, f"sent, but not recorded: {message!r}"
    else:
        assert message.method in ("ACK", "OPTIONS"), f"sent, but not recorded: {message!r}"
