"""What watching costs: microseconds per event on the call path, and how late the event loop gets while pages are read.

`python -m benchmarks.admin` places calls without sockets for the first, and serves a store of an hour's calls to
eight readers for the second. The event loop in the second does what a proxy's loop does: a timer each millisecond.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import TracerProvider

from proxy.admin.app import AdminState, create_app
from proxy.admin.counts import Counts
from proxy.admin.server import Site, WebThread
from proxy.admin.sockets import bind
from proxy.admin.view import WorkerState
from proxy.audit.records import Event
from proxy.audit.redact import Redaction
from proxy.audit.sinks import Sink
from proxy.commands.observe import StoreView
from proxy.export.hep import HepSink
from proxy.export.traces import TraceSink
from proxy.rehearsal import START, Causes, Rehearsal, RehearsalOptions
from proxy.rulefiles import load_directory_or_files
from proxy.settings.loading import shipped_rules
from proxy.storage.sink import StoreSettings, StoreSink

_CALLS = 600
_READERS = 8
_SECONDS = 5.0
_TOKEN = "a-token-for-benchmarks"  # noqa: S105
_PATHS = ("/", "/?part=1", "/calls", "/api/overview?range=1h", "/metrics", "/calls?outcome=failed", "CALL")


class _Kept:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing to be done."""


class _View:
    """A process in which nothing goes on any more."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def counts(self) -> Counts:
        return self._counts

    def workers(self) -> Sequence[WorkerState]:
        return ()

    def usage(self) -> None:
        return None

    def calls_in_progress(self) -> int:
        return 0

    def tables(self) -> Mapping[str, int]:
        return {}

    def counters(self) -> Mapping[str, int]:
        return {}

    def targets(self) -> Mapping[str, bool]:
        return {"openai": True}

    def rules(self) -> Mapping[str, str]:
        return {}

    def listeners(self) -> Sequence[str]:
        return ("udp:127.0.0.1:5060",)

    def draining(self) -> bool:
        return False

    def lag_s(self) -> float:
        return 0.0

    def alive(self) -> bool:
        return True

    def now(self) -> float:
        return START + 3600

    def store_state(self) -> Mapping[str, Any] | None:
        return None


def per_event(events: Sequence[Event], make: Callable[[], Sink], limit: int) -> float:
    """Microseconds that `emit` takes; the best of five rounds. `limit`: as many as the sink's queue takes."""
    best = float("inf")
    for _ in range(5):
        sink = make()
        some = events[:limit]
        started = time.perf_counter()
        for event in some:
            sink.emit(event)
        best = min(best, (time.perf_counter() - started) / len(some))
        sink.close()
    return best * 1e6


async def lateness(seconds: float) -> list[float]:
    """How late a timer of one millisecond fires, in milliseconds."""
    late: list[float] = []
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - now - 0.001) * 1000)
    return late


def read_on(url: str, paths: Sequence[str], stop: threading.Event, times: dict[str, list[float]]) -> None:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=30)
    while not stop.is_set():
        for path in paths:
            started = time.perf_counter()
            connection.request("GET", path, headers={"Authorization": f"Bearer {_TOKEN}"})
            connection.getresponse().read()
            times[path].append((time.perf_counter() - started) * 1000)


def show_lateness(name: str, late: list[float]) -> None:
    marks = statistics.quantiles(late, n=1000)
    print(f"{name:34} median {marks[499]:6.2f} ms   99 % {marks[989]:6.2f} ms   longest {max(late):6.2f} ms")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "calls.db"
        kept = _Kept()
        store, counts = StoreSink(StoreSettings(path), wall_offset=time.time() - START - 3600), Counts()
        store.start()
        options = RehearsalOptions(calls=_CALLS, span_s=3000.0, seed=1, causes=Causes("X-Tenant", "203.0.113.22"))
        rules = load_directory_or_files([shipped_rules()])
        Rehearsal(options, rules, "twilio-openai", [store, kept, counts]).run()
        store.flush(60.0)
        store.close()
        events = kept.events
        print(f"{_CALLS} calls, {len(events) / _CALLS:.1f} events a call\n\non the call path, microseconds per event")
        print(f"  metrics {per_event(events, Counts, 10**9):.2f}")
        print(f"  HEP3    {per_event(events, lambda: HepSink(('127.0.0.1', 9), Redaction()), 5000):.2f}")
        traces = per_event(events, lambda: TraceSink(TracerProvider(shutdown_on_exit=False), Redaction()), 20_000)
        print(f"  traces  {traces:.2f}\n")
        view = StoreView(path)
        site = Site("admin", create_app(AdminState(_View(counts), view, _TOKEN)), bind("127.0.0.1", 0))
        web = WebThread([site])
        web.start()
        show_lateness("event loop, nobody reads", asyncio.run(lateness(_SECONDS)))
        key = view.calls({}, 1, None)[0]["key"]
        paths = [path.replace("CALL", f"/calls/{key}") for path in _PATHS]
        stop, times = threading.Event(), {one: list[float]() for one in paths}
        readers = [threading.Thread(target=read_on, args=(site.url, paths, stop, times)) for _ in range(_READERS)]
        for reader in readers[:1]:
            reader.start()
        show_lateness("event loop, one reader in a loop", asyncio.run(lateness(_SECONDS)))
        for reader in readers[1:]:
            reader.start()
        show_lateness(f"event loop, {_READERS} readers in a loop", asyncio.run(lateness(_SECONDS)))
        stop.set()
        for reader in readers:
            reader.join()
        print("\npages, milliseconds (median, all readers)")
        for one, took in times.items():
            print(f"  {one:30.30} {statistics.median(took):7.1f}   {len(took)} times")
        web.stop()
        view.close()


if __name__ == "__main__":
    main()
