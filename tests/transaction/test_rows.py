"""Every row of the four tables, over both kinds of transport, by messages and by time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from proxy.sip.flow import Flow
from proxy.sip.message import Request
from proxy.transaction.client import ClientTransaction
from proxy.transaction.server import ServerTransaction
from proxy.transaction.tables import (
    INVITE_CLIENT,
    INVITE_SERVER,
    MACHINES,
    NON_INVITE_CLIENT,
    NON_INVITE_SERVER,
    Event,
    Machine,
    State,
)
from tests.transaction.harness import Harness, request, response, tcp_flow, udp_flow

# state, event, transport, next state, messages sent, what the TU is told, seconds to each timer that is active then.
INVITE_CLIENT_ROWS = """
Initial    | request         | udp  | Calling    | INVITE |                   | 0.5 32
Initial    | request         | tcp  | Calling    | INVITE |                   | 32
Calling    | timer A         | udp  | Calling    | INVITE |                   | 1 31.5
Calling    | timer B         | both | Terminated |        | timeout           |
Calling    | transport error | both | Terminated |        | transport failure |
Calling    | given up by TU  | both | Terminated |        |                   |
Calling    | 1xx             | both | Proceeding |        | response 183      |
Calling    | 2xx             | both | Accepted   |        | response 200      | 32
Calling    | 300-699         | udp  | Completed  | ACK    | response 486      | 32
Calling    | 300-699         | tcp  | Terminated | ACK    | response 486      |
Proceeding | 1xx             | both | Proceeding |        | response 183      |
Proceeding | 2xx             | both | Accepted   |        | response 200      | 32
Proceeding | 300-699         | udp  | Completed  | ACK    | response 486      | 32
Proceeding | 300-699         | tcp  | Terminated | ACK    | response 486      |
Proceeding | transport error | both | Terminated |        | transport failure |
Proceeding | given up by TU  | both | Terminated |        |                   |
Completed  | 300-699         | udp  | Completed  | ACK    |                   | 32
Completed  | 2xx             | udp  | Completed  |        | stray 200         | 32
Completed  | timer D         | udp  | Terminated |        |                   |
Completed  | transport error | udp  | Terminated |        |                   |
Completed  | given up by TU  | udp  | Terminated |        |                   |
Accepted   | 2xx             | both | Accepted   |        | response 200      | 32
Accepted   | timer M         | both | Terminated |        |                   |
Accepted   | given up by TU  | both | Terminated |        |                   |
"""
NON_INVITE_CLIENT_ROWS = """
Initial    | request         | udp  | Trying     | OPTIONS |                   | 0.5 32
Initial    | request         | tcp  | Trying     | OPTIONS |                   | 32
Trying     | timer E         | udp  | Trying     | OPTIONS |                   | 1 31.5
Trying     | timer F         | both | Terminated |         | timeout           |
Trying     | transport error | both | Terminated |         | transport failure |
Trying     | given up by TU  | both | Terminated |         |                   |
Trying     | 1xx             | udp  | Proceeding |         | response 183      | 0.5 32
Trying     | 1xx             | tcp  | Proceeding |         | response 183      | 32
Trying     | 200-699         | udp  | Completed  |         | response 200      | 5
Trying     | 200-699         | tcp  | Terminated |         | response 200      |
Proceeding | timer E         | udp  | Proceeding | OPTIONS |                   | 4 31.5
Proceeding | timer F         | both | Terminated |         | timeout           |
Proceeding | transport error | both | Terminated |         | transport failure |
Proceeding | given up by TU  | both | Terminated |         |                   |
Proceeding | 1xx             | udp  | Proceeding |         | response 183      | 0.5 32
Proceeding | 1xx             | tcp  | Proceeding |         | response 183      | 32
Proceeding | 200-699         | udp  | Completed  |         | response 200      | 5
Proceeding | 200-699         | tcp  | Terminated |         | response 200      |
Completed  | 200-699         | udp  | Completed  |         |                   | 5
Completed  | timer K         | udp  | Terminated |         |                   |
Completed  | given up by TU  | udp  | Terminated |         |                   |
"""
INVITE_SERVER_ROWS = """
Initial    | request         | both | Proceeding |     | request INVITE |
Proceeding | request         | both | Proceeding | 180 |                |
Proceeding | 1xx             | both | Proceeding | 183 |                |
Proceeding | 2xx             | both | Accepted   | 200 |                | 32
Proceeding | 300-699         | udp  | Completed  | 486 |                | 0.5 32
Proceeding | 300-699         | tcp  | Completed  | 486 |                | 32
Proceeding | transport error | both | Proceeding |     | server failure |
Completed  | request         | udp  | Completed  | 486 |                | 0.5 32
Completed  | request         | tcp  | Completed  | 486 |                | 32
Completed  | timer G         | udp  | Completed  | 486 |                | 1 31.5
Completed  | timer H         | both | Terminated |     | server failure |
Completed  | ACK             | udp  | Confirmed  |     |                | 5
Completed  | ACK             | tcp  | Terminated |     |                |
Completed  | transport error | udp  | Completed  |     | server failure | 0.5 32
Completed  | transport error | tcp  | Completed  |     | server failure | 32
Confirmed  | request         | udp  | Confirmed  |     |                | 5
Confirmed  | ACK             | udp  | Confirmed  |     |                | 5
Confirmed  | timer I         | udp  | Terminated |     |                |
Accepted   | request         | both | Accepted   |     |                | 32
Accepted   | ACK             | both | Accepted   |     | ACK            | 32
Accepted   | 2xx             | both | Accepted   | 200 |                | 32
Accepted   | transport error | both | Accepted   |     | server failure | 32
Accepted   | timer L         | both | Terminated |     |                |
"""
NON_INVITE_SERVER_ROWS = """
Initial    | request         | both | Trying     |     | request OPTIONS |
Trying     | request         | both | Trying     |     |                 |
Trying     | 1xx             | both | Proceeding | 183 |                 |
Trying     | 200-699         | udp  | Completed  | 200 |                 | 32
Trying     | 200-699         | tcp  | Terminated | 200 |                 |
Proceeding | request         | both | Proceeding | 180 |                 |
Proceeding | 1xx             | both | Proceeding | 183 |                 |
Proceeding | 200-699         | udp  | Completed  | 200 |                 | 32
Proceeding | 200-699         | tcp  | Terminated | 200 |                 |
Proceeding | transport error | both | Terminated |     | server failure  |
Completed  | request         | udp  | Completed  | 200 |                 | 32
Completed  | 200-699         | udp  | Completed  |     |                 | 32
Completed  | timer J         | udp  | Terminated |     |                 |
Completed  | transport error | udp  | Terminated |     | server failure  |
Terminated | transport error | tcp  | Terminated |     | server failure  |
"""
TEXTS = (
    (INVITE_CLIENT, INVITE_CLIENT_ROWS),
    (NON_INVITE_CLIENT, NON_INVITE_CLIENT_ROWS),
    (INVITE_SERVER, INVITE_SERVER_ROWS),
    (NON_INVITE_SERVER, NON_INVITE_SERVER_ROWS),
)

# Seconds from the entry into a state until a timer that runs there fires.
FIRES_AFTER = {
    Event.TIMER_A: 0.5,
    Event.TIMER_B: 32,
    Event.TIMER_D: 32,
    Event.TIMER_E: 0.5,
    Event.TIMER_F: 32,
    Event.TIMER_G: 0.5,
    Event.TIMER_H: 32,
    Event.TIMER_I: 5,
    Event.TIMER_J: 32,
    Event.TIMER_K: 5,
    Event.TIMER_L: 32,
    Event.TIMER_M: 32,
}
RESPONSES = {Event.PROVISIONAL: 183, Event.SUCCESS: 200, Event.FAILURE: 486, Event.FINAL: 200}


@dataclass(frozen=True)
class Expected:
    machine: Machine
    state: str
    event: str
    reliable: bool
    target: str
    sent: list[str]
    told: list[str]
    timers: list[float]

    def __str__(self) -> str:
        return f"{self.machine.name}: {self.state}, {self.event}, {'reliable' if self.reliable else 'unreliable'}"


def expectations() -> list[Expected]:
    found: list[Expected] = []
    for machine, text in TEXTS:
        for line in text.strip().splitlines():
            state, event, transport, target, sent, told, timers = (cell.strip() for cell in line.split("|"))
            found.extend(
                Expected(
                    machine,
                    state,
                    event,
                    name == "tcp",
                    target,
                    sent.split(),
                    [told] if told else [],
                    [float(timer) for timer in timers.split()],
                )
                for name in (("udp", "tcp") if transport == "both" else (transport,))
            )
    return found


EXPECTED = expectations()


class Driver:
    """Brings one transaction into a state and lets an event happen to it."""

    def __init__(self, machine: Machine, reliable: bool) -> None:
        self.harness = Harness()
        self.flow: Flow = tcp_flow() if reliable else udp_flow()
        self.client = machine in (INVITE_CLIENT, NON_INVITE_CLIENT)
        self.invite = machine in (INVITE_CLIENT, INVITE_SERVER)
        self.request: Request = request("INVITE" if self.invite else "OPTIONS")
        self.tx: ClientTransaction | ServerTransaction | None = None

    def enter(self, state: str) -> None:
        if state != State.INITIAL:
            self.happen(Event.REQUEST)
        if state == State.PROCEEDING or (self.invite and state not in (State.INITIAL, State.CALLING)):
            self.response(180)
        if state in (State.COMPLETED, State.CONFIRMED):
            self.response(486 if self.invite else 200)
        if state in (State.ACCEPTED, State.TERMINATED):
            self.response(200)
        if state == State.CONFIRMED:
            self.happen(Event.ACK)
        if state != State.INITIAL:
            assert self.need().state == state
        self.harness.sends()
        self.harness.tellings()

    def end(self) -> None:
        """Bring it into Terminated, whatever the machine and transport."""
        self.happen(Event.REQUEST)
        if self.client:
            self.happen(Event.TERMINATE)
        else:
            self.response(200)
            self.harness.pass_time(32)
        self.harness.sends()
        self.harness.tellings()

    def need(self) -> ClientTransaction | ServerTransaction:
        assert self.tx is not None
        return self.tx

    def response(self, status: int) -> None:
        if self.client:
            self.harness.get(response(self.request, status), self.flow)
        else:
            self.harness.respond(status)

    def happen(self, event: str) -> None:
        harness = self.harness
        if event in FIRES_AFTER:
            harness.pass_time(FIRES_AFTER[event] - 0.001)
            harness.sends()
            harness.pass_time(0.001)
        elif event == Event.REQUEST and self.client:
            self.tx = harness.layer.send_request(self.request, self.flow, harness, harness.now)
        elif event == Event.REQUEST:
            harness.get(request(self.request.method), self.flow)
            self.tx = harness.server
        elif event == Event.ACK:
            harness.get(request("ACK", to_tag="t1"), self.flow)
        elif event == Event.TERMINATE:
            tx = self.need()
            assert isinstance(tx, ClientTransaction)
            tx.terminate(harness.now)
        elif event == Event.TRANSPORT_ERROR:
            self.fail()
        else:
            self.response(RESPONSES[event])

    def fail(self) -> None:
        tx = self.need()
        if isinstance(tx, ClientTransaction):
            tx.step(Event.TRANSPORT_ERROR, None, self.harness.now)
        else:
            tx.step(Event.TRANSPORT_ERROR, None, self.flow, self.harness.now)


def test_every_row_has_its_expectation() -> None:
    rows = {
        (machine.name, state, event, reliable)
        for machine in MACHINES
        for reliable in (False, True)
        for state, event in machine.transitions(reliable)
    }
    expected = [(e.machine.name, e.state, e.event, e.reliable) for e in EXPECTED]
    assert len(set(expected)) == len(expected)
    assert set(expected) == rows


@pytest.mark.parametrize("expected", EXPECTED, ids=str)
def test_row(expected: Expected) -> None:
    driver = Driver(expected.machine, expected.reliable)
    driver.enter(expected.state)
    driver.happen(expected.event)
    harness = driver.harness
    assert driver.need().state == expected.target
    assert harness.sends() == expected.sent
    assert harness.tellings() == expected.told
    assert harness.active() == expected.timers
    assert len(harness.layer) == (0 if expected.target == State.TERMINATED else 1)
    if expected.target == State.TERMINATED:
        assert set(harness.layer.tables().values()) == {0}
        assert len(harness.timers) == 0


def silent() -> list[tuple[Machine, str, str, bool]]:
    """Every event of a machine in every state that has no row for it."""
    found: list[tuple[Machine, str, str, bool]] = []
    for machine in MACHINES:
        events = sorted({row.event for row in machine.rows})
        for reliable in (False, True):
            table = machine.transitions(reliable)
            states = sorted({row[0] for row in table} | {target for target, _ in table.values()})
            found.extend(
                (machine, state, event, reliable)
                for state in states
                for event in events
                if state != State.INITIAL and (state, event) not in table
            )
    return found


@pytest.mark.parametrize("reliable", [False, True])
def test_event_without_a_row_changes_nothing(reliable: bool) -> None:
    cases = [case for case in silent() if case[3] == reliable]
    assert len(cases) > 60
    for machine, state, event, _ in cases:
        driver = Driver(machine, reliable)
        if state == State.TERMINATED:
            driver.end()
        else:
            driver.enter(state)
        harness, tx = driver.harness, driver.need()
        assert tx.state == state
        before = harness.active()
        if isinstance(tx, ClientTransaction):
            answer = response(driver.request, RESPONSES[event]) if event in RESPONSES else None
            tx.step(event, answer, harness.now)
        else:
            tx.step(event, response(driver.request, RESPONSES.get(event, 200)), driver.flow, harness.now)
        where = f"{machine.name}: {state}, {event}"
        assert tx.state == state, where
        assert (harness.sends(), harness.tellings()) == ([], []), where
        assert harness.active() == before, where
