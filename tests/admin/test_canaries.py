"""No secret and no whole number on any page, in the API or in the metrics, with default settings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from proxy.admin.app import AdminState, create_app
from proxy.admin.counts import Counts
from proxy.admin.server import Site, WebThread
from proxy.admin.sockets import bind
from proxy.audit.redact import Redaction
from proxy.commands.observe import StoreView
from proxy.storage.queries import StoreReader
from proxy.storage.sink import StoreSettings, StoreSink
from tests.admin.conftest import TOKEN, Process
from tests.admin.test_app import ask
from tests.support.canaries import leaks, planted_events

PAGES = ("/", "/calls", "/diagnosis?range=24h", "/api/live", "/api/overview?range=24h", "/api/calls", "/metrics")
DIAGNOSED = ("/api/diagnosis?since=0",)


@pytest.fixture(params=[True, False], ids=["masked", "open"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path, bool]]:
    """The URL of the pages over planted calls, the store, and whether that is masked."""
    events, counts, path = planted_events(), Counts(), tmp_path / "calls.db"
    redaction = Redaction() if request.param else Redaction(False, False)
    store = StoreSink(StoreSettings(path, redaction=redaction), wall_offset=time.time() - 1200.0)
    for event in events:
        store.emit(event)
        counts.emit(event)
    assert store.flush()
    store.close()
    view = StoreView(path)
    served = Site("admin", create_app(AdminState(Process(counts), view, TOKEN)), bind("127.0.0.1", 0))
    web = WebThread([served])
    web.start()
    yield served.url, path, request.param
    web.stop()
    view.close()


def test_nothing_is_shown(site: tuple[str, Path, bool]) -> None:
    url, path, masked = site
    with StoreReader(path) as reader:
        keys = [call.key for call in reader.calls()]
    assert len(keys) == 2
    paths = [*PAGES, *DIAGNOSED, *[f"/{where}/{key}" for where in ("calls", "api/calls") for key in keys]]
    shown = {where: ask(url, where, Authorization=f"Bearer {TOKEN}") for where in paths}
    assert {where: one.status for where, one in shown.items() if one.status != 200} == {}
    found = {where: leaks(one.text) for where, one in shown.items()}
    if masked:
        assert {where: canaries for where, canaries in found.items() if canaries} == {}
    else:
        assert len(found[f"/calls/{keys[-1]}"]) > 30, "the search finds what there is"
        assert found["/metrics"] == [], "no label holds what a neighbour wrote, whatever the store holds"


def test_a_whole_number_finds_its_calls(site: tuple[str, Path, bool]) -> None:
    """Although it is nowhere to be read."""
    url, _, _ = site
    answer = ask(url, f"/api/calls?q={quote('+15550100002')}", Authorization=f"Bearer {TOKEN}")
    assert len(answer.json()["calls"]) == 2
