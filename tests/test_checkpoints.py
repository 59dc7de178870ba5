"""The tables that outlive a worker: as a dictionary, whatever happens, and whole after a kill at any moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.checkpoints import Checkpoints

CALLS = 300


@pytest.fixture
def checkpoints() -> Iterator[Checkpoints]:
    with closing(Checkpoints(2, CALLS)) as made:
        yield made


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "drop", "die"]),
        st.sampled_from(["c1", "c2", "c3"]),
        st.sampled_from(["a", "b"]),
        st.lists(st.text(st.characters(codec=None, exclude_categories=()), max_size=700), max_size=4),
    ),
    max_size=30,
)


@given(STEPS)
def test_it_is_a_dictionary(steps: list[tuple[str, str, str, list[str]]]) -> None:
    with closing(Checkpoints(2, CALLS)) as checkpoints:
        table, model = checkpoints.table(1), dict[tuple[str, str], list[str]]()
        other = checkpoints.table(0)
        other.put("theirs", "a", ["kept"])
        for step, call, side, facts in steps:
            if step == "put":
                table.put(call, side, facts)
                model[call, side] = facts
            elif step == "drop":
                table.drop(call, side)
                model.pop((call, side), None)
            else:
                table = checkpoints.table(1)
                assert {(call, side): facts for call, side, facts in table.load()} == model
        assert len(table) == len(model)
        left = {(call, side): facts for call, side, facts in checkpoints.table(1).load()}
        assert left == model
        assert checkpoints.left_by(0) == 1


def test_the_oldest_come_first(checkpoints: Checkpoints) -> None:
    table = checkpoints.table(0)
    for number in (3, 1, 2):
        table.put(f"c{number}", "a", [])
    assert [call for call, _, _ in checkpoints.table(0).load()] == ["c3", "c1", "c2"]


def test_room_is_used_again(checkpoints: Checkpoints) -> None:
    table = checkpoints.table(0)
    for number in range(20 * CALLS):
        table.put(f"c{number}", "a", ["x" * (number % 1500)])
        if number >= 10:
            table.drop(f"c{number - 10}", "a")
    assert table.lost == 0
    assert table._used < 60


def test_what_finds_no_room_is_counted_and_leaves_the_rest_alone(checkpoints: Checkpoints) -> None:
    table = checkpoints.table(0)
    for number in range(2000):
        table.put(f"c{number}", "a", ["x" * 400])
    assert table.lost > 0
    assert len(table) + table.lost == 2000
    assert checkpoints.left_by(0) == len(table)
    assert checkpoints.left_by(1) == 0
    before = len(table)
    table.drop("c0", "a")
    table.put("later", "a", ["y"])
    assert len(table) == before


def write_for_ever(checkpoints: Checkpoints) -> None:
    """Records that say by their length what is in them, and one that is always there."""
    table = checkpoints.table(1)
    for number in count():
        size = number * 37 % 2000
        table.put(f"c{number % 50}", "b", [str(number), size, chr(97 + number % 26) * size])
        table.put("always", "a", [number])
        if number % 3 == 0:
            table.drop(f"c{(number + 25) % 50}", "b")


def test_a_kill_at_any_moment_leaves_whole_records(checkpoints: Checkpoints) -> None:
    last = -1
    for turn in range(12):
        pid = os.fork()
        if pid == 0:
            try:
                checkpoints.table(1).load()
                write_for_ever(checkpoints)
            finally:
                os._exit(1)
        time.sleep(0.01 + turn * 0.003)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        table = checkpoints.table(1)
        found = {(call, side): facts for call, side, facts in table.load()}
        for (call, _), facts in found.items():
            if call != "always":
                number, size, text = facts
                assert call == f"c{int(number) % 50}"
                assert text == chr(97 + int(number) % 26) * size
        if found:
            assert ("always", "a") in found or len(found) == 1
            last = max(last, turn)
        assert table.lost == 0
    assert last >= 0, "the child never got to write"
