"""What watches the calls of one process: counts for the pages, the pages themselves, HEP3 and OpenTelemetry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.admin.counts import Counts
from proxy.audit.redact import Redaction
from proxy.b2bua.stack import Stack
from proxy.commands.observe import LoopWatch, RuntimeView, StoreView
from proxy.commands.sites import Doors
from proxy.fleet import Board, Publisher
from proxy.runtime import Runtime
from proxy.settings import Settings, SettingsError
from proxy.settings.observability import address_of
from proxy.storage.sink import StoreSink
from proxy.workers import Lines

if TYPE_CHECKING:
    from proxy.admin.server import WebThread
    from proxy.audit.sinks import Sink

__all__ = ["Observers", "WorkerObservers"]

_NO_OTEL: Final = "otel.endpoint needs more packages: pip install 'trunkline[otel]' ({})"


def _exports(settings: Settings, redaction: Redaction) -> list[Sink]:
    """The sinks of HEP3 and OpenTelemetry. Raises SettingsError."""
    sinks: list[Sink] = []
    if settings.hep.address is not None:
        from proxy.export.hep import HepSink

        key = settings.hep.auth_key
        address = address_of(settings.hep.address)
        secret = "" if key is None else key.get_secret_value()
        try:
            sinks.append(HepSink(address, redaction, node_id=settings.hep.node_id, auth_key=secret))
        except OSError as error:
            raise SettingsError([f"hep.address: {settings.hep.address}: {error.strerror or error}"]) from None
    if settings.otel.endpoint is not None:
        try:
            from proxy.export.traces import TraceSink, otlp_provider
        except ImportError as error:
            raise SettingsError([_NO_OTEL.format(error)]) from None
        provider = otlp_provider(settings.otel.endpoint, settings.otel.service_name)
        sinks.append(TraceSink(provider, redaction))
    return sinks


class Observers:
    """For a process without workers: it serves the pages itself, in a thread.

    Attributes:
        sinks: to be given events.

    Raises SettingsError when an address is taken, or a package is missing.
    """

    def __init__(self, settings: Settings, redaction: Redaction, store: StoreSink | None) -> None:
        self._settings = settings
        self._store = store
        self._watch = LoopWatch()
        self._counts = Counts()
        self._doors = Doors(settings)
        self._web: WebThread | None = None
        self._view: StoreView | None = None
        self.sinks = _exports(settings, redaction)
        if "admin" in self._doors:
            self.sinks.append(self._counts)

    def start(self, runtime: Runtime) -> None:
        """Begin to serve; in the event loop, once everything listens."""
        if not self._doors:
            return
        from proxy.admin.server import WebThread

        loop = asyncio.get_running_loop()

        def tell(event: str, call_id: str, attempt: int, fields: dict[str, object]) -> None:
            try:
                loop.call_soon_threadsafe(_tell_stack, runtime, event, call_id, attempt, fields)
            except RuntimeError:  # the loop has ended
                pass

        self._watch.start()
        if self._store is not None:
            self._view = StoreView(self._store.settings.path)
        view = RuntimeView(runtime, self._watch, self._counts, self._store)
        self._web = WebThread(self._doors.sites(self._settings, view, self._view, tell))
        self._web.start()
        self._doors.announce(self._settings)

    def stop(self) -> None:
        """Serve no more."""
        self._watch.stop()
        if self._web is not None:
            self._web.stop()
        self._doors.close()
        if self._view is not None:
            self._view.close()


class WorkerObservers:
    """For one of several workers: it puts its state where whoever serves the pages finds it, and hears of webhooks.

    Args:
        board: where its state goes. lines: what it hears by. number: the worker's.

    Attributes:
        sinks: to be given events.

    Raises SettingsError when a package is missing.
    """

    def __init__(
        self, settings: Settings, redaction: Redaction, store: StoreSink | None, board: Board, lines: Lines, number: int
    ) -> None:
        self._store = store
        self._board = board
        self._lines = lines
        self._number = number
        self._publisher: Publisher | None = None
        self._watch = LoopWatch(self._tick)
        self._counts = Counts() if settings.admin.listen is not None else None
        self.sinks = _exports(settings, redaction)
        if self._counts is not None:
            self.sinks.append(self._counts)

    def start(self, runtime: Runtime) -> None:
        """Begin; in the event loop, once everything listens."""
        view = RuntimeView(runtime, self._watch, self._counts or Counts(), self._store)
        self._publisher = Publisher(self._board, self._number, view, self._counts)
        self._lines.listen(self._number, lambda *told: _tell_stack(runtime, *told))
        self._watch.start()
        self._publisher.publish()

    def _tick(self) -> None:
        assert self._publisher is not None
        self._publisher.publish()

    def stop(self) -> None:
        """Put the state up for the last time."""
        self._watch.stop()
        if self._publisher is not None:
            self._publisher.publish()


def _tell_stack(runtime: Runtime, event: str, call_id: str, attempt: int, fields: dict[str, object]) -> None:
    """In the calls' event loop: put a webhook on the record."""
    stack = runtime.stack
    if isinstance(stack, Stack):
        webhooks = stack.webhooks
        step = {"arrived": webhooks.arrived, "answered": webhooks.answered, "refused": webhooks.refused}[event]
        runtime.drive(step, call_id, attempt, fields)
