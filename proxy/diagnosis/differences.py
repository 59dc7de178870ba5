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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from proxy.diagnosis.facts import AttemptFacts
from proxy.diagnosis.features import describe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

__all__ = ["ALPHA", "Finding", "differences", "first_attempts"]

ALPHA: Final = 0.001
_MIN_CALLS: Final = 20
_MIN_FAILED: Final = 5
_MIN_DIFFERENCE: Final = 0.10
_LARGE_DIFFERENCE: Final = 0.25
"""Enough without regard to the ratio: where half of all calls fail anyway, nothing can fail twice as often."""
_MIN_RATIO: Final = 2.0
_MOST: Final = 10
_BINS: Final = 96
_ORDER: Final = ("header", "time", "address", "codec", "protocol", "sdp", "value")
_ONE_OF_SEVERAL: Final = frozenset(("address", "source", "tag", "rules", "target", "user-agent"))
_OPEN_END: Final = 0.01
_NEW_CONNECTION_S: Final = 1.0


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
        since, until: for `time`, Unix seconds; None for an end that is open.
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
    since: float | None = None
    until: float | None = None


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
        finding = table.finding(best, left)
        left &= ~best.mask
        found.append(finding)
    return _joined(found)


def _strongest(table: _Table, left: Mask) -> _Candidate | None:
    """The strongest difference among the attempts that are left."""
    import numpy as np
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
            same = [
                other.words
                for other in candidates
                if other is not candidate and other.kind != "time" and np.array_equal(other.mask, candidate.mask)
            ]
            return _Candidate(
                candidate.kind, candidate.name, candidate.words, candidate.mask, float(corrected[at]), tuple(same[:5]),
                candidate.since, candidate.until,
            )  # fmt: skip
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
        self._columns = list(self._all_columns())

    def _all_columns(self) -> Iterable[tuple[str, str, str, Mask]]:
        """Every feature: kind, name, words, and which attempts have it."""
        import numpy as np

        shapes: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
        numbers = np.array([shapes.setdefault((f.shape, f.sent), len(shapes)) for f in self.facts], dtype=np.int64)
        names = sorted({name for shape, _ in shapes for name in shape})
        for name in names:
            has = np.array([name in shape for shape, _ in shapes], dtype=np.bool_)
            yield name.partition(":")[0], name, describe(name), has[numbers] & self.whole
        for name in sorted({name for _, sent in shapes for name in sent} - set(names)):
            has = np.array([name in sent for _, sent in shapes], dtype=np.bool_)
            yield name.partition(":")[0], name, f"{describe(name)} (as sent on)", has[numbers] & self.whole
        yield from self._categories()
        yield from self._numbers()

    def _categories(self) -> Iterable[tuple[str, str, str, Mask]]:
        import numpy as np

        kinds: tuple[tuple[str, Callable[[AttemptFacts], Iterable[str]], str], ...] = (
            ("address", lambda fact: [fact.address] if fact.address else (), "to the address {}"),
            ("target", lambda fact: [fact.target] if fact.target else (), "to the target {}"),
            ("source", lambda fact: [fact.source] if fact.source else (), "from {}"),
            ("user-agent", lambda fact: [fact.user_agent] if fact.user_agent else (), "of the User-Agent {}"),
            ("rules", lambda fact: [f"{fact.rules} {fact.rules_version}"], "under the rule set {}"),
            ("tag", lambda fact: fact.tags, "with the tag {}"),
            ("tls", lambda fact: [fact.tls] if fact.tls else (), "sent on by {}"),
            ("source-tls", lambda fact: [fact.source_tls] if fact.source_tls else (), "that came by {}"),
        )
        for kind, values_of, words in kinds:
            rows: dict[str, list[int]] = {}
            for at, fact in enumerate(self.facts):
                if fact.hop == 0 or kind == "address":
                    for value in values_of(fact):
                        rows.setdefault(value, []).append(at)
            for value, found in sorted(rows.items()):
                if len(found) >= _MIN_FAILED:
                    mask = np.zeros(len(self.facts), dtype=np.bool_)
                    mask[found] = True
                    yield kind, value, words.format(value), mask

    def _numbers(self) -> Iterable[tuple[str, str, str, Mask]]:
        """Sizes and ages, cut where a quarter, a half and three quarters of them lie."""
        import numpy as np

        def column(values: Sequence[float | None]) -> NDArray[np.float64]:
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

        sizes = column([fact.invite_bytes for fact in self.facts])
        known = sizes[~np.isnan(sizes)]
        for cut in np.unique(np.quantile(known, (0.25, 0.5, 0.75))).tolist() if len(known) else ():
            yield "size", f"> {cut:.0f}", f"larger than {cut:.0f} bytes", (sizes > cut) & self.whole
        for kind, ages, where in (
            ("connection", column([fact.connection_age_s for fact in self.facts]), "sent on over"),
            ("source-connection", column([fact.source_age_s for fact in self.facts]), "that came over"),
        ):
            known = ages[~np.isnan(ages)]
            if len(known):
                yield kind, "new", f"{where} a new connection", (ages < _NEW_CONNECTION_S) & self.whole
                cut = float(np.median(known))
                yield kind, "old", f"{where} a connection older than {cut:.0f} s", (ages > cut) & self.whole

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
        from scipy import stats

        found: list[_Candidate] = []
        for kind, name, words, mask in self._columns:
            failed, total, failed_others, others = self._counts(mask, left, kind)
            if min(total, others) < _MIN_FAILED or total + others < _MIN_CALLS or not failed + failed_others:
                continue
            # What would be no finding anyway needs no test. It counts as one in the correction all the same.
            good = failed * others < failed_others * total
            if good and kind in _ONE_OF_SEVERAL:
                found.append(_Candidate(kind, name, words, mask, 1.0))
                continue
            if good:
                name, words, mask = f"not {name}", _without(words), left & self.whole & ~mask
                failed, failed_others, total, others = failed_others, failed, others, total
            p = 1.0
            if _is_effect(failed, total, failed_others, others):
                table = [[failed, total - failed], [failed_others, others - failed_others]]
                p = float(stats.fisher_exact(table)[1])
            found.append(_Candidate(kind, name, words, mask & left, p))
        return found

    def windows(self, left: Mask) -> list[_Candidate]:
        """The window of time with the most failures beyond the rest's rate."""
        import numpy as np
        from scipy import stats

        rows = np.flatnonzero(left & self.whole)
        if len(rows) < 2 * _MIN_CALLS or not self.failed[rows].any():
            return []
        edges = np.unique(np.linspace(0, len(rows), min(_BINS, len(rows) // 4) + 1).astype(np.int64))
        sums = np.concatenate(([0], np.cumsum(self.failed[rows])))[edges]
        first, last = np.triu_indices(len(edges), 1)
        total = (edges[last] - edges[first]).astype(np.float64)
        failed = (sums[last] - sums[first]).astype(np.float64)
        others, failed_others = len(rows) - total, sums[-1] - failed
        gain = _likelihood(failed, total) + _likelihood(failed_others, others)
        gain[(failed * others <= failed_others * total) | (others < _MIN_CALLS) | (total < _MIN_FAILED)] = -np.inf
        best = int(np.argmax(gain))
        if not np.isfinite(gain[best]):
            return []
        low, high = self._trim(rows, int(edges[first[best]]), int(edges[last[best]]))
        rate = float(self.failed[rows[low:high]].mean())
        # A few good calls at an end of the whole time do not say that it was over: they are likely by chance.
        if (1 - rate) ** (len(rows) - high) > _OPEN_END:
            high = len(rows)
        if (1 - rate) ** low > _OPEN_END:
            low = 0
        inside = rows[low:high]
        counts = int(self.failed[inside].sum()), len(inside)
        rest = int(self.failed[rows].sum()) - counts[0], len(rows) - counts[1]
        p = float(stats.fisher_exact([[counts[0], counts[1] - counts[0]], [rest[0], rest[1] - rest[0]]])[1])
        start, end = float(self.times[inside[0]]), float(self.times[inside[-1]])
        since = None if low == 0 else start
        until = None if high == len(rows) else end
        mask = (self.times >= start) & (self.times <= end)
        p = min(p * len(gain), 1.0)
        return [_Candidate("time", f"{start:.0f}-{end:.0f}", _when(since, until), mask & left, p, (), since, until)]

    def _trim(self, rows: NDArray[np.int64], low: int, high: int) -> tuple[int, int]:
        """The window without the good calls at its ends."""
        while low < high - 1 and not self.failed[rows[low]]:
            low += 1
        while high > low + 1 and not self.failed[rows[high - 1]]:
            high -= 1
        return low, high

    def matters(self, candidate: _Candidate, left: Mask) -> bool:
        """Whether a difference is large enough to speak of."""
        return _is_effect(*self._counts(candidate.mask, left, candidate.kind))

    def finding(self, candidate: _Candidate, left: Mask) -> Finding:
        """A candidate with its evidence."""
        import numpy as np

        failed, total, failed_others, others = self._counts(candidate.mask, left, candidate.kind)
        rows = [self.facts[at] for at in np.flatnonzero(candidate.mask & left & self.failed).tolist()]
        answers = Counter(_answer(fact) for fact in rows)
        causes = Counter(fact.cause or "unknown" for fact in rows)
        other_rate = failed_others / others if others else 0.0
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
            candidate.since,
            candidate.until,
        )


def _is_effect(failed: int, total: int, failed_others: int, others: int) -> bool:
    """Whether a difference is large enough to speak of."""
    if failed < _MIN_FAILED or not total or not others:
        return False
    rate, other_rate = failed / total, failed_others / others
    difference = rate - other_rate
    return difference >= _LARGE_DIFFERENCE or (difference >= _MIN_DIFFERENCE and rate >= _MIN_RATIO * other_rate)


def _likelihood(failed: Any, total: Any) -> Any:
    """The logarithm of the likelihood of counts at their own rate."""
    from scipy import special

    return special.xlogy(failed, failed) + special.xlogy(total - failed, total - failed) - special.xlogy(total, total)


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


def _without(words: str) -> str:
    for with_, without in (
        ("with ", "without "),
        ("that offer ", "that do not offer "),
        ("whose ", "other than those whose "),
    ):
        if words.startswith(with_):
            return without + words.removeprefix(with_)
    return f"other than those {words}"


def _answer(fact: AttemptFacts) -> str:
    if fact.outcome in ("timeout", "hop") and fact.status in (408, None):
        return "no answer in time"
    return f"{fact.status} {fact.reason or ''}".strip() if fact.status else fact.outcome or "unknown"


def _when(since: float | None, until: float | None) -> str:
    if since is None and until is None:
        return "at any time"
    if until is None:
        return f"since {_clock(since)}"
    return f"until {_clock(until)}" if since is None else f"between {_clock(since)} and {_clock(until)}"


def _clock(moment: float | None) -> str:
    return datetime.fromtimestamp(moment or 0.0, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "0 %"
