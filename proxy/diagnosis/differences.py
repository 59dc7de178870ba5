"""What differs between attempts that failed and attempts that did not.

The unit is the first attempt of each call (later ones are no independent evidence; they follow from the first). Each
feature splits the calls in two groups, which are compared by Fisher's exact test, right for small counts; a window of
time counts as a feature too, its p-value multiplied by the number of windows that were tried. The p-values of a round
are corrected for their number by Benjamini and Hochberg (1995). The strongest feature that is left with a corrected
p-value below 0.001 and an effect that matters is a finding; the calls that it holds for are taken out, and the rest is
compared again. So what only goes along with a cause is not named as another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from proxy.diagnosis.columns import Column, columns_of, without
from proxy.diagnosis.effects import ALPHA, MIN_CALLS, MIN_FAILED, is_effect, p_value
from proxy.diagnosis.facts import AttemptFacts
from proxy.diagnosis.windows import Span, Window, best_window, clock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

__all__ = ["Finding", "differences", "first_attempts"]

_MOST: Final = 10
_MOST_ALSO: Final = 5
_ORDER: Final = ("header", "time", "address", "codec", "protocol", "sdp", "value")
_ONE_OF_SEVERAL: Final = frozenset(("address", "source", "tag", "rules", "target", "user-agent"))


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between failed and good attempts.

    Attributes:
        kind: `time`, `address`, `size`, `source`, `rules`, `tag` …, or that of a feature of the INVITE.
        name: what the attempts have, by kind: the feature, the address.
        words: the same in words that follow "INVITEs".
        failed, total: of the attempts that have it. failed_others, total_others: of the others.
        p: the corrected p-value. ratio: of the two failure rates; None where no other failed.
        answers: what became of the failed ones, most frequent first, with counts.
        causes: their causes, the same way.
        also: features that exactly the same calls have.
        calls: our ids of some of the failed calls.
        since, until: of a window of time, Unix seconds; None for an end that is open.
        began, ended: from when to when such an end may lie: all that is at least a hundredth as likely.
    """

    kind: str
    name: str
    words: str
    failed: int
    total: int
    failed_others: int
    total_others: int
    p: float
    ratio: float | None
    answers: tuple[tuple[str, int], ...]
    causes: tuple[tuple[str, int], ...]
    also: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    began: Span | None = None
    ended: Span | None = None

    @property
    def exactness(self) -> str:
        """How exact the ends of the window are, in words; "" without one."""
        spans = (("began", self.began), ("ended", self.ended))
        said = [f"{what} between {clock(span[0])} and {clock(span[1])}" for what, span in spans if span is not None]
        return f"it {' and '.join(said)}" if said else ""

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        subject = "INVITEs" if self.kind != "time" else "Calls"
        rates = f"{_percent(self.failed, self.total)} against {_percent(self.failed_others, self.total_others)}"
        return (
            f"{subject} {self.words} failed {self.failed} of {self.total} times, "
            f"others {self.failed_others} of {self.total_others} ({rates})"
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    kind: str
    name: str
    words: str
    mask: Mask
    p: float
    also: tuple[str, ...] = ()
    window: Window | None = None


def first_attempts(facts: Iterable[AttemptFacts]) -> list[AttemptFacts]:
    """The attempts that are compared: first ones with an outcome that is not the caller's doing, and the addresses
    that failed within them."""
    return [
        fact
        for fact in facts
        if fact.number == 1 and fact.outcome and fact.cause not in (None, "caller-gave-up", "carrier")
    ]


def differences(facts: Sequence[AttemptFacts]) -> list[Finding]:
    """Findings, the strongest first; none when there is no difference that chance does not explain.

    `facts` are those of `first_attempts`, in order of time.
    """
    import numpy as np

    table = _Table(facts)
    left = np.ones(len(facts), dtype=np.bool_)
    found: list[Finding] = []
    while len(found) < _MOST:
        best = _strongest(table, left)
        if best is None:
            break
        best = table.narrowed(best, left)
        finding = table.finding(best, left)
        left &= ~best.mask
        found.append(finding)
    return _joined(found)


def _strongest(table: _Table, left: Mask) -> _Candidate | None:
    """The strongest difference among the attempts that are left."""
    from scipy import stats

    candidates = [*table.candidates(left), *table.windows(left)]
    if not candidates:
        return None
    corrected = stats.false_discovery_control([candidate.p for candidate in candidates])
    order = sorted(range(len(candidates)), key=lambda at: (candidates[at].p, _rank(candidates[at])))
    for at in order:
        if corrected[at] >= ALPHA:
            return None
        candidate = candidates[at]
        if table.matters(candidate, left):
            return replace(candidate, p=float(corrected[at]), also=table.same(candidate, left))
    return None


def _rank(candidate: _Candidate) -> tuple[int, int, str]:
    """Among equals the plainest feature stands for the others."""
    kind = candidate.kind
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), len(candidate.name), candidate.name)


