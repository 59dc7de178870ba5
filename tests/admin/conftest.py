"""A dashboard over a store with an hour of simulated calls, served on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.admin.app import AdminState, create_app
from proxy.admin.counts import Counts
from proxy.admin.server import Site, WebThread
from proxy.admin.sockets import bind
from proxy.admin.view import Usage, WorkerState
from proxy.commands.observe import StoreView
from proxy.rehearsal import START, Causes, Rehearsal, RehearsalOptions
from proxy.rulefiles import load_directory_or_files
from proxy.settings.loading import shipped_rules
from proxy.storage.sink import StoreSettings, StoreSink

SPAN_S = 3000.0
TOKEN = "a-token-for-tests-only"


class Process:
    """A running process with two workers, as the pages see it; tests set what it says."""

    def __init__(self, counts: Counts | None = None) -> None:
        self.counted = counts or Counts()
        self.is_draining = False
        self.is_alive = True
        self.heard = ["udp:127.0.0.1:5060"]
        self.store: Mapping[str, Any] = {"ok": True, "error": "", "waiting": 0, "written": 4321, "dropped": 0}

    def counts(self) -> Counts:
        return self.counted

    def workers(self) -> Sequence[WorkerState]:
        return [WorkerState(0, True, 0, 2, 0.0012), WorkerState(1, True, 1, 1, 0.0004)]

    def usage(self) -> Usage | None:
        return Usage(12.5, 100_000_000, 40, 65_536, 1_700_000_000.0)

    def calls_in_progress(self) -> int:
        return 3

    def tables(self) -> Mapping[str, int]:
        return {"calls": 3, "client_transactions": 4, "server_transactions": 5, "flows_in_use": 2}

    def counters(self) -> Mapping[str, int]:
        return {"dropped": 7, "limit_invites_per_s": 2}

    def targets(self) -> Mapping[str, bool]:
        return {"openai": True, "azure": False}

    def rules(self) -> Mapping[str, str]:
        return {"twilio-openai": "0123456789ab"}

    def listeners(self) -> Sequence[str]:
        return self.heard

    def draining(self) -> bool:
        return self.is_draining

    def lag_s(self) -> float:
        return 0.0012

    def alive(self) -> bool:
        return self.is_alive

    def now(self) -> float:
        return START + SPAN_S + 60

    def store_state(self) -> Mapping[str, Any] | None:
        return self.store


class Dashboard(NamedTuple):
    """What a test talks to."""

    url: str
    process: Process
    counts: Counts
    store: StoreView
    path: Path


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """Served for all tests of a run: 250 calls within the last hour, with causes of failure."""
    path = tmp_path_factory.mktemp("store") / "calls.db"
    store, counts = StoreSink(StoreSettings(path), wall_offset=time.time() - START - SPAN_S - 60), Counts()
    store.start()
    causes = Causes("X-Tenant", "203.0.113.22", (900.0, 1400.0))
    options = RehearsalOptions(calls=250, span_s=SPAN_S, seed=3, causes=causes)
    Rehearsal(options, load_directory_or_files([shipped_rules()]), "twilio-openai", [store, counts]).run()
    assert store.flush(30.0)
    store.close()
    process, view = Process(counts), StoreView(path)
    site = Site("admin", create_app(AdminState(process, view, TOKEN)), bind("127.0.0.1", 0))
    web = WebThread([site])
    web.start()
    yield Dashboard(site.url, process, counts, view, path)
    web.stop()
    view.close()
