"""What the call's page shows, from its timeline; and how values are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from proxy.admin.difference import Line, difference
from proxy.admin.drawing import Rung, ladder

__all__ = ["FILTERS", "call_page"]

_DASH: Final = "–"
_FAILED: Final = frozenset(("attempt-end", "hop-failed", "retry", "not-relayed"))


def _at(moment: float | None) -> str:
    """A moment in UTC, for people."""
    return _DASH if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _seconds(value: float | None) -> str:
    """Seconds, with as many digits as matter."""
    if value is None:
        return _DASH
    if value < 10:
        return f"{value:.3f} s"
    return f"{value:.1f} s" if value < 120 else f"{int(value // 60)} min {int(value % 60)} s"


def _percent(value: float | None) -> str:
    return _DASH if value is None else f"{value * 100:.1f} %"


def _shown(value: Any) -> str:
    return _DASH if value is None or value == "" else str(value)


def _party(uri: str | None) -> str:
    """The user part of a URI, or all of it."""
    if not uri:
        return _DASH
    user, at, _ = uri.partition("@")
    return user.partition(":")[2] or user if at else uri


FILTERS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {"at": _at, "seconds": _seconds, "party": _party, "percent": _percent, "shown": _shown}
)


class _Story:
    """Reads a timeline in order."""

    def __init__(self, timeline: Sequence[Mapping[str, Any]]) -> None:
        self.rungs: list[Rung] = []
        self.messages: list[dict[str, Any]] = []
        self.original = ""
        self._last_in: dict[str, str] = {}
        self._start = _unix(timeline[0]["time"]) if timeline else 0.0
        for event in timeline:
            ms = (_unix(event["time"]) - self._start) * 1000
            if event["event"] == "message":
                self._message(event, ms)
            else:
                text = _note(event)
                if text:
                    kind = "error" if event["event"] in _FAILED else "note"
                    self.rungs.append(Rung(ms, text, kind=kind))

    def _message(self, event: Mapping[str, Any], ms: float) -> None:
        text, leg, inward = str(event["message"]), str(event["leg"]), event["direction"] == "in"
        label, kind = _label(text)
        number = len(self.messages) + 1
        self.rungs.append(Rung(ms, label, number, leg, inward, kind))
        lines: list[Line] | None = None
        problem = ""
        changes = event.get("changes")
        if changes is not None:
            try:
                lines = difference(self._source(event, text, leg), changes)
            except ValueError as error:
                problem = str(error)
        if inward:
            self._last_in[leg] = text
            if leg == "a" and not self.original and text.startswith("INVITE "):
                self.original = text
        self.messages.append(
            {
                "number": number,
                "ms": ms,
                "label": label,
                "kind": kind,
                "leg": leg,
                "inward": inward,
                "flow": event.get("flow", ""),
                "attempt": event.get("attempt", 0),
                "text": text.replace("\r\n", "\n"),
                "lines": lines,
                "problem": problem,
                "changed": sum(line.mark != " " for line in lines or ()),
            }
        )

    def _source(self, event: Mapping[str, Any], text: str, leg: str) -> str:
        """The message that one was made from, as docs/events.md says."""
        source = event.get("source")
        if source:
            return str(source)
        if leg == "b" and text.startswith("INVITE ") and not self._answered_before():
            return self.original
        found = self._last_in.get("a" if leg == "b" else "b")
        if found is None:
            raise ValueError("the message that it was made from is not on record")
        return found

    def _answered_before(self) -> bool:
        return any(message["label"].startswith("2") and message["leg"] == "b" for message in self.messages)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _label(text: str) -> tuple[str, str]:
    """A message in short, and what it is."""
    first, _, rest = text.partition("\r\n")
    if not first.startswith("SIP/2.0 "):
        return first.partition(" ")[0], "request"
    status = first[8:]
    method = ""
    for line in rest.split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "cseq":
            method = value.split()[-1] if value.split() else ""
            break
    kind = "progress" if status < "2" else "ok" if status < "3" else "error"
    return (f"{status} ({method})" if method not in ("", "INVITE") else status), kind


def _detail(event: Mapping[str, Any], before: str) -> str:
    return f"{before}{event['detail']}" if event.get("detail") else ""


def _note(event: Mapping[str, Any]) -> str:
    """What a row between messages says, or ""."""
    number = event.get("attempt", 0)
    match event["event"]:
        case "attempt-start":
            return f"Attempt {number}: {event.get('target', '')}, rules {event.get('rules', '')}"
        case "attempt-end":
            cause = str(event.get("cause", ""))
            if cause == "answered":
                return ""
            why = str(event.get("reason", "")) if cause == "status" else cause
            return f"Attempt {number} failed: {event.get('status', '')} {why}{_detail(event, ': ')}"
        case "hop-failed":
            return f"{event.get('flow', '')} failed: {event.get('why', '')}"
        case "retry":
            return f"Again in {float(event.get('delay_s', 0)):.3f} s"
        case "webhook":
            return f"Webhook {event.get('type', '')} came"
        case "webhook-answered":
            return f"Application answered the webhook: {event.get('status') or event.get('why', '')}"
        case "not-relayed":
            return f"{event.get('status', '')} not relayed: {event.get('why', '')}"
        case "call-end":
            return f"End: {event.get('outcome', '')}, by {event.get('ended_by', '')}{_detail(event, ', ')}"
        case _:
            return ""


def call_page(call: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of a call's page needs."""
    story = _Story(call["timeline"])
    return {
        "call": call,
        "ladder": ladder(story.rungs, "Caller", str(call.get("target") or "Target")),
        "messages": story.messages,
    }
