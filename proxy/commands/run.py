"""`trunkline run`: takes calls until it is told to stop; in one process, or in several workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from proxy.audit.redact import Redaction
from proxy.audit.turns import SharedStream
from proxy.b2bua.config import StackConfig
from proxy.checkpoints import Checkpoints
from proxy.commands.observe import StoreView
from proxy.commands.observers import Observers, WorkerObservers
from proxy.commands.prepare import Current, Prepared, prepare
from proxy.commands.process import Worker, log_target, log_to, run_calls
from proxy.commands.sites import Doors, serve
from proxy.fleet import Board, FleetView
from proxy.reload import NOT_TAKEN_UP
from proxy.settings import Settings, SettingsError
from proxy.storage.paths import default_store
from proxy.storage.sink import StoreSink
from proxy.supervisor import Place, Supervisor
from proxy.transport.claim import claim
from proxy.transport.errors import ListenError
from proxy.workers import Lines

__all__ = ["run_proxy"]

_UNUSABLE = 2


def run_proxy(flags: Mapping[str, Any]) -> None:
    """Run until SIGTERM or SIGINT, then let calls end.

    Raises SettingsError when something is wrong before the first listener is open, or a listener can't be opened.
    """
    prepared = prepare(flags)
    if prepared.settings.worker_count() == 1:
        run_calls(prepared, prepared.settings.listeners(), Observers)
    else:
        code = _Workers(prepared).run()
        if code:
            sys.exit(code)


class _Workers:
    """Several workers under a supervisor, and beside them a process that serves the pages of all.

    Raises SettingsError.
    """

    def __init__(self, prepared: Prepared) -> None:
        settings = prepared.settings
        self._current = Current(prepared)
        try:
            self._listeners = claim(settings.listeners())
        except ListenError as error:
            raise SettingsError([str(error)]) from None
        self._doors = Doors(settings)
        workers = settings.worker_count()
        self._board = Board(workers)
        self._lines = Lines(workers)
        self._stdout = SharedStream(sys.stdout.buffer)
        self._checkpoints = Checkpoints(workers, self._share(prepared.config).max_calls)

    def run(self) -> int:
        """Run; gives the exit code."""
        settings = self._current.prepared.settings
        log_to(_Direct(), settings)
        self._doors.announce(settings)
        pages = self._serve_pages if self._doors else None
        try:
            return Supervisor(
                self._board, self._work, pages=pages, remains=self._checkpoints.left_by, reload=self._reload
            ).run()
        finally:
            self._doors.close()
            self._lines.close()
            self._board.close()
            self._checkpoints.close()
            self._stdout.close()

    def _reload(self) -> bool:
        """Whether the settings can be used as they stand now. A successor of a worker that dies begins with them."""
        log = structlog.get_logger(__name__)
        try:
            taken = self._current.load_settings()
        except SettingsError as error:
            log.error("settings-reload-failed", problems=list(error.problems), advice=NOT_TAKEN_UP)
            return False
        log_to(_Direct(), taken.settings)
        return True

    def _share(self, config: StackConfig) -> StackConfig:
        """A worker's share."""
        return replace(config, max_calls=-(-config.max_calls // self._board.workers), checkpoints=True)

    def _work(self, place: Place) -> int:
        """One worker; gives its exit code."""
        if place.again:
            try:
                self._current.load_rules()
            except SettingsError:
                pass  # they have been changed for the worse since the start; RuleReload says so when it looks

        def watchers(settings: Settings, redaction: Redaction, store: StoreSink | None) -> WorkerObservers:
            return WorkerObservers(settings, redaction, store, self._board, self._lines, place.number)

        self._doors.close()
        view = FleetView(self._board)

        def needed() -> bool:
            return self._board.stopping and view.calls_in_progress() > 0

        worker = Worker(place, needed, self._share, self._checkpoints.table(place.number), self._stdout)
        return _exit_code(partial(run_calls, self._current.prepared, self._listeners, watchers, worker))

    def _serve_pages(self, parent: int) -> int:
        """The process with the pages; gives its exit code."""
        settings = self._current.prepared.settings
        out = log_target(settings, self._stdout)
        log_to(out, settings)
        store = StoreView(settings.store.path or default_store()) if settings.store.enabled else None
        sites = self._doors.sites(settings, FleetView(self._board), store, self._lines.tell)
        try:
            return _exit_code(lambda: serve(sites, parent))
        finally:
            out.close()


def _exit_code(run: Callable[[], None]) -> int:
    """What a process of ours ends with."""
    try:
        run()
    except SettingsError as error:
        for problem in error.problems:
            sys.stderr.write(f"trunkline: {problem}\n")
        return _UNUSABLE
    return 0


class _Direct:
    """Writes lines to stdout at once and without a thread, since the supervisor forks."""

    def write(self, line: bytes) -> None:
        """Write one line."""
        try:
            os.write(sys.stdout.fileno(), line)
        except OSError:  # whoever read it is gone
            pass
