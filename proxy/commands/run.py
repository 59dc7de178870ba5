"""`trunkline run`: takes calls until it is told to stop; in one process, or in several workers."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import structlog
import uvloop

from proxy import __version__
from proxy.audit.redact import Redaction
from proxy.audit.sinks import JsonLinesSink, LineTarget, LineWriter, LogTarget, Sink, configure_logs
from proxy.checkpoints import Checkpoints, CheckpointTable
from proxy.commands.observe import StoreView
from proxy.commands.observers import Observers, WorkerObservers
from proxy.commands.prepare import Prepared, prepare
from proxy.commands.sites import Doors, serve
from proxy.fleet import Board, FleetView
from proxy.rulereload import RuleSource
from proxy.runtime import Runtime
from proxy.settings import Settings, SettingsError
from proxy.settings.observability import syslog_address
from proxy.storage.paths import default_store
from proxy.storage.sink import StoreSettings, StoreSink
from proxy.supervisor import Place, Supervisor
from proxy.transport import Listener
from proxy.transport.claim import claim
from proxy.transport.errors import ListenError, TlsError
from proxy.workers import Exchange, Lines

__all__ = ["run_proxy"]

_OPEN_FILES = 65_536
_M_ARENA_MAX = -8
_UNUSABLE = 2


class _Watchers(Protocol):
    """What watches the calls of one process."""

    sinks: list[Sink]

    def start(self, runtime: Runtime) -> None:
        """Begin; in the event loop, once everything listens."""

    def stop(self) -> None:
        """Watch no more."""


MakeWatchers = Callable[[Settings, Redaction, StoreSink | None], _Watchers]


def run_proxy(flags: Mapping[str, Any]) -> None:
    """Run until SIGTERM or SIGINT, then let calls end.

    Raises SettingsError when something is wrong before the first listener is open, or a listener can't be opened.
    """
    prepared = prepare(flags)
    if prepared.settings.workers == 1:
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
        self._prepared = prepared
        try:
            self._listeners = claim(settings.listeners())
        except ListenError as error:
            raise SettingsError([str(error)]) from None
        self._doors = Doors(settings)
        self._board = Board(settings.workers)
        self._lines = Lines(settings.workers)
        self._max_calls = -(-settings.limits.max_calls // settings.workers)
        self._checkpoints = Checkpoints(settings.workers, self._max_calls)

    def run(self) -> int:
        """Run; gives the exit code."""
        settings = self._prepared.settings
        _configure_logs(settings, _Direct())
        self._doors.announce(settings)
        pages = self._serve_pages if self._doors else None
        try:
            return Supervisor(self._board, self._work, pages=pages, remains=self._checkpoints.left_by).run()
        finally:
            self._doors.close()
            self._lines.close()
            self._board.close()
            self._checkpoints.close()

    def _work(self, place: Place) -> int:
        """One worker; gives its exit code."""
        prepared = self._prepared
        config = replace(prepared.config, max_calls=self._max_calls, checkpoints=True)
        if place.again:
            try:
                rules, default = prepared.load_rules()
                config = replace(config, rules=rules, default_rules=default)
            except SettingsError:
                pass  # they have been changed for the worse since the start; RuleReload says so when it looks

        def watchers(settings: Settings, redaction: Redaction, store: StoreSink | None) -> WorkerObservers:
            return WorkerObservers(settings, redaction, store, self._board, self._lines, place.number)

        self._doors.close()
        table = self._checkpoints.table(place.number)
        run = partial(run_calls, replace(prepared, config=config), self._listeners, watchers, place, table)
        return _exit_code(run)

    def _serve_pages(self, parent: int) -> int:
        """The process with the pages; gives its exit code."""
        settings = self._prepared.settings
        out = LineWriter(sys.stdout.buffer)
        _configure_logs(settings, out)
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


def _configure_logs(settings: Settings, out: LineTarget) -> Redaction:
    redaction = Redaction(settings.redaction.mask_numbers, settings.redaction.mask_secrets)
    configure_logs(out, settings.log_level, redaction)
    return redaction


def run_calls(
    prepared: Prepared,
    listeners: Sequence[Listener],
    make_watchers: MakeWatchers,
    place: Place | None = None,
    checkpoints: CheckpointTable | None = None,
) -> None:
    """One process that takes calls: the only one, or a worker. Raises SettingsError."""
    settings = prepared.settings
    events = _events_writer(settings)
    out = _log_target(settings)
    redaction = _configure_logs(settings, out)
    sinks: list[Sink] = [JsonLinesSink(out, settings.log_level, redaction)]
    if events is not None:
        sinks.append(JsonLinesSink(events, "debug", redaction))
    store = _store(settings)
    if store is not None:
        sinks.append(store)
    watchers = make_watchers(settings, redaction, store)
    sinks += watchers.sinks
    _log_start(prepared, store)
    if store is not None:
        store.start()
    _raise_open_files()
    _use_one_arena()
    runtime = Runtime(
        prepared.config,
        listeners,
        tls=settings.tls_settings(),
        sinks=sinks,
        stream=settings.stream_settings(),
        watch_s=settings.tls.watch_s,
        drain_s=settings.drain_s,
        rules=RuleSource(prepared.rule_paths, prepared.load_rules, settings.rules_watch_s),
        exchange=None if place is None else Exchange(place.number, place.workers, place.ends, place.runs),
        checkpoints=checkpoints,
        parent=None if place is None else place.parent,
    )
    try:
        uvloop.run(runtime.run(lambda: watchers.start(runtime)))
    except (ListenError, TlsError) as error:
        raise SettingsError([str(error)]) from None
    finally:
        watchers.stop()
        for sink in sinks:
            sink.close()


def _log_target(settings: Settings) -> LogTarget:
    out = LineWriter(sys.stdout.buffer)
    wanted = settings.syslog
    if wanted.address is None:
        return out
    from proxy.export.syslog import LogWithSyslog, SyslogStream

    return LogWithSyslog(out, SyslogStream(syslog_address(wanted.address), wanted.facility, wanted.app_name))


def _log_start(prepared: Prepared, store: StoreSink | None) -> None:
    """What is about to run."""
    log = structlog.get_logger(__name__)
    log.info(
        "starting",
        version=__version__,
        targets={name: str(target.uri) for name, target in prepared.config.targets.items()},
        rules={name: rules.version for name, rules in prepared.rules.items()},
        default_rules=prepared.default_rules,
    )
    for note in prepared.settings.notes():
        log.warning("settings-note", note=note)
    if store is not None:
        log.info("store", path=str(store.settings.path))


def _events_writer(settings: Settings) -> LineWriter | None:
    if settings.events_file is None:
        return None
    try:
        return LineWriter(settings.events_file.open("ab"), owned=True)
    except OSError as error:
        raise SettingsError(
            [f"events_file: {settings.events_file}: {(error.strerror or str(error)).lower()}"]
        ) from None


def _store(settings: Settings) -> StoreSink | None:
    wanted = settings.store
    if not wanted.enabled:
        return None
    general = settings.redaction
    redaction = Redaction(
        general.mask_numbers if wanted.mask_numbers is None else wanted.mask_numbers,
        general.mask_secrets if wanted.mask_secrets is None else wanted.mask_secrets,
    )
    return StoreSink(
        StoreSettings(
            path=wanted.path or default_store(),
            max_age_s=wanted.max_age_days * 86_400,
            max_bytes=wanted.max_mb * 1_000_000,
            redaction=redaction,
            tapped=settings.webhook.listen is not None,
        )
    )


def _use_one_arena() -> None:
    """Have all threads allocate from one arena of glibc.

    With one for each thread (the default), what the call store's thread frees stays in pieces that nothing else can
    use: memory grew by a third in ten minutes of soak, and does not with one arena. Threads rarely allocate at the same
    time anyhow, for the interpreter runs one of them. A system with another C library is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_ARENA_MAX, 1)


def _raise_open_files() -> None:
    """Connections are files; the usual soft limit of 1,024 would be the limit of TCP callers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
