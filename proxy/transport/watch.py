"""Notices that files were changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

__all__ = ["FileWatch"]

_Stamp = tuple[tuple[int, int, int], ...]


class FileWatch:
    """Looks at files every now and then, since no way of being told works on every file system and for links.

    Args:
        paths: the files, or a function that gives them each time.
        interval_s: how often to look; 0 for never.
        on_change: called after any of them was changed or replaced. What it raises goes to the event loop's handler.
    """

    def __init__(
        self, paths: Sequence[Path] | Callable[[], Sequence[Path]], interval_s: float, on_change: Callable[[], None]
    ) -> None:
        self._paths = paths if callable(paths) else partial(tuple, paths)
        self._interval_s = interval_s
        self._on_change = on_change
        self._seen: _Stamp = ()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        if self._interval_s and self._paths():
            self._seen = self._stamp()
            self._arm()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._look)

    def _look(self) -> None:
        self._arm()
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            self._on_change()

    def _stamp(self) -> _Stamp:
        found: list[tuple[int, int, int]] = []
        for path in self._paths():
            try:
                stat = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)
