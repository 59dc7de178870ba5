"""The parent of several workers: starts them, starts those that die again, passes signals on."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from proxy.fleet import Board
from proxy.workers import Mesh

__all__ = ["Place", "Supervisor"]

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_AWAITED: Final = (*_PASSED_ON, signal.SIGCHLD)
_UNUSABLE: Final = 2
_FAILED: Final = 1
_WAIT_S: Final = 1.0
_PAGES_STOP_S: Final = 5.0


class Place(NamedTuple):
    """Where a worker stands.

    Attributes:
        number: from 0. workers: how many there are.
        ends: its sockets to the others. runs: whether another worker runs, by its number.
        parent: a file descriptor that has nothing to read until the supervisor is gone.
        again: whether it takes the place of one that died.
    """

    number: int
    workers: int
    ends: dict[int, socket.socket]
    runs: Callable[[int], bool]
    parent: int
    again: bool


class Supervisor:
    """Runs workers until SIGTERM or SIGINT, then waits until all of them have ended.

    A worker that dies is started again: at once, and when it dies soon again, after a wait that doubles each time. One
    that ends with exit code 2 could not use its settings: all are stopped. One whose event loop is stuck is killed, and
    started again as well.

    Args:
        board: where the workers put their states; says how many workers there are.
        work: what a worker does, in a process of its own; gives its exit code. Signals are blocked there until it lets
            them in, so that none comes before there is a handler.
        pages: what a process beside the workers does, that serves the pages of all of them: it gets the `parent` of a
            `Place`, and ends by SIGTERM, which it gets after the last worker has ended. On SIGHUP it is started anew.
            None: there is no such process.
        remains: how many legs a worker that died has left for its successor to end. Where there are some it gets one
            (once) even when all are to stop.
        reload: reads the settings again before SIGHUP is passed on; False when that can't be. None passes it on.
        backoff_s: the first wait, and the longest one.
        steady_s: how long a worker has to live to be started again without a wait.
        stuck_s: how long a worker may put up no state.
    """

    def __init__(
        self,
        board: Board,
        work: Callable[[Place], int],
        *,
        pages: Callable[[int], int] | None = None,
        remains: Callable[[int], int] = lambda number: 0,
        reload: Callable[[], bool] | None = None,
        backoff_s: tuple[float, float] = (0.2, 10.0),
        steady_s: float = 5.0,
        stuck_s: float = 15.0,
    ) -> None:
        self._board = board
        self._workers = board.workers
        self._work = work
        self._pages = pages
        self._remains = remains
        self._reload = reload
        self._backoff_s = backoff_s
        self._steady_s = steady_s
        self._stuck = _Stuck(board, stuck_s)
        self._mesh = Mesh(board.workers)
        self._parent, self._alive = os.pipe()
        self._running: dict[int, int] = {}
        self._started: dict[int, float] = {}
        self._waits: dict[int, float] = {}
        self._due: dict[int, float] = {}
        self._replaced: set[int] = set()
        self._stopping = False
        self._code = 0
        self._log = structlog.get_logger(__name__)

    @property
    def _pages_number(self) -> int:
        """The number that stands for the process with the pages."""
        return self._workers

    def run(self) -> int:
        """Run. Returns the exit code: 0 when every worker ended well after a signal."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        try:
            for number in range(self._workers + (self._pages is not None)):
                self._start(number, again=False)
            while any(number != self._pages_number for number in (*self._due, *self._running.values())):
                self._wait()
            self._end_pages()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(self._alive)
            os.close(self._parent)
            self._mesh.close()
        return self._code

    def _wait(self) -> None:
        """Wait for the next signal or the next start that is due."""
        now = time.monotonic()
        wait_s = min([_WAIT_S, *[due - now for due in self._due.values()]])
        got = signal.sigtimedwait(_AWAITED, max(wait_s, 0.0))
        if got is not None and got.si_signo != signal.SIGCHLD:
            self._take(got.si_signo)
        self._reap()
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            self._start(number, again=True)
        for number in self._stuck.look(now):
            self._log.error("worker-stuck", worker=number)
            self._send(signal.SIGKILL, number)

    def _take(self, number: int) -> None:
        """A signal."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
            return
        if number == signal.SIGHUP:
            if self._reload is not None and not self._reload():
                return
            self._send(signal.SIGTERM, self._pages_number)
        for worker in range(self._workers):
            self._send(number, worker)

    def _stop(self) -> None:
        """Have all workers drain."""
        self._stopping = True
        self._due.clear()
        self._board.stop()
        for worker in range(self._workers):
            self._send(signal.SIGTERM, worker)

    def _send(self, number: int, to: int) -> None:
        """Send a signal to a worker, or to the process with the pages."""
        for pid, worker in self._running.items():
            if worker == to:
                os.kill(pid, number)

    def _start(self, number: int, *, again: bool) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if number != self._pages_number:
            restarts = self._board.state_of(number)[1]
            self._board.set_state(number, True, restarts + again)
        pid = os.fork()
        if pid == 0:
            self._be_child(number, again=again)
        self._running[pid] = number
        self._started[number] = time.monotonic()

    def _be_child(self, number: int, *, again: bool) -> None:
        """The life of a child, with all signals blocked until it has handlers for them; does not return."""
        code = _FAILED
        try:
            os.setpgid(0, 0)  # the terminal's Ctrl-C reaches it by its supervisor only, and so once
            os.close(self._alive)
            if number == self._pages_number:
                assert self._pages is not None
                code = self._pages(self._parent)
            else:
                ends = self._mesh.ends_of(number)
                code = self._work(Place(number, self._workers, ends, self._runs, self._parent, again))
        except BaseException:
            self._log.exception("worker-failed", worker=self._name(number))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _runs(self, number: int) -> bool:
        return self._board.state_of(number)[0]

    def _name(self, number: int) -> int | str:
        return "pages" if number == self._pages_number else number

    def _reap(self) -> None:
        """See who has ended, and plan what follows."""
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._ended(self._running.pop(pid), os.waitstatus_to_exitcode(status))

    def _ended(self, number: int, code: int) -> None:
        is_worker = number != self._pages_number
        if is_worker:
            self._board.set_state(number, False, self._board.state_of(number)[1])
            self._stuck.forget(number)
        if self._stopping and is_worker:
            self._code = self._code or abs(code)
            if code and number not in self._replaced and self._remains(number):
                self._replaced.add(number)
                self._log.error("worker-died", worker=number, code=code, again_in_s=0.0)
                self._start(number, again=True)
                self._send(signal.SIGTERM, number)
            return
        if code == _UNUSABLE:
            self._code = _UNUSABLE
            self._stop()
            return
        wait_s = self._backoff(number)
        self._due[number] = time.monotonic() + wait_s
        if is_worker or code:
            self._log.error("worker-died", worker=self._name(number), code=code, again_in_s=wait_s)

    def _backoff(self, number: int) -> float:
        """How long to wait before a child is started again."""
        first_s, longest_s = self._backoff_s
        steady = time.monotonic() - self._started[number] >= self._steady_s
        wait_s = 0.0 if steady else min(max(2 * self._waits.get(number, 0.0), first_s), longest_s)
        self._waits[number] = wait_s
        return wait_s

    def _end_pages(self) -> None:
        """End the process with the pages, which has shown until now that the workers drain."""
        self._send(signal.SIGTERM, self._pages_number)
        deadline = time.monotonic() + _PAGES_STOP_S
        while self._running:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._send(signal.SIGKILL, self._pages_number)
            signal.sigtimedwait((signal.SIGCHLD,), max(left_s, 0.1))
            for pid in list(self._running):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    del self._running[pid]


class _Stuck:
    """Finds workers that put up no state any more.

    What counts is how often we looked in vain, not the time: after all processes were stopped for a while, by a
    debugger or a paused machine, each gets its chance to go on.
    """

    def __init__(self, board: Board, limit_s: float) -> None:
        self._board = board
        self._limit_s = limit_s
        self._seen: dict[int, tuple[int, float]] = {}
        self._looked_at = 0.0

    def forget(self, number: int) -> None:
        """A worker has ended."""
        self._seen.pop(number, None)

    def look(self, now: float) -> list[int]:
        """The workers that have been stuck for too long."""
        if now - self._looked_at < _WAIT_S:
            return []
        waited_s, self._looked_at = min(now - self._looked_at, 2 * _WAIT_S), now
        found: list[int] = []
        for number in range(self._board.workers):
            beat = self._board.beat(number)
            seen, for_s = self._seen.get(number, (0, 0.0))
            for_s = for_s + waited_s if beat and beat == seen else 0.0
            self._seen[number] = (beat, for_s)
            if for_s >= self._limit_s and self._board.state_of(number)[0]:
                self._seen.pop(number)
                found.append(number)
        return found
