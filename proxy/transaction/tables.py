"""The four transaction machines as data (RFC 3261 section 17 as updated by RFC 6026), and diagrams drawn from them.

The machines in `client` and `server` run on these tables alone: an event without a row changes nothing. Timers that are
zero over reliable transports (D, I, J, K) have no rows there; the transaction ends at once. `docs/transactions.md` is
what `document()` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

__all__ = [
    "INVITE_CLIENT",
    "INVITE_SERVER",
    "MACHINES",
    "NON_INVITE_CLIENT",
    "NON_INVITE_SERVER",
    "Action",
    "Event",
    "Machine",
    "Row",
    "State",
    "bind",
    "diagram",
    "document",
]

F = TypeVar("F")


class State:
    """The states. `INITIAL` is a transaction that was made and has not begun."""

    INITIAL: Final = "Initial"
    CALLING: Final = "Calling"
    TRYING: Final = "Trying"
    PROCEEDING: Final = "Proceeding"
    ACCEPTED: Final = "Accepted"
    COMPLETED: Final = "Completed"
    CONFIRMED: Final = "Confirmed"
    TERMINATED: Final = "Terminated"


class Event:
    """What can happen to a transaction. Responses come from the network on the client side, from the TU on the server
    side; requests the other way round."""

    REQUEST: Final = "request"
    ACK: Final = "ACK"
    PROVISIONAL: Final = "1xx"
    SUCCESS: Final = "2xx"
    FAILURE: Final = "300-699"
    FINAL: Final = "200-699"
    TERMINATE: Final = "given up by TU"
    TRANSPORT_ERROR: Final = "transport error"
    TIMER_A: Final = "timer A"
    TIMER_B: Final = "timer B"
    TIMER_D: Final = "timer D"
    TIMER_E: Final = "timer E"
    TIMER_F: Final = "timer F"
    TIMER_G: Final = "timer G"
    TIMER_H: Final = "timer H"
    TIMER_I: Final = "timer I"
    TIMER_J: Final = "timer J"
    TIMER_K: Final = "timer K"
    TIMER_L: Final = "timer L"
    TIMER_M: Final = "timer M"


class Action:
    """What a transaction does on an event, in the order of the row. Entering `Terminated` stops all timers and takes
    the transaction out of the layer's tables first, without an action of its own."""

    # client
    SEND_REQUEST: Final = "send request"
    RESEND_REQUEST: Final = "send request again"
    SEND_ACK: Final = "send ACK"
    DELIVER_RESPONSE: Final = "response to TU"
    DELIVER_STRAY: Final = "response to TU as a stray one"
    REPORT_TIMEOUT: Final = "timeout to TU"
    # server
    DELIVER_REQUEST: Final = "request to TU"
    DELIVER_ACK: Final = "ACK to TU"
    SEND_RESPONSE: Final = "send response"
    RESEND_RESPONSE: Final = "send last response again"
    # both
    REPORT_FAILURE: Final = "failure to TU"
    # timers
    START_A: Final = "start A"
    DOUBLE_A: Final = "A = 2*A"
    START_B: Final = "start B"
    STOP_A_B: Final = "stop A and B"
    START_D: Final = "start D"
    START_E: Final = "start E"
    DOUBLE_E: Final = "E = min(2*E, T2)"
    SLOW_E: Final = "E = T2"
    START_F: Final = "start F"
    STOP_E_F: Final = "stop E and F"
    START_G: Final = "start G"
    DOUBLE_G: Final = "G = min(2*G, T2)"
    START_H: Final = "start H"
    STOP_G_H: Final = "stop G and H"
    START_I: Final = "start I"
    START_J: Final = "start J"
    START_K: Final = "start K"
    START_L: Final = "start L"
    START_M: Final = "start M"


@dataclass(frozen=True, slots=True)
class Row:
    """One transition.

    `source` names the RFC section. `over` is "any", "reliable" or "unreliable": the transports that the row is for.
    """

    state: str
    event: str
    target: str
    actions: tuple[str, ...]
    source: str
    over: str = "any"


