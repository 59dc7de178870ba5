"""Counts of what happens, for metrics and for the numbers on the dashboard: plain integers, bumped by every event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from proxy.audit.records import Change, Event

__all__ = ["SETUP_BUCKETS_S", "Counts", "Recent", "known_reason"]

SETUP_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Upper ends of the buckets of the set-up time."""

OTHER: Final = "other"
_MAX_VALUES: Final = 200
_RECENT_MINUTES: Final = 60
_METHODS: Final = frozenset(
    "ACK BYE CANCEL INFO INVITE MESSAGE NOTIFY OPTIONS PRACK PUBLISH REFER REGISTER SUBSCRIBE UPDATE".split()
)
_CAUSES: Final = {
    "answered": "answered",
    "status": "status",
    "timeout": "timeout",
    "transport": "transport",
    "own": "own",
    "cancelled": "cancelled",
    "unusable answer": "unusable_answer",
    "ended here": "ended",
    "ended: answered too late": "answered_too_late",
}


_TABLES: Final = "attempts calls dropped hops messages refused retries rules webhooks".split()


class Recent(NamedTuple):
    """Calls that ended within the last minutes."""

    answered: int
    failed: int
    cancelled: int

    @property
    def success_rate(self) -> float | None:
        """Answered calls as a share of answered and failed ones; None without any."""
        whole = self.answered + self.failed
        return self.answered / whole if whole else None


class _Table(dict[tuple[str, ...], int]):
    """Counts by label values. Values that peers choose can't make it grow without end: what is too much is `other`."""

    def bump(self, *key: str) -> None:
        """Count one."""
        count = self.get(key)
        if count is not None:
            self[key] = count + 1
        else:
            self.add(key, 1)

    def add(self, key: tuple[str, ...], count: int) -> None:
        """Count many."""
        if key not in self and len(self) >= _MAX_VALUES:
            key = (OTHER,) * len(key)
        self[key] = self.get(key, 0) + count


