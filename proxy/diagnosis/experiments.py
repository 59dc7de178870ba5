"""Comparing the arms of an experiment: rule sets, or tags of the form `experiment:NAME=ARM`.

Shares have Wilson's intervals, their difference Newcombe's (1998, method 10). Who looks at a running experiment again
and again would at 5 % find a difference by chance alone sooner or later: it is called decided at p < 0.005.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy.diagnosis.facts import AttemptFacts

__all__ = ["Arm", "Comparison", "Experiment", "experiments"]

_TAG: Final = "experiment:"
_STOP_P: Final = 0.005
_SAME: Final = 0.02
_MIN_CALLS: Final = 20
_POWER_Z: Final = 1.959964 + 0.841621
_MOST_CALLS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm: calls and successes, the share with its 95 % interval."""

    name: str
    calls: int
    answered: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Answered calls as a share of all."""
        return self.answered / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the first one: the difference of the shares with its 95 % interval, p of Fisher's exact test."""

    arm: str
    against: str
    difference: float
    low: float
    high: float
    p: float
    verdict: str
    stop: bool


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms, the largest first, and how the others compare with it. `unit`: what counts as a success."""

    name: str
    unit: str
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]


def experiments(facts: Iterable[AttemptFacts]) -> list[Experiment]:
    """The experiments of some calls: by tag, and by rule set where first attempts used more than one."""
    by_name: dict[str, dict[str, list[bool]]] = {}
    for fact in facts:
        if fact.number != 1 or fact.hop or fact.cause in (None, "caller-gave-up", "carrier"):
            continue
        arm = f"{fact.rules} {fact.rules_version}"
        by_name.setdefault("rule set of the first attempt", {}).setdefault(arm, []).append(fact.cause == "answered")
        for tag in fact.tags:
            if tag.startswith(_TAG) and "=" in tag:
                name, _, value = tag.removeprefix(_TAG).partition("=")
                arms = by_name.setdefault(name, {})
                arms.setdefault(value, []).append(fact.cause == "answered")
    return [
        _compare(name, arms)
        for name, arms in sorted(by_name.items())
        if sum(len(results) >= _MIN_CALLS for results in arms.values()) > 1
    ]


def _compare(name: str, results: dict[str, list[bool]]) -> Experiment:
    arms = [_arm(arm, len(found), sum(found)) for arm, found in results.items() if len(found) >= _MIN_CALLS]
    arms.sort(key=lambda arm: (-arm.calls, arm.name))
    tests = len(arms) - 1
    return Experiment(
        name,
        "first attempts that were answered",
        tuple(arms),
        tuple([_against(arm, arms[0], tests) for arm in arms[1:]]),
    )


def _arm(name: str, calls: int, answered: int) -> Arm:
    from scipy import stats

    interval = stats.binomtest(answered, calls).proportion_ci(0.95, method="wilson")
    return Arm(name, calls, answered, float(interval.low), float(interval.high))


def _against(arm: Arm, base: Arm, tests: int) -> Comparison:
    from scipy import stats

    table = [[arm.answered, arm.calls - arm.answered], [base.answered, base.calls - base.answered]]
    p = min(float(stats.fisher_exact(table)[1]) * tests, 1.0)
    difference = arm.share - base.share
    low = difference - math.hypot(arm.share - arm.low, base.high - base.share)
    high = difference + math.hypot(arm.high - arm.share, base.share - base.low)
    stop = True
    if p < _STOP_P:
        better, worse = (arm, base) if difference > 0 else (base, arm)
        verdict = f"stop: {better.name} is better than {worse.name}"
    elif low > -_SAME and high < _SAME:
        verdict = "stop: if there is a difference it is smaller than 2 points"
    else:
        stop = False
        verdict = f"go on: {_needed(arm, base)}"
    return Comparison(arm.name, base.name, difference, low, high, p, verdict, stop)


def _needed(arm: Arm, base: Arm) -> str:
    """How many calls an arm needs to show a difference as large as the one that is seen, with a power of 80 %."""
    difference = arm.share - base.share
    mean = (arm.share + base.share) / 2
    needed = 2 * mean * (1 - mean) * (_POWER_Z / difference) ** 2 if difference else math.inf
    if needed > _MOST_CALLS:
        return "no difference so far"
    have = min(arm.calls, base.calls)
    if have >= needed:
        return "the difference is not certain yet; as many calls again should decide"
    return f"about {math.ceil(needed - have)} more calls in each arm would decide a difference of this size"
