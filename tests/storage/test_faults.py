"""A store that can't be written to: calls are unharmed, the operator is told, and it recovers by itself."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from proxy.audit.records import Event
from proxy.rehearsal import WALL_OFFSET, Rehearsal, RehearsalOptions
from proxy.rewrite.engine import RuleSet
from proxy.storage.queries import StoreReader
from proxy.storage.schema import open_writer
from proxy.storage.sink import StoreSettings, StoreSink
from tests.storage.conftest import Tape

LIMIT_S = 20.0


@pytest.fixture
def log() -> Iterator[list[Mapping[str, Any]]]:
    """What the sinks of a test log."""
    with structlog.testing.capture_logs() as lines:
        yield lines  # type: ignore[misc]


def until(check: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def make(path: Path, **rest: Any) -> StoreSink:
    return StoreSink(StoreSettings(path, **rest), wall_offset=WALL_OFFSET)


def calls_in(path: Path) -> int:
    with StoreReader(path) as reader:
        return reader.status().calls


def events_of(tape: Tape, first: int, last: int) -> list[Event]:
    """All events of some calls."""
    names = [event.call for event in tape.of("call-start")][first:last]
    return [event for event in tape.events if event.call in names]


def emit(sink: StoreSink, events: list[Event]) -> None:
    for event in events:
        sink.emit(event)


def said(log: list[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [line for line in log if line["event"] == kind]


def test_deleted_while_running(tape: Tape, tmp_path: Path, log: list[Mapping[str, Any]]) -> None:
    path = tmp_path / "calls.db"
    sink = make(path)
    emit(sink, events_of(tape, 0, 5))
    assert sink.flush()
    assert calls_in(path) == 5
    path.unlink()
    emit(sink, events_of(tape, 5, 12))
    assert sink.flush()
    sink.close()
    assert calls_in(path) == 7
    with StoreReader(path) as reader:
        assert all(fact.shape for fact in reader.facts())
    assert len(said(log, "store-deleted")) == 1
    assert sink.state().dropped == 0


def test_directory_deleted_while_running(tape: Tape, tmp_path: Path) -> None:
    path = tmp_path / "inner" / "calls.db"
    sink = make(path)
    emit(sink, events_of(tape, 0, 5))
    assert sink.flush()
    shutil.rmtree(path.parent)
    emit(sink, events_of(tape, 5, 12))
    assert sink.flush()
    sink.close()
    assert calls_in(path) == 7


def test_locked(tape: Tape, tmp_path: Path, log: list[Mapping[str, Any]]) -> None:
    path = tmp_path / "calls.db"
    open_writer(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    sink = make(path)
    began = time.perf_counter()
    emit(sink, tape.events)
    assert time.perf_counter() - began < LIMIT_S / 2
    until(lambda: bool(said(log, "store-failed")), "a lock is told")
    assert "locked" in said(log, "store-failed")[0]["reason"]
    assert sink.state().waiting == len(tape.events)
    other.execute("ROLLBACK")
    other.close()
    assert sink.flush(LIMIT_S)
    sink.close()
    assert calls_in(path) == len(tape.of("call-start"))
    assert sink.state().dropped == 0
    assert len(said(log, "store-recovered")) == 1


def test_damaged_file_is_moved_aside(tape: Tape, tmp_path: Path, log: list[Mapping[str, Any]]) -> None:
    path = tmp_path / "calls.db"
    sink = make(path)
    emit(sink, events_of(tape, 0, 5))
    assert sink.flush()
    sink.close()
    path.write_bytes(b"nothing that SQLite knows" * 4000)
    again = make(path)
    emit(again, events_of(tape, 5, 12))
    assert again.flush(LIMIT_S)
    again.close()
    assert calls_in(path) == 7
    aside = [item.name for item in tmp_path.iterdir() if ".damaged-" in item.name]
    assert aside
    assert "damaged" in said(log, "store-failed")[0]["reason"]


def test_damaged_pages_while_running(tape: Tape, tmp_path: Path) -> None:
    """Whatever SQLite notices, and when: the sink takes every event, and in the end there is a store that works."""
    path = tmp_path / "calls.db"
    sink = make(path)
    emit(sink, events_of(tape, 0, 10))
    assert sink.flush()
    with StoreReader(path) as reader:
        reader._db.execute("SELECT 1")
    raw = path.with_name("calls.db-wal")
    for file in (path, raw):
        size = file.stat().st_size
        with file.open("r+b") as target:
            target.seek(100)
            target.write(os.urandom(max(size - 100, 0)))
    emit(sink, events_of(tape, 10, 20))
    sink.flush(3.0)
    sink.close()
    last = make(path)
    emit(last, events_of(tape, 20, 25))
    assert last.flush(LIMIT_S)
    last.close()
    assert calls_in(path) >= 5


def test_a_file_that_is_not_ours_is_left_alone(tape: Tape, tmp_path: Path, log: list[Mapping[str, Any]]) -> None:
    path = tmp_path / "trunkline.yaml"
    path.write_text("listen: udp:0.0.0.0:5060\n" * 100)
    before = path.read_bytes()
    sink = make(path)
    emit(sink, events_of(tape, 0, 5))
    until(lambda: bool(said(log, "store-failed")), "it is told")
    sink.close()
    assert path.read_bytes() == before


def test_a_database_that_is_not_ours_is_left_alone(tape: Tape, tmp_path: Path, log: list[Mapping[str, Any]]) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE people (name TEXT)")
    other.close()
    before = path.read_bytes()
    sink = make(path)
    emit(sink, events_of(tape, 0, 5))
    until(lambda: bool(said(log, "store-failed")), "it is told")
    sink.close()
    assert "not a call store" in said(log, "store-failed")[0]["reason"]
    assert path.read_bytes() == before


def test_read_only(tape: Tape, tmp_path: Path, log: list[Mapping[str, Any]]) -> None:
    """SQLite's own refusal to write; tests may run as root, whom permissions do not stop."""
    path = tmp_path / "calls.db"
    open_writer(path).close()
    read_only = True

    def open_store(path: Path) -> sqlite3.Connection:
        connection = open_writer(path)
        connection.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        return connection

    sink = StoreSink(StoreSettings(path), wall_offset=WALL_OFFSET, open_store=open_store)
    emit(sink, events_of(tape, 0, 5))
    until(lambda: bool(said(log, "store-failed")), "it is told")
    assert "readonly" in said(log, "store-failed")[0]["reason"]
    assert "set store.path" in said(log, "store-failed")[0]["advice"]
    read_only = False
    assert sink.flush(LIMIT_S)
    sink.close()
    assert calls_in(path) == 5


