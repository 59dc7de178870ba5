"""What changed when: neighbours that begin to send something else.

For each value (an address, a User-Agent, a header of the answers) the calls are a row of yes and no in order of time.
The split that explains the row best is tested by Fisher's exact test, its p-value multiplied by the number of splits
that were tried, and all of them corrected by Benjamini and Hochberg. Told is only what went from nearly never to often,
or the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from proxy.diagnosis.effects import ALPHA, p_value
from proxy.diagnosis.facts import AttemptFacts
from proxy.diagnosis.features import describe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Change", "changes"]

_MIN_SIDE: Final = 20
_RARE: Final = 0.05
_OFTEN: Final = 0.30
_NEAR_S: Final = 120.0
_MOST: Final = 10
_MOST_VALUES: Final = 400
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Change:
    """Something that began or ended.

    Attributes:
        time: when, Unix seconds. side: `caller` or `target`.
        words: what, in words: several things that changed together.
        before, total_before, after, total_after: in how many of all attempts the first of them was seen.
        p: corrected.
    """

    time: float
    side: str
    words: tuple[str, ...]
    before: int
    total_before: int
    after: int
    total_after: int
    p: float

    @property
    def sentence(self) -> str:
        """The change in plain words."""
        whose = "calls" if self.side == "caller" else "answers"
        shown = list(self.words[:_SHOWN])
        if len(self.words) > _SHOWN:
            shown.append(f"{len(self.words) - _SHOWN} more")
        when = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        counts = f"{self.before} of {self.total_before} before, {self.after} of {self.total_after} since"
        return f"Since {when} {whose} {', and '.join(shown)} ({counts})"


@dataclass(frozen=True, slots=True)
class _Split:
    time: float
    side: str
    words: str
    before: int
    total_before: int
    after: int
    total_after: int
    p: float


def changes(facts: Sequence[AttemptFacts]) -> list[Change]:
    """Changes of the neighbours, in order of time. `facts` in order of time, whatever their outcome."""
    from scipy import stats

    splits: list[_Split] = []
    for side, rows, columns in _sides(facts):
        for values_of, words, words_gone in columns:
            splits.extend(_splits(rows, side, values_of, words, words_gone))
    if not splits:
        return []
    corrected = stats.false_discovery_control([split.p for split in splits])
    sure = [split for split, p in zip(splits, corrected, strict=True) if p < ALPHA]
    return _together(sure)[:_MOST]


_Column = tuple[Callable[[AttemptFacts], Iterable[str]], Callable[[str], str], Callable[[str], str]]


def _sides(facts: Sequence[AttemptFacts]) -> Iterator[tuple[str, list[AttemptFacts], list[_Column]]]:
    callers = [fact for fact in facts if fact.number == 1 and fact.hop == 0]
    yield (
        "caller",
        callers,
        [
            (
                lambda fact: [fact.source] if fact.source else [],
                lambda v: f"come from {v}",
                lambda v: f"come from {v} no more",
            ),
            (
                lambda fact: [fact.user_agent or "none"],
                lambda v: f"have the User-Agent {v}",
                lambda v: f"have the User-Agent {v} no more",
            ),
            (
                lambda fact: fact.shape,
                lambda v: f"are INVITEs {describe(v)}",
                lambda v: f"are no INVITEs {describe(v)}",
            ),
        ],
    )
    reached = [fact for fact in facts if fact.hop == 0 and fact.status and fact.outcome in ("answered", "status")]
    yield (
        "target",
        reached,
        [
            (
                lambda fact: [fact.address] if fact.address else [],
                lambda v: f"come from {v}",
                lambda v: f"come from {v} no more",
            )
        ],
    )
    answered = [fact for fact in reached if fact.outcome == "answered" and fact.answer]
    yield (
        "target",
        answered,
        [(lambda fact: fact.answer, lambda v: f"come {_words(v)}", lambda v: f"come {_words(v, gone=True)}")],
    )


def _words(feature: str, *, gone: bool = False) -> str:
    """A feature of an answer, there or gone."""
    words = describe(feature)
    if not gone:
        return words
    return words.replace("with ", "without ", 1) if words.startswith("with ") else f"no more {words}"


def _splits(
    rows: list[AttemptFacts],
    side: str,
    values_of: Callable[[AttemptFacts], Iterable[str]],
    words: Callable[[str], str],
    words_gone: Callable[[str], str],
) -> Iterator[_Split]:
    """The best split of each value's row."""
    import numpy as np

    if len(rows) < 2 * _MIN_SIDE:
        return
    found: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        for value in values_of(row):
            found.setdefault(value, []).append(at)
    for value, places in sorted(found.items())[:_MOST_VALUES]:
        if _MIN_SIDE // 2 <= len(places) < len(rows):
            seen = np.zeros(len(rows), dtype=np.int64)
            seen[places] = 1
            split = _best(seen)
            if split is not None:
                at, before, after, p = split
                text = (words if after * at > before * (len(rows) - at) else words_gone)(value)
                yield _Split(rows[at].time, side, text, before, at, after, len(rows) - at, p)


def _best(seen: NDArray[np.int64]) -> tuple[int, int, int, float] | None:
    """The split with the greatest likelihood: its place, how many before and from it on, and the p-value."""
    import numpy as np
    from scipy import special

    size = len(seen)
    places = np.arange(_MIN_SIDE, size - _MIN_SIDE + 1)
    if not len(places):
        return None
    sums = np.concatenate(([0], np.cumsum(seen)))
    before, whole = sums[places].astype(np.float64), float(sums[-1])
    gain = np.zeros(len(places))
    for hits, total in ((before, places), (whole - before, size - places)):
        gain += special.xlogy(hits, hits) + special.xlogy(total - hits, total - hits) - special.xlogy(total, total)
    at = int(places[int(np.argmax(gain))])
    first = int(sums[at])
    last = int(whole) - first
    if not _jumps(first / at, last / (size - at)):
        return at, first, last, 1.0
    p = p_value(first, at, last, size - at)
    return at, first, last, min(p * len(places), 1.0)


def _jumps(before: float, after: float) -> bool:
    """Whether a share went from nearly never to often, or back."""
    low, high = sorted((before, after))
    return low <= _RARE and high >= _OFTEN


def _together(splits: list[_Split]) -> list[Change]:
    """Splits of one side at nearly the same moment are one change."""
    found: list[Change] = []
    groups: list[list[_Split]] = []
    for split in sorted(splits, key=lambda item: (item.side, item.time)):
        if groups and groups[-1][0].side == split.side and split.time - groups[-1][0].time <= _NEAR_S:
            groups[-1].append(split)
        else:
            groups.append([split])
    for group in groups:
        first = min(group, key=lambda item: (item.p, item.words))
        words = tuple(dict.fromkeys([first.words, *[item.words for item in group]]))
        counts = (first.before, first.total_before, first.after, first.total_after)
        found.append(Change(first.time, first.side, words, *counts, first.p))
    return sorted(found, key=lambda change: change.time)
