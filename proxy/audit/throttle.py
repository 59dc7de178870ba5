"""Keeps a log readable under a flood: one line per subject and interval, with the number of those left out."""

from __future__ import annotations

from typing import Final

__all__ = ["Throttle"]

_MAX_KEYS: Final = 1024


class Throttle:
    """Says which of many equal lines may be written.

    Args:
        interval_s: the time for which a subject stays quiet after it was let through.
    """

    __slots__ = ("_interval_s", "_seen")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._seen: dict[object, tuple[float, int]] = {}

    def allow(self, key: object, now: float) -> int | None:
        """None when a line about `key` must not be written now, else how many were left out since the last one."""
        last = self._seen.get(key)
        if last is not None and now - last[0] < self._interval_s:
            self._seen[key] = (last[0], last[1] + 1)
            return None
        if last is None and len(self._seen) >= _MAX_KEYS:
            # Memory stays bounded when the subjects are chosen by strangers: the oldest subject is forgotten.
            del self._seen[next(iter(self._seen))]
        self._seen.pop(key, None)
        self._seen[key] = (now, 0)
        return 0 if last is None else last[1]
