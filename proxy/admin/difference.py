"""From the message that came in to the one that went out, line by line, with the step behind each difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Line", "difference"]


class Line(NamedTuple):
    """One line of a difference.

    Attributes:
        mark: " " for a line that stayed, "-" for one that was taken out, "+" for one that is new.
        text: the line without its CRLF.
        steps: who did it: `rule:<set>/<rule id>` or `builtin:<name>`, in order.
    """

    mark: str
    text: str
    steps: tuple[str, ...] = ()


class _Entry:
    __slots__ = ("alive", "original", "steps", "text")

    def __init__(self, text: str, original: bool, step: str = "") -> None:
        self.text = text
        self.original = original
        self.alive = True
        self.steps = [step] if step else []


def difference(source: str, changes: Sequence[Mapping[str, Any]]) -> list[Line]:
    """What the changes of docs/events.md did to a message. Raises ValueError when they do not fit it."""
    head, _, body = source.partition("\r\n\r\n")
    lines = _unfolded(head)
    start = [_Entry(lines[0], True)]
    headers = [_Entry(line, True) for line in lines[1:]]
    content = [_Entry(line, True) for line in body.removesuffix("\r\n").split("\r\n")] if body else []
    for change in changes:
        step, before, after = str(change["step"]), change["before"], change["after"]
        match change["part"]:
            case "start-line":
                _edit(start, 0, before, after, step)
            case "header":
                _edit(headers, int(change["index"]), before, after, step)
            case "sdp":
                _edit(content, int(change["index"]), before, after, step)
            case _:
                _replace_all(content, after, step)
    separator = [_Entry("", True)] if any(entry.alive or entry.original for entry in content) else []
    return [_line(entry) for entry in (*start, *headers, *separator, *content)]


def _unfolded(head: str) -> list[str]:
    lines: list[str] = []
    for line in head.split("\r\n"):
        if line[:1] in (" ", "\t") and lines:
            lines[-1] += f"\r\n{line}"
        else:
            lines.append(line)
    return lines


def _edit(entries: list[_Entry], index: int, before: str | None, after: str | None, step: str) -> None:
    alive = [at for at, entry in enumerate(entries) if entry.alive]
    if before is None:
        place = alive[index] if index < len(alive) else len(entries)
        if index > len(alive):
            raise ValueError(f"there is no line {index}")
        entries.insert(place, _Entry(after or "", False, step))
        return
    if not 0 <= index < len(alive) or entries[alive[index]].text != before:
        raise ValueError(f"line {index} is not as {step} found it")
    entry = entries[alive[index]]
    if not entry.original:
        if after is None:
            del entries[alive[index]]
        else:
            entry.text = after
            entry.steps.append(step)
        return
    if after == before:
        return
    entry.alive = False
    entry.steps.append(step)
    if after is not None:
        entries.insert(alive[index] + 1, _Entry(after, False, step))


def _replace_all(entries: list[_Entry], after: str | None, step: str) -> None:
    for entry in [entry for entry in entries if entry.alive]:
        if entry.original:
            entry.alive = False
            entry.steps.append(step)
        else:
            entries.remove(entry)
    if after:
        entries.extend(_Entry(line, False, step) for line in after.removesuffix("\r\n").split("\r\n"))


def _line(entry: _Entry) -> Line:
    mark = " " if entry.original and entry.alive else "+" if entry.alive else "-"
    return Line(mark, entry.text, tuple(entry.steps) if mark != " " else ())
