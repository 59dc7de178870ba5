"""Records of what happened to messages, calls and attempts; pure values, no I/O."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Change", "Event", "replay"]


class Change:
    """One edit of a message between the leg it came in on and the leg it left by.

    Applied in order, the changes of a message give exactly what was sent (`replay`).

    Attributes:
        step: who did it: `rule:<set>/<rule id>` or `builtin:<name>`.
        part: "start-line", "header", "sdp" or "body".
        index: the position in the list of header lines or SDP lines at the moment of the edit; else 0.
        before: the line as it was, without its CRLF; None for an insertion.
        after: the line as it is now; None for a removal.
    """

    __slots__ = ("after", "before", "index", "part", "step")

    def __init__(self, step: str, part: str, index: int, before: str | None, after: str | None) -> None:
        self.step = step
        self.part = part
        self.index = index
        self.before = before
        self.after = after

    def __repr__(self) -> str:
        return f"Change({self.step}, {self.part}[{self.index}], {self.before!r} -> {self.after!r})"

    @property
    def field(self) -> str:
        """What was edited, for people: a header name, an SDP line type such as `a=rtpmap`, or the part."""
        line = self.before if self.before is not None else self.after or ""
        if self.part == "header":
            return line.partition(":")[0].strip()
        if self.part == "sdp":
            return line.partition(":")[0] if line.startswith("a=") else line[:2]
        return self.part


class Event:
    """One thing that happened, in the order in which it happened.

    Attributes:
        kind: `message`, `call-start`, `attempt-start`, `attempt-end`, `retry`, `call-answered`, `call-end`, `refused`,
            `dropped` … (`docs/events.md` lists them with their fields).
        time: the stack's `now` in seconds, monotonic; sinks turn it into wall-clock time.
        call: our id of the call, or "" for what belongs to none.
        leg: "a", "b" or "".
        attempt: the number of the attempt from 1 on, or 0.
        fields: the rest, by kind. `message` has `direction` ("in" or "out"), `flow`, `message` (the Message)
            and, where it was made from a message of the other leg, `changes` (list of Change), with `source` (that
            Message) where the two are of different kinds.
    """

    __slots__ = ("attempt", "call", "fields", "kind", "leg", "time")

    def __init__(self, kind: str, time: float, call: str, leg: str, attempt: int, fields: dict[str, object]) -> None:
        self.kind = kind
        self.time = time
        self.call = call
        self.leg = leg
        self.attempt = attempt
        self.fields = fields


def replay(
    start_line: str, header_lines: list[str], body: bytes, changes: Iterable[Change]
) -> tuple[str, list[str], bytes]:
    """Apply changes to a message's lines and return the start line, header lines and body that they lead to.

    Raises ValueError when a change does not fit what it claims to have found.
    """
    headers = list(header_lines)
    sdp: list[str] | None = None
    for change in changes:
        if change.part == "start-line":
            _expect(start_line, change)
            start_line = change.after or ""
        elif change.part == "body":
            _expect(_text(body if sdp is None else _join(sdp)), change)
            body, sdp = (change.after or "").encode("utf-8", "surrogateescape"), None
        else:
            if change.part == "sdp" and sdp is None:
                sdp = _text(body).split("\r\n")[:-1]
            lines = headers if change.part == "header" else sdp
            assert lines is not None
            if change.before is not None:
                if not 0 <= change.index < len(lines):
                    raise ValueError(f"no such line: {change!r}")
                _expect(lines[change.index], change)
                del lines[change.index]
            if change.after is not None:
                lines.insert(change.index, change.after)
    return start_line, headers, body if sdp is None else _join(sdp)


def _expect(found: str, change: Change) -> None:
    if found != (change.before or ""):
        raise ValueError(f"found {found!r} where {change!r} was recorded")


def _text(body: bytes) -> str:
    return body.decode("utf-8", "surrogateescape")


def _join(lines: list[str]) -> bytes:
    return "".join([f"{line}\r\n" for line in lines]).encode("utf-8", "surrogateescape")
