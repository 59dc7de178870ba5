"""The tables as data, and the page that is drawn from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.transaction.tables import (
    INVITE_CLIENT,
    INVITE_SERVER,
    MACHINES,
    NON_INVITE_SERVER,
    Action,
    Event,
    Machine,
    State,
    bind,
    diagram,
    document,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "transactions.md"
machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
transports = pytest.mark.parametrize("reliable", [False, True], ids=["unreliable", "reliable"])


def constants(holder: type) -> set[str]:
    return {value for name, value in vars(holder).items() if name.isupper()}


def test_page_is_what_the_tables_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == document()


@machines
def test_page_has_the_diagram_and_a_line_for_each_row(machine: Machine) -> None:
    text = document()
    assert f"```mermaid\n{diagram(machine)}```" in text
    arrows = [line for line in diagram(machine).splitlines() if "-->" in line]
    assert len(arrows) == len(machine.rows) + 1


def test_diagram_draws_begin_and_end() -> None:
    lines = diagram(INVITE_CLIENT).splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert lines[1] == "    [*] --> Calling: request (unreliable) / start A, start B, send request"
    assert lines[-1] == "    Terminated --> [*]"
    assert "    Calling --> Terminated: given up by TU" in lines


@machines
def test_rows_are_well_formed(machine: Machine) -> None:
    for row in machine.rows:
        assert {row.state, row.target} <= constants(State)
        assert row.event in constants(Event)
        assert set(row.actions) <= constants(Action)
        assert re.fullmatch(r"(3261|6026) [0-9.]+( step \d)?", row.source)
        assert row.over in ("any", "reliable", "unreliable")


@machines
def test_no_two_rows_for_the_same(machine: Machine) -> None:
    for reliable in (False, True):
        over = [
            (row.state, row.event) for row in machine.rows if row.over != ("unreliable" if reliable else "reliable")
        ]
        assert len(over) == len(set(over))


@machines
@transports
def test_every_state_is_reached_and_left(machine: Machine, reliable: bool) -> None:
    table = machine.transitions(reliable)
    reached = {target for target, _ in table.values()} | {State.INITIAL}
    assert reached == {state for state, _ in table} | {State.TERMINATED}
    for state in reached - {State.TERMINATED}:
        assert any(origin == state and target != state for (origin, _), (target, _) in table.items())


@machines
@transports
def test_no_timer_starts_in_the_end(machine: Machine, reliable: bool) -> None:
    for target, actions in machine.transitions(reliable).values():
        if target == State.TERMINATED:
            assert not [action for action in actions if action.startswith(("start", "stop")) or "=" in action]


@machines
@transports
def test_every_timer_that_starts_has_a_row_where_it_fires(machine: Machine, reliable: bool) -> None:
    table = machine.transitions(reliable)
    for target, actions in table.values():
        for action in actions:
            if action.startswith("start "):
                assert (target, f"timer {action[-1]}") in table


@machines
def test_no_retransmission_over_reliable_transports(machine: Machine) -> None:
    for (_, event), (_, actions) in machine.transitions(True).items():
        assert event not in (Event.TIMER_A, Event.TIMER_E, Event.TIMER_G)
        assert event not in (Event.TIMER_D, Event.TIMER_I, Event.TIMER_J, Event.TIMER_K)
        assert Action.RESEND_REQUEST not in actions


def test_a_table_cannot_be_changed() -> None:
    table = INVITE_SERVER.transitions(False)
    with pytest.raises(TypeError):
        table[(State.ACCEPTED, Event.ACK)] = (State.TERMINATED, ())  # type: ignore[index]


def test_bind_puts_functions_in_place_of_actions() -> None:
    names = {action: action.upper() for row in NON_INVITE_SERVER.rows for action in row.actions}
    bound = bind(NON_INVITE_SERVER, False, names)
    assert bound[State.TRYING][Event.FINAL] == (State.COMPLETED, ("START J", "SEND RESPONSE"))
    assert bound[State.TERMINATED] == {}
    del names[Action.START_J]
    with pytest.raises(KeyError, match="start J"):
        bind(NON_INVITE_SERVER, False, names)