class Counts:
    """A sink that counts. The event loop bumps, other threads read: whole integers and copies of dictionaries only.

    Attributes:
        calls: ended calls by outcome and by who ended them.
        attempts: by target, rule set, status class or cause.
        setup: answered calls by bucket of `SETUP_BUCKETS_S`, the last one for all above; `setup_sum_s`: their sum.
        messages: by leg and direction. rules: messages by the rule that changed something in them.
        hops, retries: by target. refused: by method and status. dropped: by reason. webhooks: by what became of them.
    """

    __slots__ = (
        "_handlers",
        "_recent",
        "attempts",
        "calls",
        "dropped",
        "hops",
        "messages",
        "refused",
        "retries",
        "rules",
        "setup",
        "setup_sum_s",
        "talk_sum_s",
        "webhooks",
    )

    def __init__(self) -> None:
        self.calls = _Table()
        self.attempts = _Table()
        self.messages = _Table()
        self.rules = _Table()
        self.hops = _Table()
        self.retries = _Table()
        self.refused = _Table()
        self.dropped = _Table()
        self.webhooks = _Table()
        self.setup = [0] * (len(SETUP_BUCKETS_S) + 1)
        self.setup_sum_s = 0.0
        self.talk_sum_s = 0.0
        self._recent: list[tuple[int, list[int]]] = [(-1, [0, 0, 0]) for _ in range(_RECENT_MINUTES)]
        self._handlers: dict[str, Callable[[Event], None]] = {
            "message": self._on_message,
            "call-answered": self._on_answered,
            "call-end": self._on_end,
            "attempt-end": self._on_attempt,
            "hop-failed": lambda event: self.hops.bump(_text(event, "target")),
            "retry": lambda event: self.retries.bump(_text(event, "target") or "same"),
            "refused": self._on_refused,
            "dropped": lambda event: self.dropped.bump(known_reason(_text(event, "why"))),
            "webhook": lambda event: self.webhooks.bump("arrived"),
            "webhook-answered": self._on_webhook_answered,
            "webhook-refused": lambda event: self.webhooks.bump("refused"),
        }

    def emit(self, event: Event) -> None:
        """Count one event."""
        handler = self._handlers.get(event.kind)
        if handler is not None:
            handler(event)

    def close(self) -> None:
        """Nothing is left to be done."""

    def recent(self, now: float, minutes: int = 15) -> Recent:
        """Calls that ended within the last minutes (60 at most); `now` as in events."""
        first = int(now // 60) - minutes + 1
        parts = [list(counts) for minute, counts in self._recent if minute >= first]
        return Recent(*[sum(part[at] for part in parts) for at in range(3)])

    def dump(self) -> dict[str, Any]:
        """All counts as plain values, for `add`."""
        return {
            "tables": {name: [[*key, count] for key, count in getattr(self, name).items()] for name in _TABLES},
            "setup": list(self.setup),
            "setup_sum_s": self.setup_sum_s,
            "talk_sum_s": self.talk_sum_s,
            "recent": [[minute, *counts] for minute, counts in self._recent if minute >= 0],
        }

    def add(self, dumped: Mapping[str, Any]) -> None:
        """Add what another one of the same machine has counted (minutes are those of its one monotonic clock)."""
        for name, rows in dumped["tables"].items():
            table: _Table = getattr(self, name)
            for *key, count in rows:
                table.add(tuple(key), count)
        self.setup = [one + other for one, other in zip(self.setup, dumped["setup"], strict=True)]
        self.setup_sum_s += dumped["setup_sum_s"]
        self.talk_sum_s += dumped["talk_sum_s"]
        for minute, *counts in dumped["recent"]:
            own = self._minute(minute)
            if own is not None:
                for at, count in enumerate(counts):
                    own[at] += count

    def _minute(self, minute: int) -> list[int] | None:
        """The counts of a minute; None for one that is too long ago."""
        at = minute % _RECENT_MINUTES
        known, counts = self._recent[at]
        if known < minute:
            counts = [0, 0, 0]
            self._recent[at] = (minute, counts)
        return counts if known <= minute else None

    def _on_message(self, event: Event) -> None:
        fields = event.fields
        self.messages.bump(event.leg, "in" if fields["direction"] == "in" else "out")
        changes = fields.get("changes")
        if changes:
            last = ""
            assert isinstance(changes, list)
            change: Change
            for change in changes:
                step = change.step
                if step != last:
                    last = step
                    if step.startswith("rule:"):
                        self.rules.bump(step[5:])

    def _on_answered(self, event: Event) -> None:
        setup_s = _number(event, "setup_s")
        at = 0
        while at < len(SETUP_BUCKETS_S) and setup_s > SETUP_BUCKETS_S[at]:
            at += 1
        self.setup[at] += 1
        self.setup_sum_s += setup_s

    def _on_end(self, event: Event) -> None:
        outcome = _text(event, "outcome")
        self.calls.bump(outcome, _text(event, "ended_by"))
        self.talk_sum_s += _number(event, "talk_s")
        minute = self._minute(int(event.time // 60))
        if minute is not None:
            minute[0 if outcome == "answered" else 2 if outcome == "cancelled" else 1] += 1

    def _on_attempt(self, event: Event) -> None:
        fields = event.fields
        cause = _CAUSES.get(str(fields.get("cause")), OTHER)
        self.attempts.bump(_text(event, "target"), _text(event, "rules"), str(fields.get("status", "")), cause)

    def _on_refused(self, event: Event) -> None:
        method = _text(event, "method")
        self.refused.bump(method if method in _METHODS else OTHER, _text(event, "status"))

    def _on_webhook_answered(self, event: Event) -> None:
        status = _number(event, "status")
        self.webhooks.bump("answered" if 200 <= status < 300 else "failed")


def known_reason(why: str) -> str:
    """Why a message was dropped, as one of few words: the rule that did it, `stray_response` or `malformed`."""
    if "/" in why and " " not in why:
        return why
    return "stray_response" if why == "stray response" else "malformed"


def _text(event: Event, name: str) -> str:
    value = event.fields.get(name)
    return "" if value is None else str(value)


def _number(event: Event, name: str) -> float:
    value = event.fields.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0
