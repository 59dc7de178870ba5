"""The sink that fills the call store: the work is done beside the calls, and the disk is waited for in a thread."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from proxy.audit.records import Event
from proxy.audit.redact import Redactor
from proxy.storage.fold import Fold
from proxy.storage.schema import open_writer
from proxy.storage.writer import StoreSettings, StoreWriter

__all__ = ["StoreSettings", "StoreSink", "StoreState"]

_BATCH_S: Final = 0.5
_WAIT_S: Final = 0.05
_CLOSE_S: Final = 2.0
_EVENTS_A_TURN: Final = 16
_CALLS_A_TURN: Final = 2
_EVENT_BYTES: Final = 2048
_UNUSED: Final = frozenset(("dropped",))


@dataclass(frozen=True, slots=True)
class StoreState:
    """How the store is doing.

    Attributes:
        ok: whether the last write succeeded. error: why not, or "".
        waiting: events that wait to be written. written, dropped: events since the start.
    """

    ok: bool
    error: str
    waiting: int
    written: int
    dropped: int


class StoreSink:
    """Takes events and writes them to the store, a transaction about every 500 ms.

    `emit` puts an event into a queue and does nothing else. In turns of well below a millisecond the event loop masks
    and folds them (`proxy.storage.fold`): a thread would have to take the interpreter from it, and it would wait longer
    to get it back. Rows go to the writer's thread (`proxy.storage.writer`), which waits for the disk. Where that can't
    write, rows wait up to `max_queue_bytes`; events beyond it are dropped, counted, logged, and noted in the store once
    that works again. Without an event loop the same is done within `emit`, `flush` and `close`.

    Args:
        settings: how the store is kept.
        wall_offset: seconds to add to an event's time for the Unix time; None follows the system's clock.
        open_store: opens the file; tests may give their own.
    """

    def __init__(
        self,
        settings: StoreSettings,
        *,
        wall_offset: float | None = None,
        open_store: Callable[[Path], sqlite3.Connection] = open_writer,
    ) -> None:
        self.settings = settings
        self.dropped = 0
        simulated = wall_offset is not None
        self._writer = StoreWriter(settings, self._waiting, simulated=simulated, open_store=open_store)
        self._wall_offset = wall_offset
        self._events: deque[Event] = deque()
        self._fold: Fold | None = None
        self._taken = 0
        self._folded = 0
        self._dropped_told = 0
        self._last_time = 0.0
        self._offset = 0.0
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._log = structlog.get_logger(__name__)

    def emit(self, event: Event) -> None:
        """Take one event. Never raises and never waits."""
        if event.kind in _UNUSED or self._closed:
            return
        events = self._events
        events.append(event)
        if self._timer is None or not len(events) % _EVENTS_A_TURN:
            self._arm()

    def start(self) -> None:
        """Open the store now, so that what is wrong with it is in the log before the first call."""
        self._writer.start()

    def state(self) -> StoreState:
        """How the store is doing; from any thread."""
        error = self._writer.error
        waiting, dropped = self._waiting()
        return StoreState(not error, error, waiting, self._writer.written, dropped)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything that was emitted is in the file; for tests and simulations, from the thread that emits.
        False when time is over."""
        deadline = time.monotonic() + timeout_s
        self._writer.start()
        while True:
            self._finish()
            if self._handed_over and self._writer.idle:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._writer.hurry()
            self._writer.wait(min(left, _WAIT_S))

    def close(self) -> None:
        """Write what is left, for up to two seconds, and end."""
        if self._closed:
            return
        deadline = time.monotonic() + _CLOSE_S
        self._finish()
        while self._events and not self._writer.error and time.monotonic() < deadline:
            self._writer.wait(_WAIT_S)
            self._finish()
        self._closed = True
        for handle in (self._turn, self._timer):
            if handle is not None:
                handle.cancel()
        if not self._writer.close(max(deadline - time.monotonic(), 0.0)) or not self._handed_over:
            reason = self._writer.error or "there was no time to write everything"
            waiting, dropped = self._waiting()
            path = str(self.settings.path)
            self._log.error("store-failed", path=path, reason=reason, waiting=waiting, dropped=dropped)

    def _waiting(self) -> tuple[int, int]:
        """How many events wait to be written, and how many were dropped."""
        return self._taken + len(self._events) - self._writer.written, self.dropped

    # Turns

    def _arm(self) -> None:
        """Have events folded soon: a turn for so many of them, and a timer for what is left."""
        self._writer.start()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # before the event loop starts, or where there is none
            if not len(self._events) % _EVENTS_A_TURN:
                self._work()
                self._hand_over()
            return
        if self._timer is None:
            self._timer = loop.call_later(_BATCH_S, self._on_timer, loop)
        if len(self._events) >= _EVENTS_A_TURN and self._turn is None:
            self._turn = loop.call_soon(self._on_turn, loop)

    def _on_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turn = loop.call_soon(self._on_turn, loop) if self._work() else None

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._turn is None:
            self._on_turn(loop)
        self._hand_over()
        waits = bool(self._events) or (self._fold is not None and self._fold.waiting)
        self._timer = loop.call_later(_BATCH_S, self._on_timer, loop) if waits else None

    def _finish(self) -> None:
        """Fold all events, and hand over all that is known of calls."""
        while self._work():
            pass
        if self._fold is not None:
            self._fold.settle_all()
        self._hand_over()

    def _work(self) -> bool:
        """Fold some events and settle some calls; True when there is more to do."""
        events = self._events
        full = self._writer.backlog > self.settings.max_queue_bytes
        fold = self._fold
        if fold is None:
            key = self._writer.key
            if key is None:
                while len(events) * _EVENT_BYTES > self.settings.max_queue_bytes:
                    events.popleft()
                    self.dropped += 1
                return False
            fold = self._fold = Fold(Redactor(self.settings.redaction), key, tapped=self.settings.tapped)
        self._offset = offset = self._wall_offset if self._wall_offset is not None else time.time() - time.monotonic()
        for _ in range(min(len(events), _EVENTS_A_TURN)):
            event = events.popleft()
            self._last_time = event.time
            if full:
                self.dropped += 1
                fold.mark_incomplete(event.call, event.time)
                continue
            self._taken += 1
            try:
                fold.add(event, offset)
            except Exception:  # a fault of ours in one event must not end the record of all others
                self._log.exception("store-fault", kind=event.kind)
        # In simulated time only the events know how late it is.
        now = self._last_time if self._wall_offset is not None else time.monotonic()
        return fold.settle(now, _CALLS_A_TURN) or bool(events)

    @property
    def _handed_over(self) -> bool:
        """Whether the writer has been given all that there is."""
        fold = self._fold
        if fold is None:
            return not self._events
        return not self._events and not fold.waiting and self.dropped == self._dropped_told

    def _hand_over(self) -> None:
        """Give the writer what it can write."""
        fold = self._fold
        if fold is None or self._writer.backlog > self.settings.max_queue_bytes:
            return
        dropped = self.dropped - self._dropped_told
        if not dropped and not fold.ready:
            return
        batch = fold.take()
        batch.events, batch.dropped = self._taken - self._folded, dropped
        batch.moment = self._last_time + self._offset
        self._folded, self._dropped_told = self._taken, self.dropped
        self._writer.put(batch)
