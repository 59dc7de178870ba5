"""What the pages are told of a running process and of the call store."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Final

from proxy.admin.counts import Counts
from proxy.admin.view import StoreUnavailable, WorkerState
from proxy.b2bua.stack import Stack
from proxy.runtime import Runtime
from proxy.storage.queries import CallFilter, CallRow, StoreReader
from proxy.storage.schema import WrongVersion
from proxy.storage.sink import StoreSink

__all__ = ["LoopWatch", "RuntimeView", "StoreView"]

_TICK_S: Final = 0.25
_LAG_WINDOW_S: Final = 60.0
_DEAD_S: Final = 5.0
_DIAGNOSED: Final = 20_000
_DIAGNOSIS_S: Final = 30.0


class LoopWatch:
    """Measures how late the event loop is, by a timer four times a second.

    Args:
        on_tick: called each time.
    """

    def __init__(self, on_tick: Callable[[], None] | None = None) -> None:
        self._on_tick = on_tick
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = 0.0
        self._last = 0.0
        self._slots: list[tuple[int, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the event loop that is to be watched."""
        self._loop = asyncio.get_running_loop()
        self._arm()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        assert self._loop is not None
        self._last = time.monotonic()
        self._due = self._last + _TICK_S
        self._timer = self._loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        # libuv counts in whole milliseconds.
        late, second = max(now - self._due - 0.001, 0.0), int(now)
        slots = [slot for slot in self._slots if slot[0] > now - _LAG_WINDOW_S]
        if slots and slots[-1][0] == second:
            slots[-1] = (second, max(slots[-1][1], late))
        else:
            slots.append((second, late))
        self._slots = slots
        self._arm()
        if self._on_tick is not None:
            self._on_tick()

    def lag_s(self) -> float:
        """The longest delay within the last minute; one that goes on counts too."""
        waiting = time.monotonic() - self._due if self._due else 0.0
        return max([waiting - _TICK_S, 0.0, *[late for _, late in self._slots]])

    def alive(self) -> bool:
        """Whether the loop has run within the last five seconds."""
        return bool(self._last) and time.monotonic() - self._last < _DEAD_S


class RuntimeView:
    """The running process, for other threads: sizes and copies only."""

    def __init__(self, runtime: Runtime, watch: LoopWatch, counts: Counts, store: StoreSink | None) -> None:
        self._runtime = runtime
        self._watch = watch
        self._counts = counts
        self._store = store

    def counts(self) -> Counts:
        """What its events were."""
        return self._counts

    def workers(self) -> Sequence[WorkerState]:
        """It has none."""
        return ()

    def usage(self) -> None:
        """Whoever asks is in the same process."""

    def calls_in_progress(self) -> int:
        """Calls that have begun and not ended."""
        return self._runtime.stack.calls_in_progress

    def tables(self) -> Mapping[str, int]:
        """The sizes of all tables."""
        return {**self._runtime.stack.tables(), **self._runtime.transports.counters()}

    def counters(self) -> Mapping[str, int]:
        """What was dropped, and how often limits were reached, since the start."""
        return self._runtime.stack.counters()

    def targets(self) -> Mapping[str, bool]:
        """Whether each target is up by its pings."""
        stack = self._runtime.stack
        return stack.target_states() if isinstance(stack, Stack) else {}

    def rules(self) -> Mapping[str, str]:
        """The version of each rule set."""
        stack = self._runtime.stack
        return {name: one.version for name, one in stack.config.rules.items()} if isinstance(stack, Stack) else {}

    def listeners(self) -> Sequence[str]:
        """Where calls are taken."""
        return [str(listener) for listener in self._runtime.listeners]

    def draining(self) -> bool:
        """Whether no new calls are taken any more."""
        return self._runtime.draining

    def lag_s(self) -> float:
        """The longest time that the event loop was late within the last minute."""
        return self._watch.lag_s()

    def alive(self) -> bool:
        """Whether the event loop runs."""
        return self._watch.alive()

    def now(self) -> float:
        """The time as events have it."""
        return time.monotonic()

    def store_state(self) -> Mapping[str, Any] | None:
        """How the writing of the call store goes."""
        return None if self._store is None else asdict(self._store.state())


class StoreView:
    """The call store for the web pages: a reader that is opened when it is needed, and again after a failure."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._reader: StoreReader | None = None
        self._reports: dict[int, tuple[float, str]] = {}

    def close(self) -> None:
        """Close the reader."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _read(self, query: Callable[[StoreReader], Any]) -> Any:
        with self._lock:
            try:
                if self._reader is None:
                    self._reader = StoreReader(self._path)
                return query(self._reader)
            except (OSError, sqlite3.Error, WrongVersion, ValueError) as error:
                if self._reader is not None:
                    self._reader.close()
                    self._reader = None
                raise StoreUnavailable(str(error)) from None

    def calls(self, wanted: Mapping[str, Any], limit: int, before: int | None) -> list[Mapping[str, Any]]:
        """Calls, the newest first."""
        rows = self._read(lambda reader: reader.calls(CallFilter(**wanted), limit, before))
        return [_row(row) for row in rows]

    def search(self, text: str, limit: int) -> list[Mapping[str, Any]]:
        """Calls by id, Call-ID, CallSid or whole number."""
        return [_row(row) for row in self._read(lambda reader: reader.find(text, limit))]

    def call(self, key: int) -> Mapping[str, Any] | None:
        """One call with its attempts, rules and timeline."""

        def query(reader: StoreReader) -> Mapping[str, Any] | None:
            row = reader.call(key)
            if row is None:
                return None
            return {
                **_row(row),
                "attempts_made": [asdict(one) for one in reader.attempts(key)],
                "rule_hits": list(reader.rule_hits_of(key)),
                "timeline": reader.timeline(key),
            }

        found: Mapping[str, Any] | None = self._read(query)
        return found

    def overview(self, since: float, step_s: float) -> Mapping[str, Any]:
        """Counts since a moment."""

        def query(reader: StoreReader) -> Mapping[str, Any]:
            return {
                "totals": asdict(reader.totals(since)),
                "calls": [asdict(point) for point in reader.over_time("call", since, None, step_s)],
                "causes": reader.causes(since),
                "targets": [asdict(one) for one in reader.targets(since)],
                "rule_hits": reader.rule_hits(since),
            }

        found: Mapping[str, Any] = self._read(query)
        return found

    def diagnosis(self, since: float, until: float | None) -> str:
        """The failure report of at most 20,000 attempts; one that was made a moment ago is given again."""
        from proxy.diagnosis.report import StatisticsMissing, diagnose, report_lines

        known = self._reports.get(int(since // 60))
        if until is None and known is not None and time.monotonic() - known[0] < _DIAGNOSIS_S:
            return known[1]
        facts = self._read(lambda reader: list(islice(reader.facts(since, until), _DIAGNOSED)))
        try:
            text = "\n".join(report_lines(diagnose(facts)))
        except StatisticsMissing as error:
            raise StoreUnavailable(str(error)) from None
        if len(facts) == _DIAGNOSED:
            text = f"The first {_DIAGNOSED} attempts of this time.\n\n{text}"
        if len(self._reports) > 16:
            self._reports.clear()
        self._reports[int(since // 60)] = (time.monotonic(), text)
        return text


def _row(row: CallRow) -> dict[str, Any]:
    return {**asdict(row), "started": row.started}
