"""A dashboard over a store with an hour of simulated calls, served on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.admin.app import AdminState, create_app
from proxy.admin.counts import Counts
from proxy.admin.server import Site, WebThread, bind
from proxy.commands.observe import StoreView
from proxy.rehearsal import START, Causes, Rehearsal, RehearsalOptions
from proxy.rulefiles import load_directory_or_files
from proxy.settings.loading import shipped_rules
from proxy.storage.sink import StoreSettings, StoreSink

SPAN_S = 3000.0
TOKEN = "a-token-for-tests-only"


class Process:
    """A running process, as the pages see it; tests set what it says."""

    def __init__(self) -> None:
        self.is_draining = False
        self.is_alive = True
        self.heard = ["udp:127.0.0.1:5060"]

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
        return {"ok": True, "error": "", "waiting": 0, "written": 4321, "dropped": 0}


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
    process, view = Process(), StoreView(path)
    site = Site("admin", create_app(AdminState(process, counts, view, TOKEN)), bind("127.0.0.1", 0))
    web = WebThread([site])
    web.start()
    yield Dashboard(site.url, process, counts, view, path)
    web.stop()
    view.close()
