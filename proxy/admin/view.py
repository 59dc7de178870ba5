"""What the admin side is told of the rest: the running process, and the call store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from proxy.admin.counts import Counts

__all__ = ["CallStore", "ProcessView", "Row", "StoreUnavailable", "Usage", "WorkerState"]

Row = Mapping[str, Any]


class WorkerState(NamedTuple):
    """One of several workers.

    Attributes:
        number: from 0. up: whether it runs. restarts: how often a successor took its place.
        calls: its calls in progress. lag_s: the longest delay of its event loop within the last minute.
    """

    number: int
    up: bool
    restarts: int
    calls: int
    lag_s: float


class Usage(NamedTuple):
    """What several processes use of the machine: CPU seconds, bytes in RAM, open files and their limit, and when the
    first one began, in Unix seconds."""

    cpu_s: float
    resident_bytes: int
    open_files: int
    max_files: int
    started: float


class ProcessView(Protocol):
    """The running process, or all workers as one. Other threads may ask: every answer is quick and a copy."""

    def counts(self) -> Counts:
        """What its events were."""

    def workers(self) -> Sequence[WorkerState]:
        """The workers; empty for a process without any."""

    def usage(self) -> Usage | None:
        """What the workers use; None where the process that asks is the one to look at."""

    def calls_in_progress(self) -> int:
        """Calls that have begun and not ended."""

    def tables(self) -> Mapping[str, int]:
        """The sizes of all tables."""

    def counters(self) -> Mapping[str, int]:
        """What was dropped, and how often limits were reached, since the start."""

    def targets(self) -> Mapping[str, bool]:
        """Whether each target is up by its pings."""

    def rules(self) -> Mapping[str, str]:
        """The version of each rule set."""

    def listeners(self) -> Sequence[str]:
        """Where calls are taken."""

    def draining(self) -> bool:
        """Whether no new calls are taken any more."""

    def lag_s(self) -> float:
        """The longest time that the event loop was late within the last minute, in seconds."""

    def alive(self) -> bool:
        """Whether the event loop has run within the last seconds."""

    def now(self) -> float:
        """The time as events have it."""

    def store_state(self) -> Row | None:
        """How the writing of the call store goes: `ok`, `error`, `waiting`, `written`, `dropped`; None without one."""


class StoreUnavailable(Exception):
    """The call store can't be read now; the text says why."""


class CallStore(Protocol):
    """The call store, for reading. Rows are mappings with the names of `proxy.storage.queries`.

    Every method raises StoreUnavailable.
    """

    def calls(self, wanted: Row, limit: int, before: int | None) -> list[Row]:
        """Calls, the newest first; `wanted` has the fields of `CallFilter`, those only that matter."""

    def search(self, text: str, limit: int) -> list[Row]:
        """Calls by id, Call-ID, CallSid or whole number."""

    def call(self, key: int) -> Row | None:
        """One call: its row, with `attempts`, `rule_hits` and `timeline`."""

    def overview(self, since: float, step_s: float) -> Row:
        """`totals`, `calls` (points), `causes`, `targets`, `rule_hits`, `status` since a moment in Unix seconds."""

    def diagnosis(self, since: float, until: float | None) -> str:
        """The failure report as text."""
