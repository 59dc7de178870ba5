"""What is kept of a leg outside of this process, so that another one can end the leg should this one die.

Facts are plain values (text, numbers, lists of them), made from what a leg has at hand; `orphans` reads them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from proxy.sip.flow import Flow
from proxy.sip.message import Request, read_header

if TYPE_CHECKING:
    from proxy.b2bua.call import Call
    from proxy.b2bua.leg import Leg

__all__ = [
    "DIALOG",
    "INVITE_IN",
    "INVITE_OUT",
    "Facts",
    "dialog_facts",
    "flow_facts",
    "flow_of",
    "invite_in_facts",
    "invite_of",
    "invite_out_facts",
]

Facts = Sequence[object]

INVITE_IN: Final = "invite-in"
INVITE_OUT: Final = "invite-out"
DIALOG: Final = "dialog"

_IDENTITY: Final = ("via", "route", "from", "to", "call-id", "cseq")


def invite_in_facts(call: Call, leg: Leg) -> Facts:
    """Of a caller's INVITE that has no final response yet: what its refusal is made from."""
    request = call.original
    return [INVITE_IN, flow_facts(call.invite.tx.flow), *_request_facts(request), leg.dialog.local_tag, _about(call)]


def invite_out_facts(request: Request, flow: Flow, target: str) -> Facts:
    """Of an INVITE of ours that has no final response yet: what its CANCEL is made from; `target` is its name."""
    return [INVITE_OUT, flow_facts(flow), *_request_facts(request), target]


def dialog_facts(call: Call, leg: Leg) -> Facts:
    """Of a dialog: what a BYE in it is made from."""
    dialog, attempt = leg.dialog, call.attempt
    identity = [
        dialog.call_id,
        dialog.local,
        dialog.local_tag,
        dialog.remote,
        dialog.remote_tag,
        dialog.local_seq,
        dialog.remote_target,
    ]
    target = attempt.target.name if leg.place == "b" and attempt is not None else ""
    about = _about(call) if leg.place == "a" else None
    return [DIALOG, flow_facts(leg.flow), identity, dialog.route_set, target, about]


def flow_facts(flow: Flow) -> Facts:
    """Of a flow."""
    return [flow.transport, flow.local, flow.remote, flow.advertised, flow.listener, flow.server_name]


def flow_of(facts: Facts) -> Flow:
    """A flow as it was, closed: nothing can be sent by it."""
    transport, local, remote, advertised, listener, server_name = facts
    flow = Flow(str(transport), _address(local), _address(remote), str(advertised), str(listener), str(server_name))
    flow.closed = True
    return flow


def invite_of(uri: object, lines: object) -> Request:
    """As much of an INVITE as was kept."""
    assert isinstance(lines, list)
    return Request("INVITE", str(uri), [read_header(str(line)) for line in lines])


def _request_facts(request: Request) -> Facts:
    """The Request-URI, and the lines that say whose request it is."""
    return [request.uri, [line for key in _IDENTITY for line in request.lines(key)]]


def _about(call: Call) -> Facts:
    """What the record of the call's end will say."""
    request = call.original
    return [
        call.started,
        call.answered_at,
        call.trunk,
        request.uri,
        request.get("x-twilio-callsid") or "",
        request.get("user-agent") or "",
    ]


def _address(value: object) -> tuple[str, int]:
    assert isinstance(value, list)
    host, port = value
    return str(host), int(port)
