"""Events of a call as they are packed: each line and name once, and messages and changes as numbers of them.

The messages of a call have most of their lines in common, with each other and with the changes that led from one to
the next. So a chunk of events has a table of texts, masked, and all else refers to it. Pure: no clock, no database.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.audit.plain import NUMBERS, READABLE, masked_text, plain
from proxy.audit.records import Change, Event
from proxy.audit.redact import Redactor
from proxy.sip.flow import Flow
from proxy.sip.message import Message

__all__ = ["PARTS", "Timeline", "events_of", "message_lines"]

PARTS: Final = ("start-line", "header", "sdp", "body")
"""The parts of a message that a change can be of. They are stored as their positions in here."""

_PART_NUMBERS: Final = {part: number for number, part in enumerate(PARTS)}
_NONE: Final = -1
_TAKEN: Final = frozenset(("at", "event", "leg", "attempt"))


def message_lines(message: Message) -> list[str]:
    """The lines of a message: those of the head (with their folds inside), an empty one, and those of the body. Joined
    by CRLF they are the message; a body that has other line ends, or folds, is one line."""
    lines = message.head_lines()
    lines.append("")
    body = message.body
    if not body:
        lines.append("")
        return lines
    text = body.decode("utf-8", "surrogateescape")
    parts = text.split("\r\n")
    if text.count("\n") != len(parts) - 1 or "\r\n " in text or "\r\n\t" in text:
        lines.append(text)
    else:
        lines.extend(parts)
    return lines


class Timeline:
    """Collects events of one call until they are packed together.

    Args:
        redactor: masks all that is kept.

    Attributes:
        events: a list for each event. Of a message: microseconds since the call's start, leg, attempt, 0 or 1 for in or
            out, flow, our address, its lines; where there are any, its changes (a list each of their steps, parts,
            indexes, lines before, lines after) and the lines of its source. Of any other: microseconds, leg, attempt,
            kind, fields.
        texts: what numbers in events stand for; -1 is None. The value of a field is a number itself, or a list: of the
            number of a text, or of -1 and the value.
    """

    __slots__ = ("_flows", "_lines", "_names", "_redactor", "events", "texts")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self.events: list[list[Any]] = []
        self.texts: list[str] = []
        self._lines: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._flows: dict[Flow, tuple[int, int]] = {}

    def add_message(self, event: Event, at: int, lines: list[str]) -> None:
        """Add a message, at so many microseconds; `lines` are its `message_lines`."""
        fields = event.fields
        flow = fields.get("flow")
        if not isinstance(flow, Flow):
            self.add(event, at)
            return
        flow_text, local = self._flow(flow)
        out = 1 if fields.get("direction") == "out" else 0
        record: list[Any] = [at, event.leg, event.attempt, out, flow_text, local, self._text_of(lines)]
        changes, source = fields.get("changes"), fields.get("source")
        if isinstance(changes, list):
            record.append(self._changes(changes))
        elif source is not None:
            record.append(None)
        if isinstance(source, Message):
            record.append(self._text_of(message_lines(source)))
        self.events.append(record)

    def add(self, event: Event, at: int, without: str = "") -> dict[str, object]:
        """Add an event of another kind, at so many microseconds, and leave out one of its fields; returns the others in
        the form that they are kept in, for `text`."""
        fields: dict[str, object] = {}
        for name, value in event.fields.items():
            if name != without:
                fields[name if name not in _TAKEN else f"{name}_"] = self._value(name, value)
        self.events.append([at, event.leg, event.attempt, event.kind, fields])
        return fields

    def text(self, value: object) -> str | None:
        """The text of a value that `add` returned, without what is not UTF-8; None for one that is no text."""
        if not isinstance(value, list):
            return None
        number: int = value[0]
        text = self.texts[number] if number >= 0 else value[1]
        if not isinstance(text, str) or text.isascii():
            return text if isinstance(text, str) else None
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def rules(self) -> list[str]:
        """The rules that changed something, as `<set>/<rule id>`."""
        return [name[5:] for name in self._names if name.startswith("rule:")]

    def _changes(self, changes: list[Change]) -> list[list[int]]:
        names = self._names
        steps: list[int] = []
        parts: list[int] = []
        indexes: list[int] = []
        before: list[int] = []
        after: list[int] = []
        for change in changes:
            step = names.get(change.step)
            steps.append(self._add_name(change.step) if step is None else step)
            parts.append(_PART_NUMBERS[change.part])
            indexes.append(change.index)
            before.append(_NONE if change.before is None else self._line(change.before))
            after.append(_NONE if change.after is None else self._line(change.after))
        return [steps, parts, indexes, before, after]

    def _text_of(self, lines: list[str]) -> list[int]:
        """The numbers of a message's lines. What was dialled is known by other lines: there the message is one text."""
        if lines[-1] or lines[-2]:
            body = lines.index("", 1) + 1
            if body < len(lines) and not lines[body].startswith("v=") and _is_dialled(lines):
                return [self._name(self._redactor.text("\r\n".join(lines)))]
        known = self._lines
        numbers: list[int] = []
        for line in lines:
            number = known.get(line)
            numbers.append(self._add_line(line) if number is None else number)
        return numbers

    def _line(self, line: str) -> int:
        """The number of a line, or of another text that is kept masked."""
        number = self._lines.get(line)
        return self._add_line(line) if number is None else number

    def _add_line(self, line: str) -> int:
        number = self._lines[line] = len(self.texts)
        self.texts.append(self._redactor.text(line))
        return number

    def _name(self, text: str) -> int:
        """The number of a text that is kept as it is."""
        number = self._names.get(text)
        return self._add_name(text) if number is None else number

    def _add_name(self, text: str) -> int:
        number = self._names[text] = len(self.texts)
        self.texts.append(text)
        return number

    def _value(self, name: str, value: object) -> object:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str):
            if name in READABLE:
                return [self._name(value)]
            if name in NUMBERS or "\n" in value:
                return [self._name(masked_text(name, value, self._redactor))]
            return [self._line(value)]
        if name == "flow" and isinstance(value, Flow):
            return [self._flow(value)[0]]
        return [_NONE, plain(name, value, self._redactor)]

    def _flow(self, flow: Flow) -> tuple[int, int]:
        """The numbers of the peer's address and of ours."""
        found = self._flows.get(flow)
        if found is None:
            found = self._flows[flow] = (self._name(str(flow)), self._name(_local(flow)))
        return found