class _Table:
    """The attempts as columns.

    Attempts are the first of each call, and the addresses that failed within it; only the feature `address` looks at
    the latter.
    """

    def __init__(self, facts: Sequence[AttemptFacts]) -> None:
        import numpy as np

        self.facts = facts
        self.failed = np.array([fact.cause != "answered" for fact in facts], dtype=np.bool_)
        self.whole = np.array([fact.hop == 0 for fact in facts], dtype=np.bool_)
        self.times = np.array([fact.time for fact in facts], dtype=np.float64)
        self._columns = list(columns_of(facts, self.whole))

    # Comparing

    def _counts(self, mask: Mask, left: Mask, kind: str) -> tuple[int, int, int, int]:
        """Failed and all with the feature, failed and all without it."""
        pool = left if kind == "address" else left & self.whole
        inside, outside = pool & mask, pool & ~mask
        return (
            int((inside & self.failed).sum()),
            int(inside.sum()),
            int((outside & self.failed).sum()),
            int(outside.sum()),
        )

    def candidates(self, left: Mask) -> list[_Candidate]:
        """Features that split what is left in two, each turned so that the group that has it failed more often."""
        found: list[_Candidate] = []
        for kind, name, words, mask in self._columns:
            failed, total, failed_others, others = self._counts(mask, left, kind)
            if min(total, others) < MIN_FAILED or total + others < MIN_CALLS or not failed + failed_others:
                continue
            # What would be no finding anyway needs no test. It counts as one in the correction all the same.
            good = failed * others < failed_others * total
            if good and kind in _ONE_OF_SEVERAL:
                found.append(_Candidate(kind, name, words, mask, 1.0))
                continue
            if good:
                name, words, mask = f"not {name}", without(words), left & self.whole & ~mask
                failed, failed_others, total, others = failed_others, failed, others, total
            p = 1.0
            if is_effect(failed, total, failed_others, others):
                p = p_value(failed, total, failed_others, others)
            found.append(_Candidate(kind, name, words, mask & left, p))
        return found

    def windows(self, left: Mask) -> list[_Candidate]:
        """The window of time with the most failures beyond the rest's rate."""
        pool = left & self.whole
        window = best_window(self.failed[pool], self.times[pool])
        if window is None:
            return []
        start, end = window.inside
        mask = left & self._within(window)
        return [_Candidate("time", f"{start:.0f}-{end:.0f}", window.words, mask, window.p, (), window)]

    def _within(self, window: Window) -> Mask:
        start, end = window.inside
        return (self.times >= start) & (self.times <= end)

    def same(self, candidate: _Candidate, left: Mask) -> tuple[str, ...]:
        """Other features that exactly the same attempts have, or lack, in words."""
        import numpy as np

        pool = left & self.whole
        mask, rest = candidate.mask & pool, pool & ~candidate.mask
        found: list[str] = []
        for column in self._columns:
            if candidate.name in (column.name, f"not {column.name}"):
                continue
            has = column.mask & pool
            if np.array_equal(has, mask):
                found.append(column.words)
            elif column.kind not in _ONE_OF_SEVERAL and np.array_equal(has, rest):
                found.append(without(column.words))
        return tuple(found[:_MOST_ALSO])

    # Features within a window

    def narrowed(self, best: _Candidate, left: Mask) -> _Candidate:
        """The same candidate; or, where a feature counts in a window of time only, the feature in that window."""
        if best.kind != "time":
            return self._in_window(best, left) or best
        tested = [(self._p_within(column, best.mask), at) for at, column in enumerate(self._columns)]
        p, at = min(tested, default=(1.0, 0))
        if p * len(tested) >= ALPHA:
            return best
        return self._in_window(_Candidate(*self._columns[at], 1.0), left) or best

    def _p_within(self, column: Column, inside: Mask) -> float:
        """The p-value of a feature among some attempts; 1 where it is no difference that matters."""
        counts = self._counts(column.mask, inside, column.kind)
        return p_value(*counts) if is_effect(*counts) else 1.0

    def _in_window(self, feature: _Candidate, left: Mask) -> _Candidate | None:
        """A feature in the window of time in which it counts.

        None where it counts at other times too, and where the calls without it fail as often then.
        """
        kind = feature.kind
        pool = left if kind == "address" else left & self.whole
        having = pool & feature.mask
        window = best_window(self.failed[having], self.times[having])
        if window is None or window.p >= ALPHA:
            return None
        then = self._within(window)
        failed, total, failed_otherwise, otherwise = self._counts(then, having, kind)
        failed_others, others = self._counts(feature.mask, pool, kind)[2:]
        if not is_effect(failed, total, failed_otherwise, otherwise):
            return None
        if is_effect(failed_otherwise, otherwise, failed_others, others):
            return None
        failed_then, others_then = self._counts(feature.mask, pool & then, kind)[2:]
        if others_then >= MIN_FAILED and not is_effect(failed, total, failed_then, others_then):
            return None
        size = len(self.times[having])
        tries = size * (size + 1) / 2 * len(self._columns)
        mask = feature.mask & then & left
        p = min(p_value(*self._counts(mask, left, kind)) * tries, 1.0)
        also = feature.also or self.same(feature, left)
        return _Candidate(kind, feature.name, f"{feature.words} {window.words}", mask, p, also, window)

    def matters(self, candidate: _Candidate, left: Mask) -> bool:
        """Whether a difference is large enough to speak of."""
        return is_effect(*self._counts(candidate.mask, left, candidate.kind))

    def finding(self, candidate: _Candidate, left: Mask) -> Finding:
        """A candidate with its evidence."""
        import numpy as np

        failed, total, failed_others, others = self._counts(candidate.mask, left, candidate.kind)
        rows = [self.facts[at] for at in np.flatnonzero(candidate.mask & left & self.failed).tolist()]
        answers = Counter(_answer(fact) for fact in rows)
        causes = Counter(fact.cause or "unknown" for fact in rows)
        other_rate = failed_others / others if others else 0.0
        window = candidate.window
        return Finding(
            candidate.kind,
            candidate.name,
            candidate.words,
            failed,
            total,
            failed_others,
            others,
            candidate.p,
            failed / total / other_rate if other_rate else None,
            tuple(answers.most_common(3)),
            tuple(causes.most_common(3)),
            candidate.also,
            tuple(dict.fromkeys(fact.call for fact in rows[:: max(len(rows) // 3, 1)]))[:3],
            *((window.since, window.until, window.began, window.ended) if window is not None else ()),
        )


def _joined(findings: list[Finding]) -> list[Finding]:
    """Windows of time that lie within another one's reach are one story; the stronger one tells it."""
    kept: list[Finding] = []
    for finding in findings:
        if finding.kind == "time":
            near = [
                other
                for other in kept
                if other.kind == "time"
                and (finding.since or 0.0) <= (other.until or float("inf")) + 600
                and (finding.until or float("inf")) >= (other.since or 0.0) - 600
            ]
            if near:
                continue
        kept.append(finding)
    return kept


def _answer(fact: AttemptFacts) -> str:
    if fact.outcome in ("timeout", "hop") and fact.status in (408, None):
        return "no answer in time"
    return f"{fact.status} {fact.reason or ''}".strip() if fact.status else fact.outcome or "unknown"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "0 %"
