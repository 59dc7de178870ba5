"""Events to a thread of their own, so that whoever emits them never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

import structlog

from proxy.audit.records import Event
from proxy.audit.throttle import Throttle

__all__ = ["QueuedSink"]

_MAX_WAITING: Final = 20_000
_CLOSE_S: Final = 2.0
_LOG_S: Final = 30.0


class QueuedSink:
    """Hands events to `work` in a thread, in order. What does not fit is dropped and counted.

    Args:
        name: of the thread.
        failure: the kind of the log line when `work` raises OSError or ValueError: at most one in half a minute.
        kinds: the events that are wanted.
        work: takes one event.
        end: called in the thread at the end.

    Attributes:
        dropped: events that were lost.
    """

    __slots__ = ("_closed", "_end", "_failure", "_kinds", "_log", "_queue", "_thread", "_throttle", "_work", "dropped")

    def __init__(
        self,
        name: str,
        failure: str,
        kinds: frozenset[str],
        work: Callable[[Event], None],
        end: Callable[[], None],
    ) -> None:
        self.dropped = 0
        self._kinds = kinds
        self._work = work
        self._end = end
        self._failure = failure
        self._queue: SimpleQueue[Event | None] = SimpleQueue()
        self._closed = False
        self._throttle = Throttle(_LOG_S)
        self._log = structlog.get_logger(__name__)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """Take one event."""
        if event.kind in self._kinds:
            if self._queue.qsize() < _MAX_WAITING:
                self._queue.put(event)
            else:
                self.dropped += 1

    def close(self) -> None:
        """Work off what is left, for up to two seconds."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                self._work(event)
            except (OSError, ValueError) as error:
                self.dropped += 1
                if self._throttle.allow(type(error), time.monotonic()) is not None:
                    self._log.warning(self._failure, reason=str(error), dropped=self.dropped)
        self._end()
