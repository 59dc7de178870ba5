"""What counts as a difference: how many calls it takes, and how large and how sure it has to be."""

from __future__ import annotations

from typing import Final

__all__ = ["ALPHA", "MIN_CALLS", "MIN_FAILED", "is_effect", "p_value"]

ALPHA: Final = 0.001
"""Told is what stays below this after correction."""
MIN_CALLS: Final = 20
MIN_FAILED: Final = 5

_MIN_DIFFERENCE: Final = 0.10
_MIN_RATIO: Final = 2.0
_LARGE_DIFFERENCE: Final = 0.25
"""Enough without regard to the ratio: where half of all calls fail anyway, nothing can fail twice as often."""


def is_effect(failed: int, total: int, failed_others: int, others: int) -> bool:
    """Whether a difference is large enough to speak of."""
    if failed < MIN_FAILED or not total or not others:
        return False
    rate, other_rate = failed / total, failed_others / others
    difference = rate - other_rate
    return difference >= _LARGE_DIFFERENCE or (difference >= _MIN_DIFFERENCE and rate >= _MIN_RATIO * other_rate)


def p_value(failed: int, total: int, failed_others: int, others: int) -> float:
    """That of Fisher's exact test, two-sided: right for small counts."""
    from scipy import stats

    return float(stats.fisher_exact([[failed, total - failed], [failed_others, others - failed_others]])[1])
