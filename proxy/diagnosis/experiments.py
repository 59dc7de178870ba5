"""Comparing the arms of an experiment: tags of the form `experiment:NAME=ARM`, and rule sets.

Shares have Wilson's intervals, their difference Newcombe's (1998, method 10), and the test is Fisher's.

Whoever tests a running experiment again and again finds a difference by chance alone sooner or later. So arms are
compared at fixed looks only, after 20, 40, 80 … calls in the smaller of the two, and the k-th look has 0.05 / (k (k +
1)) of the error that all of them may make together (the bound of Bonferroni: the shares add up to 0.05). What a look
says follows from the calls that were there then: it is the same however often somebody asks, and when.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxy.diagnosis.effects import p_value
from proxy.diagnosis.facts import AttemptFacts

__all__ = ["Arm", "Comparison", "Experiment", "experiments"]

_TAG: Final = "experiment:"
_RULE_SETS: Final = "rule set of the first attempt"
_ERROR: Final = 0.05
_FIRST_LOOK: Final = 20
_SAME: Final = 0.02
_POWER_Z: Final = 0.841621
"""The quantile of the normal distribution at 80 %."""
_MOST_CALLS: Final = 1_000_000


class _Trial(NamedTuple):
    """One call: when it began, whether its first attempt was answered, and whether it was in the end."""

    time: float
    answered: bool
    in_the_end: bool


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm up to now: calls, how many of their first attempts were answered, and that share's 95 % interval.

    `in_the_end` are the calls that were answered, by whatever attempt.
    """

    name: str
    calls: int
    answered: int
    in_the_end: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """First attempts that were answered as a share of all."""
        return self.answered / self.calls


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the largest one, as it was at a look.

    Attributes:
        look: which one, from 1 on: the first that decided, else the last there was. calls: in the smaller arm then.
        next_calls: when the next look is, the same way; None after a decision.
        difference: of the shares. low, high: its interval; those of all looks hold together with at least 95 %.
        p: Fisher's, to be compared with `level`, the error that this look may make.
        stop: whether it is decided. verdict: in words.
    """

    arm: str
    against: str
    look: int
    calls: int
    next_calls: int | None
    difference: float
    low: float
    high: float
    p: float
    level: float
    verdict: str
    stop: bool


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms, the largest first, and how the others compare with it.

    Attributes:
        unit: what counts as a success.
        drawn: whether chance put the calls into the arms. Otherwise something else may make the difference.
    """

    name: str
    unit: str
    drawn: bool
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]


def experiments(facts: Iterable[AttemptFacts]) -> list[Experiment]:
    """The experiments of some calls: by tag, and by rule set where first attempts used more than one.

    Calls that the caller gave up are left out.
    """
    by_name: dict[str, dict[str, list[_Trial]]] = {}
    for fact in facts:
        if fact.number != 1 or fact.hop or fact.cause in (None, "caller-gave-up", "carrier"):
            continue
        trial = _Trial(fact.time, fact.cause == "answered", fact.call_outcome == "answered")
        arm = f"{fact.rules} {fact.rules_version}"
        by_name.setdefault(_RULE_SETS, {}).setdefault(arm, []).append(trial)
        for tag in fact.tags:
            if tag.startswith(_TAG) and "=" in tag:
                name, _, value = tag.removeprefix(_TAG).partition("=")
                by_name.setdefault(name, {}).setdefault(value, []).append(trial)
    return [
        _compare(name, arms)
        for name, arms in sorted(by_name.items())
        if sum(len(trials) >= _FIRST_LOOK for trials in arms.values()) > 1
    ]


