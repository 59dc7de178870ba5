"""What others may use up: token buckets per source and for all, and when new calls would harm those in progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Gate", "Limits", "SourceBuckets"]

_BURST_S: Final = 2.0
_MAX_SOURCES: Final = 4096
_LAG_HOLD_S: Final = 1.0
_REPORT_INTERVAL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of what one source, and all together, may ask for; 0 turns a limit off.

    A rate lets through two seconds' worth at once. Requests in the dialog of a call, and copies of a request that is
    being answered, count for none of them: calls in progress come first.

    Attributes:
        source_invites_per_s, invites_per_s: new calls of one source, and of all; those above it get 503.
        source_requests_per_s: requests outside of calls of one source; those above it are dropped.
        source_unknown_per_s, unknown_per_s: messages of a source that may not call, and of all such; those above it
            are dropped unread.
        max_transactions: transactions at a time above which a new call gets 503, and other requests are dropped.
        max_lag_s: how late timers may fire; above it new calls get 503 until a second has passed in time.
        max_message_bytes, max_headers: of one message; a larger one gets 513.
    """

    source_invites_per_s: float = 500.0
    invites_per_s: float = 1000.0
    source_requests_per_s: float = 5000.0
    source_unknown_per_s: float = 20.0
    unknown_per_s: float = 200.0
    max_transactions: int = 200_000
    max_lag_s: float = 1.0
    max_message_bytes: int = 65_535
    max_headers: int = 256


class SourceBuckets:
    """One token bucket per source and one for all.

    A source whose bucket is full again is forgotten; of sources beyond the capacity the longest unseen is.
    """

    __slots__ = ("_all", "_burst", "_capacity", "_rate", "_sources", "_total")

    def __init__(self, per_source_s: float, total_s: float = 0.0, capacity: int = _MAX_SOURCES) -> None:
        self._rate = per_source_s
        self._burst = max(per_source_s * _BURST_S, 1.0)
        self._total = total_s
        self._capacity = capacity
        self._sources: dict[str, tuple[float, float]] = {}
        self._all = (max(total_s * _BURST_S, 1.0), 0.0)

    def __len__(self) -> int:
        return len(self._sources)

    def take(self, source: str, now: float) -> bool:
        """Take a token for a source; False when it, or all together, have used up theirs."""
        if self._rate and not self._take_own(source, now):
            return False
        if not self._total:
            return True
        tokens, last = self._all
        tokens = min(tokens + max(now - last, 0.0) * self._total, max(self._total * _BURST_S, 1.0))
        self._all = (tokens - 1.0 if tokens >= 1.0 else tokens, now)
        return tokens >= 1.0

    def _take_own(self, source: str, now: float) -> bool:
        sources = self._sources
        found = sources.pop(source, None)
        if found is None:
            self._forget(now)
            sources[source] = (self._burst - 1.0, now)
            return True
        tokens, last = found
        tokens = min(tokens + max(now - last, 0.0) * self._rate, self._burst)
        sources[source] = (tokens - 1.0 if tokens >= 1.0 else tokens, now)
        return tokens >= 1.0

    def _forget(self, now: float) -> None:
        """Make room for a source: the longest unseen ones stand first."""
        sources = self._sources
        while sources:
            oldest = next(iter(sources))
            if not self._is_full(sources[oldest], now) and len(sources) < self._capacity:
                return
            del sources[oldest]

    def _is_full(self, entry: tuple[float, float], now: float) -> bool:
        return entry[0] + (now - entry[1]) * self._rate >= self._burst

    def purge(self, now: float) -> None:
        """Forget every source whose bucket is full again."""
        for source in [source for source, entry in self._sources.items() if self._is_full(entry, now)]:
            del self._sources[source]


class Gate:
    """Decides what may come in, and counts what may not.

    Attributes:
        counts: how often each limit was reached, by its name.
    """

    __slots__ = ("_invites", "_lag_until", "_late", "_limits", "_reported", "_requests", "_unknown", "counts")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._invites = SourceBuckets(limits.source_invites_per_s, limits.invites_per_s)
        self._requests = SourceBuckets(limits.source_requests_per_s)
        self._unknown = SourceBuckets(limits.source_unknown_per_s, limits.unknown_per_s)
        self._late = False
        self._lag_until = 0.0
        self._reported: dict[str, tuple[float, int]] = {}
        self.counts: dict[str, int] = {}

    def reconfigure(self, limits: Limits) -> None:
        """Use other limits from now on; those that change begin with full buckets."""
        if limits == self._limits:
            return
        fresh = Gate(limits)
        self._limits = limits
        self._invites, self._requests, self._unknown = fresh._invites, fresh._requests, fresh._unknown

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._invites) + len(self._requests) + len(self._unknown)

    def purge(self, now: float) -> None:
        """Forget sources that have used nothing for a while."""
        for buckets in (self._invites, self._requests, self._unknown):
            buckets.purge(now)

    def unknown(self, source: str, now: float) -> bool:
        """Whether a message of a source that may not call is worth reading."""
        return self._unknown.take(source, now)

    def request(self, source: str, transactions: int, now: float) -> str:
        """The limit that a request outside of calls runs into, or ""."""
        if not self._requests.take(source, now):
            return "source_requests_per_s"
        return "max_transactions" if 0 < self._limits.max_transactions <= transactions else ""

    def invite(self, source: str, transactions: int, now: float) -> str:
        """The limit that a new call runs into, or ""."""
        if not self._invites.take(source, now):
            return "invites_per_s"
        if now < self._lag_until:
            return "max_lag_s"
        return "max_transactions" if 0 < self._limits.max_transactions <= transactions else ""

    def lag(self, lag_s: float, now: float) -> None:
        """Timers fired so late. Once may be a pause of the machine; twice in a row is too much work."""
        late = 0.0 < self._limits.max_lag_s < lag_s
        if late and self._late:
            self._lag_until = now + _LAG_HOLD_S
        self._late = late

    def reached(self, limit: str, now: float) -> int:
        """Count that a limit was reached. Returns how often it was since the last report, 0 when that was just now."""
        self.counts[limit] = self.counts.get(limit, 0) + 1
        last, count = self._reported.get(limit, (float("-inf"), 0))
        if now - last < _REPORT_INTERVAL_S:
            self._reported[limit] = (last, count + 1)
            return 0
        self._reported[limit] = (now, 0)
        return count + 1
