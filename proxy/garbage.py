"""When the garbage collector runs: seldom, and only where it may find something."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Final

__all__ = ["GarbageCollection"]

_INTERVAL_S: Final = 60.0
_FEW: Final = 50_000
_PER_ENTRY: Final = 200


class GarbageCollection:
    """Collects circles of objects that reference counts do not free, without stopping calls for it.

    Messages are freed by their reference counts, and ended calls take their own circles apart. What is left is rare,
    but Python's own schedule would look at every call in progress again and again for it: half of the CPU time of a
    call went there, in pauses of up to a second. So a collection runs at most once a minute, and only while there is
    little to look at, or more than the calls in progress explain. What exists at the start lives as long as the
    process and is never looked at (`gc.freeze`).

    Args:
        entries: tells how many calls, legs and transactions there are; those of ended calls live for 32 s.

    Attributes:
        collections: how many there were.
        longest_s: the longest of them.
    """

    __slots__ = ("_entries", "_most", "_timer", "collections", "longest_s")

    def __init__(self, entries: Callable[[], int]) -> None:
        self._entries = entries
        self._most = 0
        self._timer: asyncio.TimerHandle | None = None
        self.collections = 0
        self.longest_s = 0.0

    def start(self) -> None:
        """Take over from Python's schedule, inside of an event loop."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._wait()

    def stop(self) -> None:
        """Give back to Python's schedule."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.enable()
            gc.unfreeze()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._tick)

    def _tick(self) -> None:
        self._most = max(self._entries(), self._most // 2)
        objects = gc.get_count()[0]  # made since the last collection, less those that are gone
        if objects < _FEW or objects > 2 * _FEW + self._most * _PER_ENTRY:
            began = time.perf_counter()
            gc.collect()
            self.collections += 1
            self.longest_s = max(self.longest_s, time.perf_counter() - began)
        self._wait()
