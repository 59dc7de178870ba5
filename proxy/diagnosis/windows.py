"""Windows of time in which more attempts fail than at other times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from proxy.diagnosis.effects import MIN_CALLS, MIN_FAILED, p_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Span", "Window", "best_window", "clock", "when"]

_BINS: Final = 96
_ROUNDS: Final = 3
_OPEN_END: Final = 0.01
_REACH: Final = 4.6
"""In units of the log-likelihood: e to the power of 4.6 is 100."""

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Window:
    """A window of time among some attempts.

    Attributes:
        inside: the times of its first and its last attempt, Unix seconds.
        since, until: the same; None for an end that is open.
        began, ended: from when to when such an end may lie: all that is at least a hundredth as likely.
        p: that of Fisher's exact test, multiplied by the number of all windows that there are.
    """

    inside: Span
    since: float | None
    until: float | None
    began: Span | None
    ended: Span | None
    p: float

    @property
    def words(self) -> str:
        """When it was."""
        return when(self.since, self.until)


def best_window(failed: NDArray[np.bool_], times: NDArray[np.float64]) -> Window | None:
    """The window among some attempts, in order of time, that explains their failures best.

    Looked for among 96 steps at first, then from call to call around the best. The p-value is that of Fisher's
    exact test, multiplied by the number of all windows that there are.
    """
    import numpy as np

    size = len(failed)
    if size < 2 * MIN_CALLS or not failed.any():
        return None
    sums = np.concatenate(([0], np.cumsum(failed))).astype(np.float64)
    edges = np.unique(np.linspace(0, size, min(_BINS, size // 4) + 1).astype(np.int64))
    first, last = np.triu_indices(len(edges), 1)
    gain = _gain(sums, edges[first], edges[last])
    best = int(np.argmax(gain))
    if not np.isfinite(gain[best]):
        return None
    low, high = int(edges[first[best]]), int(edges[last[best]])
    step = size // (len(edges) - 1) + 1
    for _ in range(_ROUNDS):
        lows = np.arange(max(low - step, 0), min(low + step, high - 1) + 1)
        low = int(lows[int(np.argmax(_gain(sums, lows, high)))])
        highs = np.arange(max(high - step, low + 1), min(high + step, size) + 1)
        high = int(highs[int(np.argmax(_gain(sums, low, highs)))])
    began, ended = _reach(times, sums, low, high)
    rate = float(sums[high] - sums[low]) / (high - low)
    # A few good calls at an end of the whole time do not say that it was over: they are likely by chance.
    if (1 - rate) ** (size - high) > _OPEN_END:
        high = size
    if (1 - rate) ** low > _OPEN_END:
        low = 0
    bad, total = int(sums[high] - sums[low]), high - low
    rest = int(sums[-1]) - bad
    p = min(p_value(bad, total, rest, size - total) * size * (size + 1) / 2, 1.0)
    since = None if low == 0 else float(times[low])
    until = None if high == size else float(times[high - 1])
    inside = float(times[low]), float(times[high - 1])
    return Window(inside, since, until, None if low == 0 else began, None if high == size else ended, p)


def _reach(times: NDArray[np.float64], sums: NDArray[np.float64], low: int, high: int) -> tuple[Span, Span]:
    """When a window may have begun, and when it may have ended: whatever is at least a hundredth as likely."""
    import numpy as np

    size = len(times)
    enough = float(_gain(sums, low, high)) - _REACH
    lows, highs = np.arange(high), np.arange(low + 1, size + 1)
    lows = lows[_gain(sums, lows, high) >= enough]
    highs = highs[_gain(sums, low, highs) >= enough]
    # Whatever it was began after the call before the first one, and ended before the one after the last one.
    return (
        (float(times[max(int(lows[0]) - 1, 0)]), float(times[int(lows[-1])])),
        (float(times[int(highs[0]) - 1]), float(times[min(int(highs[-1]), size - 1)])),
    )


def _gain(sums: NDArray[np.float64], low: Any, high: Any) -> Any:
    """How much better windows explain the failures than one rate for all; minus infinity for what is no window.

    `sums[n]` are the failures among the first n calls; a window goes from the call `low` to before `high`.
    """
    import numpy as np

    total = np.asarray(high - low, dtype=np.float64)
    failed = sums[high] - sums[low]
    others, failed_others = len(sums) - 1 - total, sums[-1] - failed
    gain = _likelihood(failed, total) + _likelihood(failed_others, others)
    return np.where(
        (failed * others <= failed_others * total) | (others < MIN_CALLS) | (total < MIN_FAILED), -np.inf, gain
    )


def _likelihood(failed: Any, total: Any) -> Any:
    """The logarithm of the likelihood of counts at their own rate."""
    from scipy import special

    return special.xlogy(failed, failed) + special.xlogy(total - failed, total - failed) - special.xlogy(total, total)


def when(since: float | None, until: float | None) -> str:
    if since is None and until is None:
        return "at any time"
    if until is None:
        return f"since {clock(since)}"
    return f"until {clock(until)}" if since is None else f"between {clock(since)} and {clock(until)}"


def clock(moment: float | None) -> str:
    return datetime.fromtimestamp(moment or 0.0, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