def test_a_path_that_cannot_be(tape: Tape, tmp_path: Path, log: list[Mapping[str, Any]]) -> None:
    (tmp_path / "file").touch()
    sink = make(tmp_path / "file" / "calls.db")
    emit(sink, events_of(tape, 0, 5))
    until(lambda: bool(said(log, "store-failed")), "it is told")
    sink.close()
    assert not sink.state().ok


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 512 KiB; None where the system does not let us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], capture_output=True, check=False
    )
    if not done or done.returncode:
        yield None
        return
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def test_disk_full(tape: Tape, tmp_path: Path, small_disk: Path | None, log: list[Mapping[str, Any]]) -> None:
    """On a real file system that is full where one can be mounted, else by SQLite's own limit of pages."""
    full = True

    def open_store(path: Path) -> sqlite3.Connection:
        connection = open_writer(path)
        if small_disk is None:
            connection.execute(f"PRAGMA max_page_count={40 if full else 1_000_000}")
        return connection

    path = (small_disk or tmp_path) / "calls.db"
    ballast = path.with_name("ballast")
    sink = StoreSink(StoreSettings(path), wall_offset=WALL_OFFSET, open_store=open_store)
    emit(sink, events_of(tape, 0, 2))
    assert sink.flush()
    if small_disk is not None:
        fill(ballast)
    began = time.perf_counter()
    for _ in range(3):
        emit(sink, tape.events)
    assert time.perf_counter() - began < LIMIT_S / 2
    until(lambda: bool(said(log, "store-failed")), "it is told")
    line = said(log, "store-failed")[0]
    assert "full" in line["reason"] + line["advice"]
    ballast.unlink(missing_ok=True)
    full = False
    sink.flush(3.0)
    state = sink.state()
    sink.close()
    with StoreReader(path) as reader:
        assert reader.status().calls >= 2
    assert state.ok or state.waiting