@dataclass(frozen=True, slots=True)
class Machine:
    """One of the four transaction state machines."""

    name: str
    rows: tuple[Row, ...]

    def transitions(self, reliable: bool) -> Mapping[tuple[str, str], tuple[str, tuple[str, ...]]]:
        """`{(state, event): (next state, actions)}` over one kind of transport, read only."""
        other = "unreliable" if reliable else "reliable"
        return MappingProxyType(
            {(row.state, row.event): (row.target, row.actions) for row in self.rows if row.over != other}
        )


_S = State
_E = Event
_A = Action

INVITE_CLIENT: Final = Machine(
    "INVITE client transaction",
    (
        Row(
            _S.INITIAL, _E.REQUEST, _S.CALLING, (_A.START_A, _A.START_B, _A.SEND_REQUEST), "3261 17.1.1.2", "unreliable"
        ),
        Row(_S.INITIAL, _E.REQUEST, _S.CALLING, (_A.START_B, _A.SEND_REQUEST), "3261 17.1.1.2", "reliable"),
        Row(_S.CALLING, _E.TIMER_A, _S.CALLING, (_A.DOUBLE_A, _A.RESEND_REQUEST), "3261 17.1.1.2", "unreliable"),
        Row(_S.CALLING, _E.TIMER_B, _S.TERMINATED, (_A.REPORT_TIMEOUT,), "3261 17.1.1.2"),
        Row(_S.CALLING, _E.TRANSPORT_ERROR, _S.TERMINATED, (_A.REPORT_FAILURE,), "3261 17.1.4"),
        Row(_S.CALLING, _E.TERMINATE, _S.TERMINATED, (), "3261 9.1"),
        Row(_S.CALLING, _E.PROVISIONAL, _S.PROCEEDING, (_A.STOP_A_B, _A.DELIVER_RESPONSE), "3261 17.1.1.2"),
        Row(_S.CALLING, _E.SUCCESS, _S.ACCEPTED, (_A.STOP_A_B, _A.START_M, _A.DELIVER_RESPONSE), "6026 7.2"),
        Row(
            _S.CALLING,
            _E.FAILURE,
            _S.COMPLETED,
            (_A.STOP_A_B, _A.START_D, _A.SEND_ACK, _A.DELIVER_RESPONSE),
            "3261 17.1.1.2",
            "unreliable",
        ),
        Row(_S.CALLING, _E.FAILURE, _S.TERMINATED, (_A.SEND_ACK, _A.DELIVER_RESPONSE), "3261 17.1.1.2", "reliable"),
        Row(_S.PROCEEDING, _E.PROVISIONAL, _S.PROCEEDING, (_A.DELIVER_RESPONSE,), "3261 17.1.1.2"),
        Row(_S.PROCEEDING, _E.SUCCESS, _S.ACCEPTED, (_A.START_M, _A.DELIVER_RESPONSE), "6026 7.2"),
        Row(
            _S.PROCEEDING,
            _E.FAILURE,
            _S.COMPLETED,
            (_A.START_D, _A.SEND_ACK, _A.DELIVER_RESPONSE),
            "3261 17.1.1.2",
            "unreliable",
        ),
        Row(_S.PROCEEDING, _E.FAILURE, _S.TERMINATED, (_A.SEND_ACK, _A.DELIVER_RESPONSE), "3261 17.1.1.2", "reliable"),
        Row(_S.PROCEEDING, _E.TRANSPORT_ERROR, _S.TERMINATED, (_A.REPORT_FAILURE,), "3261 17.1.4"),
        Row(_S.PROCEEDING, _E.TERMINATE, _S.TERMINATED, (), "3261 9.1"),
        Row(_S.COMPLETED, _E.FAILURE, _S.COMPLETED, (_A.SEND_ACK,), "3261 17.1.1.2", "unreliable"),
        # A proxy that forked forwards a late 2xx even after a failure; its session must be ended by the TU.
        Row(_S.COMPLETED, _E.SUCCESS, _S.COMPLETED, (_A.DELIVER_STRAY,), "3261 16.7 step 5", "unreliable"),
        Row(_S.COMPLETED, _E.TIMER_D, _S.TERMINATED, (), "3261 17.1.1.2", "unreliable"),
        # The TU has its final response already, so it is not told that an ACK could not be sent.
        Row(_S.COMPLETED, _E.TRANSPORT_ERROR, _S.TERMINATED, (), "3261 17.1.1.2", "unreliable"),
        Row(_S.COMPLETED, _E.TERMINATE, _S.TERMINATED, (), "3261 9.1", "unreliable"),
        Row(_S.ACCEPTED, _E.SUCCESS, _S.ACCEPTED, (_A.DELIVER_RESPONSE,), "6026 7.2"),
        Row(_S.ACCEPTED, _E.TIMER_M, _S.TERMINATED, (), "6026 7.2"),
        Row(_S.ACCEPTED, _E.TERMINATE, _S.TERMINATED, (), "3261 9.1"),
    ),
)

