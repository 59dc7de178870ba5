"""What became of the calls that were placed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from math import ceil
from typing import Any, Final

__all__ = ["CallResult", "Percentiles", "Progress", "Report"]

_TOO_FEW: Final = 20
_LATE_S: Final = 0.1
_LATE_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A distribution of times in ms; all zero for none. Percentiles by nearest rank."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> Percentiles:
        """The distribution of some values."""
        ordered = sorted(values)
        if not ordered:
            return cls()
        count = len(ordered)

        def rank(share: float) -> float:
            return round(ordered[max(0, ceil(share * count) - 1)], 3)

        return cls(count, round(sum(ordered) / count, 3), rank(0.5), rank(0.95), rank(0.99), round(ordered[-1], 3))


@dataclass(slots=True)
class CallResult:
    """One call.

    Attributes:
        index: its number, from 0.
        call_sid: X-Twilio-CallSid.
        call_id: its Call-ID.
        problem: the kind of problem that its INVITE had, "" for none.
        outcome: "200 OK", "486 Busy Here", "cancelled", "timeout", "connection lost" …
        kind: "answered", "cancelled" (as planned) or "failed".
        status: the final status of its INVITE; 0 for none.
        setup_ms: from INVITE to 200; 0 when not answered.
        ringing_ms: from INVITE to the first 18x; 0 for none.
        ended_by: "caller", "callee", or "" when it was not answered.
        started_s: when it was placed, in seconds from the first one.
    """

    index: int
    call_sid: str
    call_id: str
    problem: str
    outcome: str
    kind: str
    status: int
    setup_ms: float
    ringing_ms: float
    ended_by: str
    started_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: calls in all, placed, in progress, and over by kind.

    Attributes:
        talking: those in progress that are answered.
        failures: what the failed ones ended with, the most frequent first.
        heard: whether anything has come back yet.
    """

    calls: int
    placed: int
    in_progress: int
    answered: int
    cancelled: int
    failed: int
    elapsed_s: float
    talking: int = 0
    failures: tuple[tuple[str, int], ...] = ()
    heard: bool = True


@dataclass(slots=True)
class Report:
    """The result of a run.

    Attributes:
        calls: how many were placed; each is `answered`, `cancelled` as planned, or `failed`.
        wanted, wanted_rate: how many were to be placed, and how many a second.
        outcomes: counts by outcome. `failures`: of failed calls alone.
        problems: for each kind of problem INVITE the counts by outcome.
        setup_ms: INVITE to 200. `ringing_ms`: INVITE to the first 18x.
        duration_s: from the first INVITE to the end of the last call.
        rate: calls a second that were really placed.
        late: calls that were placed more than 100 ms after their time. `latest_ms`: by how much at most.
        delayed: calls that waited for the limit of concurrent calls.
        unexpected: what should not have happened, with counts: odd messages, broken dialogs.
        answers_without_content_type: answers whose session description no Content-Type announces.
        answers_incomplete: answers that do not fit the offer. `incomplete_because`: why, with counts.
        reinvites, refers: how many re-INVITE and REFER requests came and were accepted.
        traffic: see `endpoint.Traffic`.
        results: every call, in the order in which they ended.
    """

    calls: int = 0
    wanted: int = 0
    wanted_rate: float = 0.0
    answered: int = 0
    cancelled: int = 0
    failed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    problems: dict[str, Counter[str]] = field(default_factory=dict)
    setup_ms: Percentiles = field(default_factory=Percentiles)
    ringing_ms: Percentiles = field(default_factory=Percentiles)
    duration_s: float = 0.0
    rate: float = 0.0
    late: int = 0
    latest_ms: float = 0.0
    delayed: int = 0
    unexpected: Counter[str] = field(default_factory=Counter)
    answers_without_content_type: int = 0
    answers_incomplete: int = 0
    incomplete_because: Counter[str] = field(default_factory=Counter)
    reinvites: int = 0
    refers: int = 0
    traffic: dict[str, int] = field(default_factory=dict)
    results: list[CallResult] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every call was answered, or cancelled as planned, and nothing unexpected came."""
        return not self.failed and not self.unexpected and not self.answers_incomplete

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before all calls were placed."""
        return self.calls < self.wanted

    @property
    def rate_kept(self) -> bool:
        """Whether calls were placed at the rate that was asked for. Few calls say nothing, and neither do calls that
        waited for the limit of concurrent calls."""
        if self.calls < _TOO_FEW or self.delayed:
            return True
        return self.late <= _LATE_SHARE * self.calls and self.rate >= (1 - _LATE_SHARE) * self.wanted_rate

    def verdicts(self) -> list[tuple[str, bool]]:
        """What to say of the run, each with whether it is good."""
        said: list[tuple[str, bool]] = []
        if self.interrupted:
            said.append((f"Stopped after {self.calls} of {self.wanted} calls.", False))
        if not self.rate_kept:
            asked = f"{self.wanted_rate:g} calls a second were asked for, {self.rate:g} placed"
            why = "this machine can't place more, and the times have its own delay in them; take a lower rate"
            said.append((f"The rate was not kept: {asked}, up to {self.latest_ms:.0f} ms late; {why}.", False))
        if self.failed and not self.traffic.get("received"):
            said.append(("Nothing came back at all: is somebody listening there?", False))
        if self.failed:
            said.append((f"{self.failed} of {self.calls} calls failed.", False))
        if self.unexpected or self.answers_incomplete:
            said.append(("Messages came that should not have come.", False))
        if not said:
            said.append(("Every call was answered, or cancelled as asked.", True))
        return said

    def placed(self, late_s: float) -> None:
        """Count a call that is placed, so long after its time."""
        self.calls += 1
        self.late += late_s > _LATE_S
        self.latest_ms = max(self.latest_ms, round(late_s * 1000, 1))

    def add(self, result: CallResult) -> None:
        """Count a call that is over."""
        self.results.append(result)
        self.outcomes[result.outcome] += 1
        if result.kind == "answered":
            self.answered += 1
        elif result.kind == "cancelled":
            self.cancelled += 1
        else:
            self.failed += 1
            self.failures[result.outcome] += 1
        if result.problem:
            self.problems.setdefault(result.problem, Counter())[result.outcome] += 1

    def close(self, duration_s: float, placing_s: float, traffic: dict[str, int]) -> None:
        """Work out what needs all calls."""
        self.setup_ms = Percentiles.of(result.setup_ms for result in self.results if result.setup_ms)
        self.ringing_ms = Percentiles.of(result.ringing_ms for result in self.results if result.ringing_ms)
        self.duration_s = round(duration_s, 3)
        self.rate = round((self.calls - 1) / placing_s, 2) if self.calls > 1 and placing_s > 0 else float(self.calls)
        self.traffic = traffic

    def to_dict(self, *, results: bool = False) -> dict[str, Any]:
        """Everything as plain values; each single call only with `results`."""
        values: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Counter):
                value = dict(sorted(value.items()))
            elif isinstance(value, Percentiles):
                value = asdict(value)
            values[item.name] = value
        values["problems"] = {kind: dict(sorted(counts.items())) for kind, counts in sorted(self.problems.items())}
        values["ok"] = self.ok
        values["rate_kept"] = self.rate_kept
        values["interrupted"] = self.interrupted
        del values["results"]
        if results:
            values["results"] = [asdict(result) for result in self.results]
        return values
