"""Where events go: JSON lines with phone numbers and secrets masked, and the operational log beside them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import structlog

from proxy.audit.plain import dump_line, plain, timestamp
from proxy.audit.records import Event
from proxy.audit.redact import Redaction, Redactor
from proxy.audit.writer import LineWriter

__all__ = ["LEVELS", "JsonLinesSink", "LineTarget", "LineWriter", "Sink", "configure_logs", "timestamp"]

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

_INFO: Final = frozenset(
    ("call-end", "dropped", "limit-reached", "refer", "refused", "takeover", "target-down", "target-up")
)
"""The kinds of events that level `info` has; the others are for `debug`."""

_FLOOD_PER_S: Final = 20
_FLOOD_KINDS: Final = frozenset(("refused", "dropped"))


class Sink(Protocol):
    """Takes events."""

    def emit(self, event: Event) -> None:
        """Take one event. Never raises and never waits."""

    def close(self) -> None:
        """Write what is left."""


class LineTarget(Protocol):
    """Where finished lines go."""

    def write(self, line: bytes) -> None:
        """Take one line, which ends with a line feed."""


class LogTarget(LineTarget, Protocol):
    """Where the lines of a log go."""

    def close(self) -> None:
        """Write what is left."""


class JsonLinesSink:
    """Events as JSON lines.

    At level `info` that is one `call-end` a call, and what was refused or dropped (at most 20 a second of each kind; a
    later line says how many were `suppressed`). At `debug` it is every event, with messages and changes.

    Args:
        writer: where lines go.
        level: "debug", "info", "warning" or "error".
        redaction: what is masked.
        wall_offset: seconds to add to an event's time for the Unix time; None follows the system's clock.
    """

    def __init__(
        self,
        writer: LogTarget,
        level: str = "info",
        redaction: Redaction | None = None,
        *,
        wall_offset: float | None = None,
    ) -> None:
        self._writer = writer
        self.set_level(level)
        self._redactor = Redactor(redaction or Redaction())
        self._clock = _WallClock(wall_offset)
        self._flood = _Flood()

    def set_level(self, level: str) -> None:
        """Write what a level asks for, from now on."""
        self._all = LEVELS[level] <= LEVELS["debug"]
        self._kinds = _INFO if LEVELS[level] <= LEVELS["info"] else frozenset[str]()

    def emit(self, event: Event) -> None:
        """Write one event, if the level asks for it."""
        kind = event.kind
        suppressed = 0
        if not self._all:
            if kind not in self._kinds:
                return
            if kind in _FLOOD_KINDS:
                allowed = self._flood.allow(kind, event.time)
                if allowed is None:
                    return
                suppressed = allowed
        record = self._record(event)
        if suppressed:
            record["suppressed"] = suppressed
        self._writer.write(dump_line(record))

    def _record(self, event: Event) -> dict[str, object]:
        record: dict[str, object] = {
            "time": timestamp(self._clock.at(event.time)),
            "level": "info" if event.kind in _INFO else "debug",
            "event": event.kind,
        }
        if event.call:
            record["call"] = event.call
        if event.leg:
            record["leg"] = event.leg
        if event.attempt:
            record["attempt"] = event.attempt
        for name, value in event.fields.items():
            record[name if name not in record else f"{name}_"] = plain(name, value, self._redactor)
        return record

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class _Flood:
    """Counts lines of a kind in each second."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int, int]] = {}

    def allow(self, kind: str, now: float) -> int | None:
        """None when this second has had enough of a kind, else how many were left out before this one."""
        second, written, left_out = self._counts.get(kind, (int(now), 0, 0))
        if int(now) != second:
            second, written = int(now), 0
        if written >= _FLOOD_PER_S:
            self._counts[kind] = (second, written, left_out + 1)
            return None
        self._counts[kind] = (second, written + 1, 0)
        return left_out


class _WallClock:
    """Monotonic time to Unix time. The offset is looked up again each second, since the system's clock may be set."""

    __slots__ = ("_fixed", "_offset", "_until")

    def __init__(self, offset: float | None) -> None:
        self._fixed = offset
        self._offset = 0.0
        self._until = 0.0

    def at(self, moment: float) -> float:
        if self._fixed is not None:
            return moment + self._fixed
        now = time.monotonic()
        if now >= self._until:
            self._offset = time.time() - now
            self._until = now + 1.0
        return moment + self._offset


class _LogLines:
    """What structlog writes to: finished lines."""

    __slots__ = ("_writer",)

    def __init__(self, writer: LineTarget) -> None:
        self._writer = writer

    def msg(self, line: bytes) -> None:
        """Write one line."""
        self._writer.write(line)

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def configure_logs(writer: LineTarget, level: str = "info", redaction: Redaction | None = None) -> None:
    """Send the operational log (start, stop, listeners, connections, TLS errors) as JSON lines to a writer.

    A line has `time`, `level`, `event` and its own fields, as those of `JsonLinesSink` have.
    """
    redactor = Redactor(redaction or Redaction())

    def render(_logger: object, _method: str, fields: Mapping[str, Any]) -> bytes:
        record: dict[str, object] = {
            "time": timestamp(time.time()),
            "level": fields.get("level", "info"),
            "event": fields.get("event", ""),
        }
        for name, value in fields.items():
            if name not in record:
                record[name] = plain(name, value, redactor)
        return dump_line(record)

    processors: Iterable[Any] = (
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        render,
    )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _LogLines(writer),
        cache_logger_on_first_use=False,
    )