def test_beyond_the_queue_events_are_dropped_and_counted(tape: Tape, tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    open_writer(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    sink = make(path, max_queue_bytes=20_000)
    emit(sink, tape.events)
    assert sink.state().dropped > 0
    other.execute("ROLLBACK")
    other.close()
    assert sink.flush(LIMIT_S)
    dropped = sink.state().dropped
    assert 0 < dropped < len(tape.events)
    until(lambda: sink.flush(LIMIT_S) and dropped_in(path) == dropped, "the store knows what it lacks")
    sink.close()
    with StoreReader(path) as reader:
        assert reader.status().dropped == dropped
        assert any(call.incomplete for call in reader.calls(limit=1000))
        assert not any(fact.call for fact in reader.facts() if fact.shape == ())


def dropped_in(path: Path) -> int:
    with StoreReader(path) as reader:
        return reader.status().dropped


class _Broken:
    """A sink for a store that fails in one way or another, and the time that it took from calls."""

    def __init__(self, sink: StoreSink) -> None:
        self.sink = sink
        self.worst_s = 0.0
        self.events: list[tuple[str, object, object]] = []

    def emit(self, event: Event) -> None:
        began = time.thread_time()
        self.sink.emit(event)
        self.worst_s = max(self.worst_s, time.thread_time() - began)
        if event.kind == "call-end":
            self.events.append((event.call, event.fields["outcome"], event.fields["setup_s"]))

    def close(self) -> None:
        self.sink.close()


@pytest.mark.parametrize("how", ["works", "locked", "no directory", "opening fails"])
def test_calls_are_the_same_whatever_the_store_does(how: str, tmp_path: Path, rules: Mapping[str, RuleSet]) -> None:
    def fail(path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    path = tmp_path / "calls.db"
    lock = None
    if how == "locked":
        open_writer(path).close()
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
    if how == "no directory":
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "calls.db"
    open_store = fail if how == "opening fails" else open_writer
    broken = _Broken(StoreSink(StoreSettings(path), wall_offset=WALL_OFFSET, open_store=open_store))
    plain = Tape()
    options = RehearsalOptions(calls=30, span_s=60.0, seed=3)
    Rehearsal(options, rules, "twilio-openai", [broken]).run()
    Rehearsal(options, rules, "twilio-openai", [plain]).run()
    ends = [(event.call, event.fields["outcome"], event.fields["setup_s"]) for event in plain.of("call-end")]
    assert broken.events == ends
    assert broken.worst_s < 0.5
    broken.close()
    if lock is not None:
        lock.close()


def test_a_store_that_hangs_holds_up_nobody(tape: Tape, tmp_path: Path, log: list[Mapping[str, Any]]) -> None:
    release = threading.Event()

    def hang(path: Path) -> sqlite3.Connection:
        release.wait(LIMIT_S)
        return open_writer(path)

    sink = StoreSink(StoreSettings(tmp_path / "calls.db"), wall_offset=WALL_OFFSET, open_store=hang)
    began = time.perf_counter()
    emit(sink, tape.events)
    assert time.perf_counter() - began < LIMIT_S / 2
    began = time.perf_counter()
    sink.close()
    assert time.perf_counter() - began < LIMIT_S / 2
    assert said(log, "store-failed")[0]["waiting"] == len(tape.events)
    release.set()
