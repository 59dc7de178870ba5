"""Conditions, compiled: what `when` and the tests of values are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from proxy.rewrite.engine import Test

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = ["Condition", "all_of", "any_of", "number_test"]


class Condition:
    """One compiled condition.

    Attributes:
        test: whether it holds.
        needs: the header keys of which one must be present for it to hold; None when that can't be told.
        label: what it asks, for people.
    """

    __slots__ = ("label", "needs", "test")

    def __init__(
        self, test: Test, needs: frozenset[str] | None = None, label: Callable[[], str] = lambda: "a condition"
    ) -> None:
        self.test = test
        self.needs = needs
        self.label = label

    def named(self, label: Callable[[], str]) -> Condition:
        """The same condition with another label."""
        return Condition(self.test, self.needs, label)


def all_of(tests: Iterable[Test]) -> Test:
    """A test that holds when all do."""
    every = tuple(tests)
    if len(every) == 1:
        return every[0]

    def holds(draft: Draft, context: Context) -> bool:
        return all(test(draft, context) for test in every)

    return holds


def any_of(tests: Iterable[Test]) -> Test:
    """A test that holds when one does."""
    every = tuple(tests)

    def holds(draft: Draft, context: Context) -> bool:
        return any(test(draft, context) for test in every)

    return holds


def number_test(ranges: list[tuple[int, int]], number: Callable[[Draft, Context], int]) -> Test:
    """A test whether a number is in one of the ranges, ends included."""
    if len(ranges) == 1:
        low, high = ranges[0]
        return lambda draft, context: low <= number(draft, context) <= high
    return any_of([number_test([one], number) for one in ranges])