NON_INVITE_CLIENT: Final = Machine(
    "Non-INVITE client transaction",
    (
        Row(
            _S.INITIAL, _E.REQUEST, _S.TRYING, (_A.START_E, _A.START_F, _A.SEND_REQUEST), "3261 17.1.2.2", "unreliable"
        ),
        Row(_S.INITIAL, _E.REQUEST, _S.TRYING, (_A.START_F, _A.SEND_REQUEST), "3261 17.1.2.2", "reliable"),
        Row(_S.TRYING, _E.TIMER_E, _S.TRYING, (_A.DOUBLE_E, _A.RESEND_REQUEST), "3261 17.1.2.2", "unreliable"),
        Row(_S.TRYING, _E.TIMER_F, _S.TERMINATED, (_A.REPORT_TIMEOUT,), "3261 17.1.2.2"),
        Row(_S.TRYING, _E.TRANSPORT_ERROR, _S.TERMINATED, (_A.REPORT_FAILURE,), "3261 17.1.4"),
        Row(_S.TRYING, _E.TERMINATE, _S.TERMINATED, (), "3261 17.1"),
        Row(_S.TRYING, _E.PROVISIONAL, _S.PROCEEDING, (_A.DELIVER_RESPONSE,), "3261 17.1.2.2"),
        Row(
            _S.TRYING,
            _E.FINAL,
            _S.COMPLETED,
            (_A.STOP_E_F, _A.START_K, _A.DELIVER_RESPONSE),
            "3261 17.1.2.2",
            "unreliable",
        ),
        Row(_S.TRYING, _E.FINAL, _S.TERMINATED, (_A.DELIVER_RESPONSE,), "3261 17.1.2.2", "reliable"),
        Row(_S.PROCEEDING, _E.TIMER_E, _S.PROCEEDING, (_A.SLOW_E, _A.RESEND_REQUEST), "3261 17.1.2.2", "unreliable"),
        Row(_S.PROCEEDING, _E.TIMER_F, _S.TERMINATED, (_A.REPORT_TIMEOUT,), "3261 17.1.2.2"),
        Row(_S.PROCEEDING, _E.TRANSPORT_ERROR, _S.TERMINATED, (_A.REPORT_FAILURE,), "3261 17.1.4"),
        Row(_S.PROCEEDING, _E.TERMINATE, _S.TERMINATED, (), "3261 17.1"),
        Row(_S.PROCEEDING, _E.PROVISIONAL, _S.PROCEEDING, (_A.DELIVER_RESPONSE,), "3261 17.1.2.2"),
        Row(
            _S.PROCEEDING,
            _E.FINAL,
            _S.COMPLETED,
            (_A.STOP_E_F, _A.START_K, _A.DELIVER_RESPONSE),
            "3261 17.1.2.2",
            "unreliable",
        ),
        Row(_S.PROCEEDING, _E.FINAL, _S.TERMINATED, (_A.DELIVER_RESPONSE,), "3261 17.1.2.2", "reliable"),
        Row(_S.COMPLETED, _E.FINAL, _S.COMPLETED, (), "3261 17.1.2.2", "unreliable"),
        Row(_S.COMPLETED, _E.TIMER_K, _S.TERMINATED, (), "3261 17.1.2.2", "unreliable"),
        Row(_S.COMPLETED, _E.TERMINATE, _S.TERMINATED, (), "3261 17.1", "unreliable"),
    ),
)

