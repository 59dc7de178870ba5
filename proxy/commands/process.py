"""One process that takes calls: the only one, or one of several workers."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog
import uvloop

from proxy import __version__
from proxy.audit.redact import Redaction
from proxy.audit.sinks import JsonLinesSink, LineTarget, LineWriter, LogTarget, Sink, configure_logs
from proxy.audit.writer import ByteStream
from proxy.b2bua.config import StackConfig
from proxy.checkpoints import CheckpointTable
from proxy.commands.prepare import Current, Prepared
from proxy.reload import RunningSettings
from proxy.rulereload import RuleSource
from proxy.runtime import Runtime
from proxy.settings import Settings, SettingsError
from proxy.settings.observability import syslog_address
from proxy.storage.paths import default_store
from proxy.storage.sink import StoreSettings, StoreSink
from proxy.supervisor import Place
from proxy.transport import Listener
from proxy.transport.errors import ListenError, TlsError
from proxy.workers import Exchange

__all__ = ["MakeWatchers", "Watchers", "Worker", "log_target", "log_to", "run_calls"]

_OPEN_FILES = 65_536
_M_ARENA_MAX = -8


class Watchers(Protocol):
    """What watches the calls of one process."""

    sinks: list[Sink]

    def start(self, runtime: Runtime) -> None:
        """Begin; in the event loop, once everything listens."""

    def stop(self) -> None:
        """Watch no more."""


MakeWatchers = Callable[[Settings, Redaction, StoreSink | None], Watchers]


def log_to(out: LineTarget, settings: Settings) -> Redaction:
    """Send the log there; gives what is masked in it."""
    redaction = Redaction(settings.redaction.mask_numbers, settings.redaction.mask_secrets)
    configure_logs(out, settings.log_level, redaction)
    return redaction


class Worker(NamedTuple):
    """What a worker has that an only process has not.

    Attributes:
        place: where it stands. needed: whether others have calls while all drain.
        share: its share of a configuration for all workers.
        checkpoints: where it keeps what would end its calls. stdout: where its log goes.
    """

    place: Place
    needed: Callable[[], bool]
    share: Callable[[StackConfig], StackConfig]
    checkpoints: CheckpointTable
    stdout: ByteStream


def run_calls(
    prepared: Prepared, listeners: Sequence[Listener], make_watchers: MakeWatchers, worker: Worker | None = None
) -> None:
    """Take calls until SIGTERM or SIGINT, and let them end. Raises SettingsError.

    Args:
        make_watchers: makes what watches the calls.
        worker: where this is one of several.
    """
    settings, share = prepared.settings, _whole if worker is None else worker.share
    events = _events_writer(settings)
    out = log_target(settings, sys.stdout.buffer if worker is None else worker.stdout)
    redaction = log_to(out, settings)
    lines = JsonLinesSink(out, settings.log_level, redaction)
    sinks: list[Sink] = [lines]
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
    current = Current(prepared)
    runtime = Runtime(
        share(prepared.config),
        listeners,
        tls=settings.tls_settings(),
        sinks=sinks,
        stream=settings.stream_settings(),
        watch_s=settings.tls.watch_s,
        drain_s=settings.drain_s,
        settings=lambda: _running(current, share, lines, out),
        rules=RuleSource(current.rule_paths, current.load_rules, settings.rules_watch_s),
        exchange=None if worker is None else _exchange(worker.place),
        checkpoints=None if worker is None else worker.checkpoints,
        needed=_never if worker is None else worker.needed,
        parent=None if worker is None else worker.place.parent,
    )
    try:
        uvloop.run(runtime.run(lambda: watchers.start(runtime)))
    except (ListenError, TlsError) as error:
        raise SettingsError([str(error)]) from None
    finally:
        watchers.stop()
        for sink in sinks:
            sink.close()


def _never() -> bool:
    return False


def _whole(config: StackConfig) -> StackConfig:
    return config


def _running(
    current: Current, share: Callable[[StackConfig], StackConfig], lines: JsonLinesSink, out: LogTarget
) -> RunningSettings:
    """The settings as they stand now, for a process that runs. Raises SettingsError."""
    taken = current.load_settings()
    settings = taken.settings

    def apply() -> None:
        log_to(out, settings)
        lines.set_level(settings.log_level)

    return RunningSettings(
        share(current.prepared.config),
        settings.tls_settings(),
        settings.stream_settings(),
        settings.drain_s,
        apply,
        taken.changed,
        taken.waiting,
    )


def _exchange(place: Place) -> Exchange:
    return Exchange(place.number, place.workers, place.ends, place.runs)


def log_target(settings: Settings, stdout: ByteStream) -> LogTarget:
    """Where the lines of the log go: stdout, and syslog if there is one. To be closed."""
    out = LineWriter(stdout)
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
