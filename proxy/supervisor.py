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

from proxy.workers import Mesh

__all__ = ["Place", "Supervisor"]

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_AWAITED: Final = (*_PASSED_ON, signal.SIGCHLD)
_UNUSABLE: Final = 2
_FAILED: Final = 1
_WAIT_S: Final = 1.0


class Place(NamedTuple):
    """Where a worker stands.

    Attributes:
        number: from 0. workers: how many there are.
        ends: its sockets to the others.
        parent: a file descriptor that has nothing to read until the supervisor is gone.
        again: whether it takes the place of one that died.
    """

    number: int
    workers: int
    ends: dict[int, socket.socket]
    parent: int
    again: bool


class Supervisor:
    """Runs workers until SIGTERM or SIGINT, then waits until all of them have ended.

    A worker that dies is started again: at once, and when it dies soon again, after a wait that doubles each time. One
    that ends with exit code 2 could not use its settings: all are stopped.

    Args:
        workers: how many.
        work: what a worker does, in a process of its own; gives its exit code. Signals are blocked there until it lets
            them in, so that none comes before there is a handler.
        backoff_s: the first wait, and the longest one.
        steady_s: how long a worker has to live to be started again without a wait.
    """

    def __init__(
        self,
        workers: int,
        work: Callable[[Place], int],
        *,
        backoff_s: tuple[float, float] = (0.2, 10.0),
        steady_s: float = 5.0,
    ) -> None:
        self._workers = workers
        self._work = work
        self._backoff_s = backoff_s
        self._steady_s = steady_s
        self._mesh = Mesh(workers)
        self._parent, self._alive = os.pipe()
        self._running: dict[int, int] = {}
        self._started: dict[int, float] = {}
        self._waits = [0.0] * workers
        self._due: dict[int, float] = {}
        self._stopping = False
        self._code = 0
        self._log = structlog.get_logger(__name__)

    def run(self) -> int:
        """Run. Returns the exit code: 0 when every worker ended well after a signal."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        try:
            for number in range(self._workers):
                self._start(number, again=False)
            while self._running or self._due:
                self._wait()
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
            self._pass_on(got.si_signo)
        self._reap()
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            self._start(number, again=True)

    def _pass_on(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stopping = True
            self._due.clear()
        for pid in self._running:
            os.kill(pid, number)

    def _start(self, number: int, *, again: bool) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._be_worker(number, again=again)
        self._running[pid] = number
        self._started[number] = time.monotonic()

    def _be_worker(self, number: int, *, again: bool) -> None:
        """The life of a worker, with all signals blocked until it has handlers for them; does not return."""
        code = _FAILED
        try:
            os.setpgid(0, 0)  # the terminal's Ctrl-C reaches it by its supervisor only, and so once
            os.close(self._alive)
            ends = self._mesh.ends_of(number)
            code = self._work(Place(number, self._workers, ends, self._parent, again))
        except BaseException:
            self._log.exception("worker-failed", worker=number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        """See who has ended, and plan what follows."""
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._ended(self._running.pop(pid), os.waitstatus_to_exitcode(status))

    def _ended(self, number: int, code: int) -> None:
        if self._stopping:
            self._code = self._code or abs(code)
            return
        if code == _UNUSABLE:
            self._code = _UNUSABLE
            self._pass_on(signal.SIGTERM)
            return
        first_s, longest_s = self._backoff_s
        steady = time.monotonic() - self._started[number] >= self._steady_s
        wait_s = self._waits[number] = 0.0 if steady else min(max(2 * self._waits[number], first_s), longest_s)
        self._due[number] = time.monotonic() + wait_s
        self._log.error("worker-died", worker=number, code=code, again_in_s=wait_s)