INVITE_SERVER: Final = Machine(
    "INVITE server transaction",
    (
        # No 100 after 200 ms: the TU answers 100 at once.
        Row(_S.INITIAL, _E.REQUEST, _S.PROCEEDING, (_A.DELIVER_REQUEST,), "3261 17.2.1"),
        Row(_S.PROCEEDING, _E.REQUEST, _S.PROCEEDING, (_A.RESEND_RESPONSE,), "3261 17.2.1"),
        Row(_S.PROCEEDING, _E.PROVISIONAL, _S.PROCEEDING, (_A.SEND_RESPONSE,), "3261 17.2.1"),
        Row(_S.PROCEEDING, _E.SUCCESS, _S.ACCEPTED, (_A.START_L, _A.SEND_RESPONSE), "6026 7.1"),
        Row(
            _S.PROCEEDING,
            _E.FAILURE,
            _S.COMPLETED,
            (_A.START_G, _A.START_H, _A.SEND_RESPONSE),
            "3261 17.2.1",
            "unreliable",
        ),
        Row(_S.PROCEEDING, _E.FAILURE, _S.COMPLETED, (_A.START_H, _A.SEND_RESPONSE), "3261 17.2.1", "reliable"),
        Row(_S.PROCEEDING, _E.TRANSPORT_ERROR, _S.PROCEEDING, (_A.REPORT_FAILURE,), "6026 7.1"),
        Row(_S.COMPLETED, _E.REQUEST, _S.COMPLETED, (_A.RESEND_RESPONSE,), "3261 17.2.1"),
        Row(_S.COMPLETED, _E.TIMER_G, _S.COMPLETED, (_A.DOUBLE_G, _A.RESEND_RESPONSE), "3261 17.2.1", "unreliable"),
        Row(_S.COMPLETED, _E.TIMER_H, _S.TERMINATED, (_A.REPORT_FAILURE,), "3261 17.2.1"),
        Row(_S.COMPLETED, _E.ACK, _S.CONFIRMED, (_A.STOP_G_H, _A.START_I), "3261 17.2.1", "unreliable"),
        Row(_S.COMPLETED, _E.ACK, _S.TERMINATED, (), "3261 17.2.1", "reliable"),
        Row(_S.COMPLETED, _E.TRANSPORT_ERROR, _S.COMPLETED, (_A.REPORT_FAILURE,), "6026 7.1"),
        Row(_S.CONFIRMED, _E.REQUEST, _S.CONFIRMED, (), "3261 17.2.1", "unreliable"),
        Row(_S.CONFIRMED, _E.ACK, _S.CONFIRMED, (), "3261 17.2.1", "unreliable"),
        Row(_S.CONFIRMED, _E.TIMER_I, _S.TERMINATED, (), "3261 17.2.1", "unreliable"),
        Row(_S.ACCEPTED, _E.REQUEST, _S.ACCEPTED, (), "6026 7.1"),
        Row(_S.ACCEPTED, _E.ACK, _S.ACCEPTED, (_A.DELIVER_ACK,), "6026 7.1"),
        Row(_S.ACCEPTED, _E.SUCCESS, _S.ACCEPTED, (_A.SEND_RESPONSE,), "6026 7.1"),
        Row(_S.ACCEPTED, _E.TRANSPORT_ERROR, _S.ACCEPTED, (_A.REPORT_FAILURE,), "6026 7.1"),
        Row(_S.ACCEPTED, _E.TIMER_L, _S.TERMINATED, (), "6026 7.1"),
    ),
)