def _is_dialled(lines: list[str]) -> bool:
    return bool([line for line in lines if "application/dtmf" in line])


def _local(flow: Flow) -> str:
    """Our address: the bound one, or where that is any address, what peers know us by."""
    host, port = flow.local
    if host in ("0.0.0.0", "::"):
        return flow.advertised
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def events_of(events: list[list[Any]], texts: list[str]) -> list[dict[str, Any]]:
    """The events of a timeline as docs/events.md describes them, with seconds since the call's start as `at`. Raises
    IndexError, TypeError or ValueError for what is no timeline."""
    found: list[dict[str, Any]] = []
    for event in events:
        at, leg, attempt, kind = event[:4]
        record: dict[str, Any] = {"at": at / 1e6, "event": kind if isinstance(kind, str) else "message"}
        if leg:
            record["leg"] = leg
        if attempt:
            record["attempt"] = attempt
        if isinstance(kind, str):
            record.update({name: _read(value, texts) for name, value in event[4].items()})
        else:
            record["direction"] = "out" if kind else "in"
            record["flow"], record["local"] = texts[event[4]], texts[event[5]]
            record["message"] = "\r\n".join([texts[number] for number in event[6]])
            if len(event) > 7 and event[7] is not None:
                record["changes"] = _read_changes(event[7], texts)
            if len(event) > 8:
                record["source"] = "\r\n".join([texts[number] for number in event[8]])
        found.append(record)
    return found


def _read(value: Any, texts: list[str]) -> Any:
    if isinstance(value, list):
        return texts[value[0]] if value[0] != _NONE else value[1]
    return value


def _read_changes(columns: list[list[int]], texts: list[str]) -> list[dict[str, Any]]:
    steps, parts, indexes, before, after = columns
    return [
        {
            "step": texts[steps[at]],
            "part": PARTS[parts[at]],
            "index": index,
            "before": None if before[at] == _NONE else texts[before[at]],
            "after": None if after[at] == _NONE else texts[after[at]],
        }
        for at, index in enumerate(indexes)
    ]
