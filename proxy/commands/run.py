"""`trunkline run`: takes calls until it is told to stop; in one process, or in several workers."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog
import uvloop

from proxy import __version__
from proxy.audit.redact import Redaction
from proxy.audit.sinks import JsonLinesSink, LineTarget, LineWriter, LogTarget, Sink, configure_logs
from proxy.commands.observe import Observers
from proxy.commands.prepare import Prepared, prepare
from proxy.rulereload import RuleSource
from proxy.runtime import Runtime
from proxy.settings import Settings, SettingsError
from proxy.settings.observability import AdminSection, syslog_address
from proxy.storage.paths import default_store
from proxy.storage.sink import StoreSettings, StoreSink
from proxy.supervisor import Place, Supervisor
from proxy.transport.errors import ListenError, TlsError
from proxy.workers import Exchange

__all__ = ["run_proxy"]

_OPEN_FILES = 65_536
_M_ARENA_MAX = -8
_UNUSABLE = 2


def run_proxy(flags: Mapping[str, Any]) -> None:
    """Run until SIGTERM or SIGINT, then let calls end.

    Raises SettingsError when something is wrong before the first listener is open, or a listener can't be opened.
    """
    prepared = prepare(flags)
    workers = prepared.settings.workers
    if workers == 1:
        _run(prepared, None)
        return
    _configure_logs(prepared.settings, _Direct())
    code = Supervisor(workers, lambda place: _work(prepared, place)).run()
    if code:
        sys.exit(code)


def _work(prepared: Prepared, place: Place) -> int:
    """One worker of several; gives its exit code."""
    settings = prepared.settings
    if place.number:
        # One of them serves the pages, on a port that is not shared.
        settings = settings.model_copy(update={"admin": AdminSection()})
    config = replace(prepared.config, max_calls=-(-prepared.config.max_calls // place.workers))
    if place.again:
        try:
            rules, default = prepared.load_rules()
            config = replace(config, rules=rules, default_rules=default)
        except SettingsError:
            pass  # they have been changed for the worse since the start; RuleReload says so when it looks
    try:
        _run(replace(prepared, settings=settings, config=config), place)
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


def _run(prepared: Prepared, place: Place | None) -> None:
    """One process. Raises SettingsError."""
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
    observers = Observers(settings, redaction, store)
    sinks += observers.sinks
    log = structlog.get_logger(__name__)
    log.info(
        "starting",
        version=__version__,
        targets={name: str(target.uri) for name, target in prepared.config.targets.items()},
        rules={name: rules.version for name, rules in prepared.rules.items()},
        default_rules=prepared.default_rules,
    )
    for note in settings.notes():
        log.warning("settings-note", note=note)
    if store is not None:
        log.info("store", path=str(store.settings.path))
        store.start()
    _raise_open_files()
    _use_one_arena()
    runtime = Runtime(
        prepared.config,
        settings.listeners(),
        tls=settings.tls_settings(),
        sinks=sinks,
        stream=settings.stream_settings(),
        watch_s=settings.tls.watch_s,
        drain_s=settings.drain_s,
        rules=RuleSource(prepared.rule_paths, prepared.load_rules, settings.rules_watch_s),
        exchange=None if place is None else Exchange(place.number, place.workers, place.ends),
        parent=None if place is None else place.parent,
    )
    try:
        uvloop.run(runtime.run(lambda: observers.start(runtime)))
    except (ListenError, TlsError) as error:
        raise SettingsError([str(error)]) from None
    finally:
        observers.stop()
        for sink in sinks:
            sink.close()


def _log_target(settings: Settings) -> LogTarget:
    out = LineWriter(sys.stdout.buffer)
    wanted = settings.syslog
    if wanted.address is None:
        return out
    from proxy.export.syslog import LogWithSyslog, SyslogStream

    return LogWithSyslog(out, SyslogStream(syslog_address(wanted.address), wanted.facility, wanted.app_name))


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