NON_INVITE_SERVER: Final = Machine(
    "Non-INVITE server transaction",
    (
        Row(_S.INITIAL, _E.REQUEST, _S.TRYING, (_A.DELIVER_REQUEST,), "3261 17.2.2"),
        Row(_S.TRYING, _E.REQUEST, _S.TRYING, (), "3261 17.2.2"),
        Row(_S.TRYING, _E.PROVISIONAL, _S.PROCEEDING, (_A.SEND_RESPONSE,), "3261 17.2.2"),
        Row(_S.TRYING, _E.FINAL, _S.COMPLETED, (_A.START_J, _A.SEND_RESPONSE), "3261 17.2.2", "unreliable"),
        Row(_S.TRYING, _E.FINAL, _S.TERMINATED, (_A.SEND_RESPONSE,), "3261 17.2.2", "reliable"),
        Row(_S.PROCEEDING, _E.REQUEST, _S.PROCEEDING, (_A.RESEND_RESPONSE,), "3261 17.2.2"),
        Row(_S.PROCEEDING, _E.PROVISIONAL, _S.PROCEEDING, (_A.SEND_RESPONSE,), "3261 17.2.2"),
        Row(_S.PROCEEDING, _E.FINAL, _S.COMPLETED, (_A.START_J, _A.SEND_RESPONSE), "3261 17.2.2", "unreliable"),
        Row(_S.PROCEEDING, _E.FINAL, _S.TERMINATED, (_A.SEND_RESPONSE,), "3261 17.2.2", "reliable"),
        Row(_S.PROCEEDING, _E.TRANSPORT_ERROR, _S.TERMINATED, (_A.REPORT_FAILURE,), "3261 17.2.4"),
        Row(_S.COMPLETED, _E.REQUEST, _S.COMPLETED, (_A.RESEND_RESPONSE,), "3261 17.2.2", "unreliable"),
        Row(_S.COMPLETED, _E.FINAL, _S.COMPLETED, (), "3261 17.2.2", "unreliable"),
        Row(_S.COMPLETED, _E.TIMER_J, _S.TERMINATED, (), "3261 17.2.2", "unreliable"),
        Row(_S.COMPLETED, _E.TRANSPORT_ERROR, _S.TERMINATED, (_A.REPORT_FAILURE,), "3261 17.2.4", "unreliable"),
        # The final response itself could not be sent; with timer J at zero the transaction has ended by then.
        Row(_S.TERMINATED, _E.TRANSPORT_ERROR, _S.TERMINATED, (_A.REPORT_FAILURE,), "3261 17.2.4", "reliable"),
    ),
)

MACHINES: Final = (INVITE_CLIENT, NON_INVITE_CLIENT, INVITE_SERVER, NON_INVITE_SERVER)


def bind(
    machine: Machine, reliable: bool, functions: Mapping[str, F]
) -> dict[str, dict[str, tuple[str, tuple[F, ...]]]]:
    """The table of a machine with its actions as functions: `{state: {event: (next state, functions)}}`.

    Raises KeyError for an action that `functions` lacks.
    """
    bound: dict[str, dict[str, tuple[str, tuple[F, ...]]]] = {
        state: {} for row in machine.rows for state in (row.state, row.target)
    }
    for (state, event), (target, actions) in machine.transitions(reliable).items():
        bound[state][event] = (target, tuple([functions[action] for action in actions]))
    return bound


def diagram(machine: Machine) -> str:
    """The machine as a Mermaid state diagram, one arrow a row."""
    lines = ["stateDiagram-v2"]
    for row in machine.rows:
        over = "" if row.over == "any" else f" ({row.over})"
        actions = f" / {', '.join(row.actions)}" if row.actions else ""
        source = "[*]" if row.state == State.INITIAL else row.state
        lines.append(f"    {source} --> {row.target}: {row.event}{over}{actions}")
    lines.append(f"    {State.TERMINATED} --> [*]")
    return "\n".join(lines) + "\n"


def document() -> str:
    """The text of `docs/transactions.md`."""
    parts = [
        "# Transactions\n",
        "The four state machines of RFC 3261 section 17 as updated by RFC 6026, drawn from the tables in\n"
        "`proxy/transaction/tables.py` that the code runs on. Write this page anew after a change there:\n",
        "```\n.venv/bin/python -c 'from proxy.transaction.tables import document; print(document(), end=\"\")' "
        "> docs/transactions.md\n```\n",
        'An arrow reads "event / actions". An event without an arrow changes nothing. "TU" is the transaction user.\n'
        'Rows for one kind of transport say "(reliable)" or "(unreliable)"; timers D, I, J and K are zero over\n'
        "reliable transports, so those transactions end at once.\n",
    ]
    for machine in MACHINES:
        parts.append(f"## {machine.name}\n")
        parts.append(f"```mermaid\n{diagram(machine)}```\n")
        parts.append("| state | event | over | next state | actions | RFC and section |\n|---|---|---|---|---|---|")
        parts.extend(
            f"| {row.state} | {row.event} | {row.over} | {row.target} | {', '.join(row.actions)} | {row.source} |"
            for row in machine.rows
        )
        parts.append("")
    return "\n".join(parts)
