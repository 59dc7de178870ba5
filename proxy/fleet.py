"""All workers as one: each puts its state into memory that all of them share, and whoever serves the pages sums it up.

The memory belongs to no process, so nothing is lost with one. A successor goes on counting from what its predecessor
has put there last, so that no counter ever falls; whoever serves the pages keeps nothing and may die as well.
"""

from __future__ import annotations

import mmap
import os
import resource
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from proxy.admin.counts import Counts
from proxy.admin.view import ProcessView, Usage, WorkerState

__all__ = ["Board", "FleetView", "Publisher"]

_ROOM: Final = 512 * 1024
_HEAD: Final = struct.Struct("=QII")
_FLAGS: Final = struct.Struct("=BI")
_PAGE: Final = mmap.PAGESIZE
_DEAD_S: Final = 5.0
_FRESH_S: Final = 0.1

_log = structlog.get_logger(__name__)


class Board:
    """Room for the latest state of each worker, in memory shared by all processes that are forked after it was made.

    A state is written beside the one before it, with a checksum, and counts once it is whole: a worker that dies while
    it writes leaves the one before. There is one more place, for the process that serves the pages.

    Args:
        workers: how many.

    Attributes:
        started: when it was made, in Unix seconds.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.started = time.time()
        self._latest: dict[int, int] = {}
        self._memory = mmap.mmap(-1, _PAGE + 2 * _ROOM * (workers + 1))

    def close(self) -> None:
        """Let go of the memory, in this process."""
        self._memory.close()

    def write(self, number: int, data: bytes) -> bool:
        """Put up the state of a worker; False when it is too long."""
        if len(data) > _ROOM - _HEAD.size:
            return False
        latest = self._latest.get(number)
        if latest is None:
            latest = self._newest(number)[0]
        latest += 1
        start = self._start(number, latest % 2)
        self._memory[start : start + _HEAD.size] = bytes(_HEAD.size)
        self._memory[start + _HEAD.size : start + _HEAD.size + len(data)] = data
        self._memory[start : start + _HEAD.size] = _HEAD.pack(latest, len(data), _checksum(latest, data))
        self._latest[number] = latest
        return True

    def read(self, number: int) -> bytes | None:
        """The latest state of a worker; None before the first one."""
        return self._newest(number)[1]

    def beat(self, number: int) -> int:
        """How often a worker, and those before it in its place, have put up a state."""
        counts: list[int] = [_HEAD.unpack_from(self._memory, self._start(number, half))[0] for half in (0, 1)]
        return max(counts)

    def _newest(self, number: int) -> tuple[int, bytes | None]:
        found: tuple[int, bytes | None] = (0, None)
        for half in (0, 1):
            start = self._start(number, half)
            count, length, checksum = _HEAD.unpack_from(self._memory, start)
            if count <= found[0] or length > _ROOM:
                continue
            data = self._memory[start + _HEAD.size : start + _HEAD.size + length]
            if _checksum(count, data) == checksum:
                found = (count, data)
        return found

    @staticmethod
    def _start(number: int, half: int) -> int:
        return _PAGE + (2 * number + half) * _ROOM

    # What the supervisor says

    @property
    def stopping(self) -> bool:
        """Whether all workers have been told to drain."""
        return self._memory[0] != 0

    def stop(self) -> None:
        """Say that all workers have been told to drain."""
        self._memory[0] = 1

    def state_of(self, number: int) -> tuple[bool, int]:
        """Whether a worker runs, and how often a successor was started."""
        running, restarts = _FLAGS.unpack_from(self._memory, 1 + number * _FLAGS.size)
        return bool(running), restarts

    def set_state(self, number: int, running: bool, restarts: int) -> None:
        """Say whether a worker runs, and how often a successor was started."""
        _FLAGS.pack_into(self._memory, 1 + number * _FLAGS.size, running, restarts)


class Publisher:
    """A worker's side: puts its state up, on top of what those before it in its place have counted.

    Args:
        board: where to. number: the worker's.
        view: this process. counts: what counts its events, where that is done.
    """

    def __init__(self, board: Board, number: int, view: ProcessView, counts: Counts | None) -> None:
        self._board = board
        self._number = number
        self._view = view
        self._counts = counts
        self._fits = True
        before = _decoded(board.read(number))
        self._counters: Mapping[str, int] = before.get("counters", {})
        self._store: Mapping[str, Any] = before.get("store") or {}
        self._cpu_s: float = before.get("cpu_s", 0.0)
        if counts is not None and before.get("counts"):
            counts.add(before["counts"])

    def publish(self) -> None:
        """Put the state up as it is now."""
        view, before = self._view, self._store
        store = view.store_state()
        if store is not None:
            store = {**store, **{name: store[name] + before.get(name, 0) for name in ("written", "dropped")}}
        state = {
            "at": time.monotonic(),
            "pid": os.getpid(),
            "calls": view.calls_in_progress(),
            "tables": view.tables(),
            "counters": _sum((self._counters, view.counters())),
            "targets": view.targets(),
            "rules": view.rules(),
            "listeners": view.listeners(),
            "draining": view.draining(),
            "lag_s": view.lag_s(),
            "store": store,
            "counts": None if self._counts is None else self._counts.dump(),
            "cpu_s": self._cpu_s + time.process_time(),
        }
        fits = self._board.write(self._number, orjson.dumps(state))
        if self._fits and not fits:
            _log.error("worker-state-too-long", worker=self._number)
        self._fits = fits


class FleetView:
    """All workers, as what is asked of one process. Gauges are those of workers that run; counters outlive them.

    Args:
        board: where they put their states.
        now: monotonic seconds.
    """

    def __init__(self, board: Board, now: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._now = now
        self._states: list[dict[str, Any]] = []
        self._read_at = float("-inf")
        own = _decoded(board.read(board.workers))
        self._own_cpu_s: float = own.get("cpu_s", 0.0)

    def _all(self) -> list[dict[str, Any]]:
        """The latest states, those of workers that are gone too; an empty one where there was none yet."""
        now = self._now()
        if now - self._read_at > _FRESH_S:
            board = self._board
            self._states = [_decoded(board.read(number)) for number in range(board.workers)]
            self._read_at = now
        return self._states

    def _running(self) -> list[dict[str, Any]]:
        """The states of the workers that run and are not stuck."""
        board, since = self._board, self._now() - _DEAD_S
        states = enumerate(self._all())
        return [state for number, state in states if state.get("at", since) > since and board.state_of(number)[0]]

    def counts(self) -> Counts:
        """What the events of all workers were."""
        counts = Counts()
        for state in self._all():
            if state.get("counts"):
                counts.add(state["counts"])
        return counts

    def workers(self) -> Sequence[WorkerState]:
        """The workers, each by itself."""
        running = {id(state) for state in self._running()}
        found: list[WorkerState] = []
        for number, state in enumerate(self._all()):
            up = id(state) in running
            restarts = self._board.state_of(number)[1]
            calls, lag_s = (state["calls"], state["lag_s"]) if up else (0, 0.0)
            found.append(WorkerState(number, up, restarts, calls, lag_s))
        return found

    def usage(self) -> Usage:
        """What the workers, and this process, use."""
        own_cpu_s = self._own_cpu_s + time.process_time()
        self._board.write(self._board.workers, orjson.dumps({"cpu_s": own_cpu_s}))
        pids = [os.getpid(), *[state["pid"] for state in self._running()]]
        return Usage(
            own_cpu_s + sum(state.get("cpu_s", 0.0) for state in self._all()),
            sum(_resident_bytes(pid) for pid in pids),
            sum(_open_files(pid) for pid in pids),
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            self._board.started,
        )

    def calls_in_progress(self) -> int:
        """Calls that have begun and not ended."""
        return sum(state["calls"] for state in self._running())

    def tables(self) -> Mapping[str, int]:
        """The sizes of all tables, summed up by name."""
        return _sum(state["tables"] for state in self._running())

    def counters(self) -> Mapping[str, int]:
        """What was dropped, and how often limits were reached, since the start."""
        return _sum(state.get("counters", {}) for state in self._all())

    def targets(self) -> Mapping[str, bool]:
        """Whether each target is up by the pings of every worker."""
        found: dict[str, bool] = {}
        for state in self._running():
            for name, up in state["targets"].items():
                found[name] = up and found.get(name, True)
        return found

    def rules(self) -> Mapping[str, str]:
        """The version of each rule set."""
        return self._first("rules") or {}

    def listeners(self) -> Sequence[str]:
        """Where calls are taken."""
        return self._first("listeners") or ()

    def _first(self, name: str) -> Any:
        """What the first running worker that has some says."""
        return next((state[name] for state in self._running() if state[name]), None)

    def draining(self) -> bool:
        """Whether no worker takes new calls any more."""
        running = self._running()
        return self._board.stopping or (bool(running) and all(state["draining"] for state in running))

    def lag_s(self) -> float:
        """The longest time that an event loop was late within the last minute."""
        return max([state["lag_s"] for state in self._running()], default=0.0)

    def alive(self) -> bool:
        """Whether a worker runs. (One that is stuck is for the supervisor.)"""
        return bool(self._running())

    def now(self) -> float:
        """The time as events have it."""
        return self._now()

    def store_state(self) -> Mapping[str, Any] | None:
        """How the writing of the call store goes: well when it does for every worker."""
        running = [state["store"] for state in self._running() if state["store"]]
        whole = [state["store"] for state in self._all() if state.get("store")]
        if not whole:
            return None
        return {
            "ok": all(store["ok"] for store in running),
            "error": next((store["error"] for store in running if store["error"]), ""),
            "waiting": sum(store["waiting"] for store in running),
            "written": sum(store["written"] for store in whole),
            "dropped": sum(store["dropped"] for store in whole),
        }


def _checksum(count: int, data: bytes) -> int:
    return zlib.crc32(data, count & 0xFFFF_FFFF)


def _decoded(data: bytes | None) -> dict[str, Any]:
    found: dict[str, Any] = {} if data is None else orjson.loads(data)
    return found


def _sum(tables: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in tables:
        for name, value in table.items():
            found[name] = found.get(name, 0) + value
    return found


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
