"""States of workers in shared memory, and what is made of them: no processes, no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from proxy.admin.counts import Counts
from proxy.admin.metrics import render
from proxy.audit.records import Event
from proxy.fleet import Board, FleetView, Publisher
from tests.admin.conftest import Process


@pytest.fixture
def board() -> Iterator[Board]:
    with closing(Board(2)) as made:
        yield made


class Worker:
    """One that has begun."""

    def __init__(self, board: Board, number: int) -> None:
        self.counts = Counts()
        self.process = Process(self.counts)
        self.publisher = Publisher(board, number, self.process, self.counts)
        board.set_state(number, True, board.state_of(number)[1])

    def ended(self, outcome: str, count: int, now: float = 600.0) -> None:
        """Calls that ended."""
        for _ in range(count):
            self.counts.emit(Event("call-end", now, "c", "", 1, {"outcome": outcome, "ended_by": "caller"}))
        self.publisher.publish()


def metrics(view: FleetView) -> dict[str, float]:
    lines = [line for line in render(view).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_the_latest_whole_state_counts(board: Board) -> None:
    assert board.read(1) is None
    for text in (b"one", b"two", b"three"):
        assert board.write(1, text)
        assert board.read(1) == text
    assert board.read(0) is None
    assert board.beat(1) == 3


@pytest.mark.parametrize("at", [0, 8, 12, 16, 20])
def test_a_state_that_was_cut_off_leaves_the_one_before(board: Board, at: int) -> None:
    board.write(0, b"the one before")
    board.write(0, b"this one is not whole")
    start = board._start(0, 0)
    board._memory[start + at] ^= 0xFF
    assert board.read(0) == b"the one before"


def test_a_state_that_is_too_long_is_not_put_up(board: Board) -> None:
    board.write(0, b"short")
    assert not board.write(0, bytes(600_000))
    assert board.read(0) == b"short"


def test_another_process_sees_it(board: Board) -> None:
    pid = os.fork()
    if pid == 0:
        board.write(0, b"from the child")
        board.set_state(1, True, 7)
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.read(0) == b"from the child"
    assert board.state_of(1) == (True, 7)
    assert board.state_of(0) == (False, 0)


def test_counters_and_gauges_add(board: Board) -> None:
    first, second = Worker(board, 0), Worker(board, 1)
    first.ended("answered", 3)
    second.ended("answered", 2)
    second.ended("failed", 1)
    found = metrics(FleetView(board))
    assert found['trunkline_calls_total{ended_by="caller",outcome="answered"}'] == 5
    assert found['trunkline_calls_total{ended_by="caller",outcome="failed"}'] == 1
    assert found["trunkline_calls_in_progress"] == 6
    assert found['trunkline_table_size{table="server_transactions"}'] == 10
    assert found['trunkline_limits_reached_total{limit="invites_per_s"}'] == 4
    assert found["trunkline_store_written_events_total"] == 2 * 4321
    assert found['trunkline_target_up{target="openai"}'] == 1
    assert found['trunkline_target_up{target="azure"}'] == 0
    assert found["trunkline_event_loop_lag_seconds"] == 0.0012
    assert found['trunkline_worker_calls_in_progress{worker="1"}'] == 3
    assert found["trunkline_ready"] == 1
    assert found["process_cpu_seconds_total"] > 0
    assert found["process_resident_memory_bytes"] > 1_000_000
    assert FleetView(board).counts().recent(600.0) == (5, 1, 0)


def test_a_worker_that_dies_takes_gauges_along_and_no_counter_falls(board: Board) -> None:
    first, second = Worker(board, 0), Worker(board, 1)
    first.ended("answered", 3)
    second.ended("answered", 2)
    before = metrics(FleetView(board))
    board.set_state(1, False, 0)
    gone = metrics(FleetView(board))
    assert gone["trunkline_calls_in_progress"] == 3
    assert gone['trunkline_worker_up{worker="1"}'] == 0
    board.set_state(1, True, 1)
    successor = Worker(board, 1)
    successor.publisher.publish()
    back = metrics(FleetView(board))
    successor.ended("answered", 1)
    last = metrics(FleetView(board))
    assert last['trunkline_worker_restarts_total{worker="1"}'] == 1
    assert last['trunkline_calls_total{ended_by="caller",outcome="answered"}'] == 6
    assert last["trunkline_calls_in_progress"] == 6
    series = [before, gone, back, last]
    for name in before:
        if "_total" in name or "_bucket" in name:
            values = [found[name] for found in series]
            assert values == sorted(values), name


def test_ready_while_one_worker_takes_calls(board: Board) -> None:
    view = FleetView(board)
    assert not view.alive()
    assert not view.listeners()
    first, second = Worker(board, 0), Worker(board, 1)
    first.process.is_draining = True
    for worker in (first, second):
        worker.publisher.publish()
    view = FleetView(board)
    assert view.alive()
    assert not view.draining()
    assert view.listeners() == ["udp:127.0.0.1:5060"]
    second.process.is_draining = True
    second.publisher.publish()
    assert FleetView(board).draining()


def test_told_to_stop_is_draining_at_once(board: Board) -> None:
    worker = Worker(board, 0)
    worker.publisher.publish()
    assert not FleetView(board).draining()
    board.stop()
    assert FleetView(board).draining()
    assert FleetView(board).alive()


def test_one_that_is_stuck_takes_no_calls(board: Board) -> None:
    worker = Worker(board, 0)
    worker.publisher.publish()
    now = FleetView(board).now()
    late = FleetView(board, lambda: now + 6.0)
    assert not late.alive()
    assert late.calls_in_progress() == 0
    assert late.workers()[0].up is False


def test_the_store_fails_when_it_does_for_one(board: Board) -> None:
    first, second = Worker(board, 0), Worker(board, 1)
    first.publisher.publish()
    second.process.store = {"ok": False, "error": "disk full", "waiting": 5, "written": 1, "dropped": 2}
    second.publisher.publish()
    state = FleetView(board).store_state()
    assert state == {"ok": False, "error": "disk full", "waiting": 5, "written": 4322, "dropped": 2}
