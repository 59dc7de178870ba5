"""The call store under a running Trunkline: real calls by SIPp, a store that works and stores that can't."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import app
from proxy.storage.queries import StoreReader
from proxy.storage.schema import open_writer
from tests.support.processes import free_port, run_sipp, running_trunkline

CALLS = 60


def place(tmp_path: Path, sipp: str, store: Path, *flags: str) -> str:
    """Place calls with a store; all of them are to be answered. Returns what Trunkline printed."""
    port = free_port()
    with running_trunkline(tmp_path, f"sip:127.0.0.1:{port}", "--store", str(store), *flags) as proxy:
        run_sipp(
            sipp,
            tmp_path,
            caller="uac",
            callee="uas",
            proxy_port=proxy.port,
            callee_port=port,
            calls=CALLS,
            rate=30,
            transport="udp",
        )
        ends = proxy.wait_for("call-end", CALLS)
        if not store.is_file():
            time.sleep(0.6)
    assert {event["outcome"] for event in ends} == {"answered"}
    return proxy.output()


def test_every_call_is_in_the_store(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    store = tmp_path / "deep" / "calls.db"
    output = place(tmp_path, require_tool("sipp"), store)
    assert "store-failed" not in output
    with StoreReader(store) as reader:
        calls = reader.calls(limit=1000)
        assert {(call.outcome, call.state, call.incomplete) for call in calls} == {("answered", "ended", False)}
        assert len(calls) == CALLS
        times = [event["time"] for event in reader.timeline(calls[0].key)]
        assert abs(time.time() - calls[0].started) < 60
        assert times == sorted(times)
        assert reader.status().dropped == 0
    listed = CliRunner().invoke(app, ["calls", "list", "--store", str(store), "--json", "-n", "1000", "--since", "1h"])
    assert {json.loads(line)["id"] for line in listed.stdout.splitlines()} == {call.id for call in calls}


def locked(path: Path) -> sqlite3.Connection:
    """A store that another program holds."""
    open_writer(path).close()
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    return database


@pytest.mark.parametrize("how", ["locked", "no directory"])
def test_calls_go_on_without_a_store(how: str, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    path = tmp_path / "calls.db"
    lock = None
    if how == "locked":
        lock = locked(path)
    else:
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "calls.db"
    output = place(tmp_path, require_tool("sipp"), path)
    if lock is not None:
        lock.close()
    lines = [json.loads(line) for line in output.splitlines() if '"store-failed"' in line]
    assert lines
    assert "calls go on" in lines[0]["advice"]


def test_no_store(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    path = tmp_path / "calls.db"
    place(tmp_path, require_tool("sipp"), path, "--no-store")
    assert not path.exists()