def _compare(name: str, trials: dict[str, list[_Trial]]) -> Experiment:
    arms = [_arm(arm, found) for arm, found in trials.items() if len(found) >= _FIRST_LOOK]
    arms.sort(key=lambda arm: (-arm.calls, arm.name))
    for found in trials.values():
        found.sort()
    base = arms[0].name
    return Experiment(
        name,
        "first attempts that were answered",
        name != _RULE_SETS,
        tuple(arms),
        tuple([_against((arm.name, trials[arm.name]), (base, trials[base]), len(arms) - 1) for arm in arms[1:]]),
    )


def _arm(name: str, trials: Sequence[_Trial]) -> Arm:
    answered = sum(trial.answered for trial in trials)
    low, high = _wilson(answered, len(trials), _ERROR)
    return Arm(name, len(trials), answered, sum(trial.in_the_end for trial in trials), low, high)


def _against(arm: tuple[str, list[_Trial]], base: tuple[str, list[_Trial]], tests: int) -> Comparison:
    """Compare two arms at each look there was, until one decides. `tests`: how many comparisons share the error."""
    look, calls = 1, _FIRST_LOOK
    while True:
        found = _look(arm, base, look, calls, _ERROR / (look * (look + 1)) / tests)
        if found.stop or min(len(arm[1]), len(base[1])) < 2 * calls:
            return found
        look, calls = look + 1, 2 * calls


def _look(
    arm: tuple[str, list[_Trial]], base: tuple[str, list[_Trial]], look: int, calls: int, level: float
) -> Comparison:
    """What there is to be said when the smaller arm has so many calls."""
    until = max(arm[1][calls - 1].time, base[1][calls - 1].time)
    (good, total), (good_base, total_base) = (_counts(trials, until) for _, trials in (arm, base))
    difference = good / total - good_base / total_base
    low, high = _newcombe(good, total, good_base, total_base, level)
    p = p_value(good, total, good_base, total_base)
    stop = True
    if p < level:
        better, worse = (arm[0], base[0]) if difference > 0 else (base[0], arm[0])
        verdict = f"stop: {better} is better than {worse}"
    elif low > -_SAME and high < _SAME:
        verdict = "stop: if there is a difference it is smaller than 2 points"
    else:
        stop = False
        verdict = f"go on: {_needed(good / total, good_base / total_base, calls, level)}"
    next_calls = None if stop else 2 * calls
    return Comparison(arm[0], base[0], look, calls, next_calls, difference, low, high, p, level, verdict, stop)


def _counts(trials: Sequence[_Trial], until: float) -> tuple[int, int]:
    """Successes and calls that had begun at a moment."""
    answered = [trial.answered for trial in trials if trial.time <= until]
    return sum(answered), len(answered)


def _wilson(good: int, total: int, level: float) -> tuple[float, float]:
    from scipy import stats

    interval = stats.binomtest(good, total).proportion_ci(1 - level, method="wilson")
    return float(interval.low), float(interval.high)


def _newcombe(good: int, total: int, good_base: int, total_base: int, level: float) -> tuple[float, float]:
    """The interval of the difference of two shares: Newcombe's hybrid score interval, without correction."""
    share, base = good / total, good_base / total_base
    low, high = _wilson(good, total, level)
    base_low, base_high = _wilson(good_base, total_base, level)
    difference = share - base
    return (
        difference - math.hypot(share - low, base_high - base),
        difference + math.hypot(high - share, base - base_low),
    )


def _needed(share: float, base: float, calls: int, level: float) -> str:
    """How many calls an arm needs to show a difference as large as the one that is seen, with a power of 80 %."""
    from scipy import stats

    difference, mean = share - base, (share + base) / 2
    z = float(stats.norm.ppf(1 - level / 2)) + _POWER_Z
    needed = 2 * mean * (1 - mean) * (z / difference) ** 2 if difference else math.inf
    if needed > _MOST_CALLS:
        return "no difference so far"
    looks = max(math.ceil(math.log2(needed / _FIRST_LOOK)), 0)
    wanted = max(_FIRST_LOOK * 2**looks, 2 * calls)
    return f"such a difference would show at about {wanted} calls in each arm"
