"""One call drawn as a ladder for the terminal, and what was changed on its way, from the JSON lines of `run`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from proxy.audit.labels import label_of

__all__ = ["Event", "call_ladder", "calls_in", "change_lines", "read_events"]

Event = Mapping[str, Any]

_TIME: Final = 9
_GAP: Final = 27
_LIFELINE: Final = "│"


def read_events(path: Path) -> Iterator[Event]:
    """The events of a JSON lines file, in order. A line that was cut off by a crash is skipped."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def calls_in(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Events by our call id, in order; those that belong to no call are left out."""
    calls: dict[str, list[Event]] = {}
    for event in events:
        call = event.get("call")
        if call:
            calls.setdefault(call, []).append(event)
    return calls


def call_ladder(events: Sequence[Event], left: str = "Twilio", right: str = "OpenAI") -> list[Text]:
    """The ladder of one call: a line for each message, failed attempt, retry, and for the end.

    `events` are those of one call, in order. Times are milliseconds since the first of them.
    """
    width = _GAP + 1
    title = f"{'ms':>{_TIME - 2}}  {left:<{width - 4}}{'Trunkline':<{width + 1}}{right}"
    lines = [Text(title, style="bold")]
    started = _moment(events[0]) if events else 0.0
    for event in events:
        time = f"{(_moment(event) - started) * 1000:{_TIME - 2}.1f}  "
        if event["event"] == "message":
            lines.append(_message_line(time, event))
            continue
        note, style = _note(event)
        if note:
            rest = f"{_LIFELINE}{'':{_GAP}}{_LIFELINE} "
            lines.append(Text.assemble((time, "dim"), (rest, "dim"), (note, style)))
    return lines


def change_lines(message: Event) -> list[Text]:
    """What was changed in one message, rule by rule: lines taken out in red, put in in green.

    The built-in steps, which do the same in every call, are only counted by field.
    """
    lines: list[Text] = []
    last = ""
    built_in: dict[str, list[str]] = {}
    for change in message.get("changes") or ():
        step = change["step"]
        if step.startswith("builtin:"):
            built_in.setdefault(step, []).append(_field(change))
            continue
        if step != last:
            lines.append(Text(step, style="bold"))
            last = step
        for sign, text, style in (("-", change["before"], "red"), ("+", change["after"], "green")):
            if text is not None:
                lines += [Text(f"  {sign} {line}", style=style) for line in text.splitlines()]
    for step, fields in built_in.items():
        names = ", ".join(dict.fromkeys(fields))
        lines.append(Text.assemble((step, "bold"), (f"  {names}", "dim")))
    return lines


def _field(change: Mapping[str, Any]) -> str:
    """What was edited: a header name, an SDP line type such as `a=rtpmap`, or the part (see `Change.field`)."""
    line = change["before"] if change["before"] is not None else change["after"] or ""
    if change["part"] == "header":
        return str(line.partition(":")[0].strip())
    if change["part"] == "sdp":
        return str(line.partition(":")[0] if line.startswith("a=") else line[:2])
    return str(change["part"])


def _moment(event: Event) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _message_line(time: str, event: Event) -> Text:
    label, status = label_of(event["message"])
    style = "red" if status >= 400 else "green" if status >= 200 else "cyan" if not status else ""
    callers = event["leg"] == "a"
    outwards = callers == (event["direction"] == "in")
    arrow = _arrow(label, rightwards=outwards)
    empty = " " * _GAP
    gaps = ((arrow, style), (empty, "")) if callers else ((empty, ""), (arrow, style))
    line = Text.assemble((time, "dim"), (_LIFELINE, "dim"), gaps[0], (_LIFELINE, "dim"), gaps[1], (_LIFELINE, "dim"))
    changes = event.get("changes")
    if changes:
        line.append(f" {len(changes)} changes", style="dim")
    return line


def _arrow(label: str, *, rightwards: bool) -> str:
    label = label if len(label) <= _GAP - 4 else f"{label[: _GAP - 5]}…"
    shaft = "─" * (_GAP - len(label) - 4)
    return f"─ {label} {shaft}▶" if rightwards else f"◀{shaft} {label} ─"


def _note(event: Event) -> tuple[str, str]:
    match event["event"]:
        case "attempt-start":
            return f"attempt {event['attempt']}: rules {event['rules']}", "dim"
        case "attempt-end" if event["cause"] != "answered":
            return f"failed: {event['status']} {event['reason']}", "red"
        case "retry":
            return f"again in {event['delay_s'] * 1000:.0f} ms", "yellow"
        case "call-end":
            if event["outcome"] == "answered":
                return f"answered call, ended by {event['ended_by']}", "bold"
            return f"{event['outcome']}: {event['status']} {event['reason']}", "bold"
        case _:
            return "", ""
