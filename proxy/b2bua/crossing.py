"""A request of one leg as a request in the dialog of the other one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.audit.records import Change
from proxy.b2bua.exchange import Exchange
from proxy.b2bua.mapping import MAX_FORWARDS, contact_line, map_message, max_forwards_line, via_line
from proxy.b2bua.refer import map_notify, map_refer
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, RuleReject
from proxy.sdp.errors import SdpError
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request

if TYPE_CHECKING:
    from proxy.b2bua.call import Call
    from proxy.b2bua.leg import Leg

__all__ = ["ack_with_answer", "crossed_request"]

_WITH_CONTACT: Final = frozenset(("INVITE", "UPDATE", "NOTIFY", "SUBSCRIBE", "REFER"))
_MAX_REFERS: Final = 32


def crossed_request(
    call: Call,
    message: Request,
    to_leg: Leg,
    exchange: Exchange | None,
    now: float,
    extra: tuple[Header, ...] = (),
    seq: int | None = None,
) -> tuple[Request, list[Change]]:
    """A request of the other leg as a request in the dialog of `to_leg`; `extra` header fields are ours.

    `seq` is the CSeq number of an ACK; any other request gets the next one.
    Raises RuleReject, SdpError or SipError.
    """
    draft = Draft(message)
    attempt, core, dialog, flow = call.attempt, call.core, to_leg.dialog, to_leg.flow
    assert attempt is not None
    attempt.apply_rules(draft, A_TO_B if to_leg.place == "b" else B_TO_A, now)
    if exchange is not None:
        exchange.cross(draft, message.body)
    if to_leg.origin is not None:
        to_leg.origin.keep(draft)
    from_leg = to_leg.peer
    if message.method == "REFER" and from_leg is not None:
        map_refer(draft, message, core, from_leg, to_leg)
    elif message.method == "NOTIFY" and from_leg is not None:
        map_notify(draft, call.referred, from_leg)
    uri, routes = dialog.request_lines()
    draft.step = "builtin:target"
    draft.set_uri(uri)
    # No session may live on because the other leg's hops were used up.
    hops = MAX_FORWARDS if message.method == "BYE" else max_forwards_line(message)
    block = [via_line(flow, core.new_branch()), hops]
    block.extend(dialog.identity(dialog.next_seq() if seq is None else seq, message.method))
    if message.method in _WITH_CONTACT:
        block.append(contact_line(flow))
    credentials = to_leg.digest.lines(message.method, uri) if to_leg.digest is not None else ()
    map_message(draft, block, [*core.capabilities, *extra, *credentials], routes)
    request = draft.finish()
    assert isinstance(request, Request)
    if message.method == "REFER":
        if len(call.referred) > _MAX_REFERS:
            del call.referred[next(iter(call.referred))]
        call.referred[to_leg.side, request.cseq.number] = message.cseq.number
    return request, draft.changes


def ack_with_answer(call: Call, ack: Request, leg: Leg, seq: int, exchange: Exchange, now: float) -> None:
    """Acknowledge the peer's 2xx, which held an offer, with the answer that came in the other leg's ACK."""
    source = None if leg.is_ready else ack

    def send(flow: Flow, now: float) -> None:
        try:
            request, changes = crossed_request(call, ack, leg, exchange, now, seq=seq)
        except (RuleReject, SdpError, SipError) as error:
            call.hang_up(now, 488, getattr(error, "reason", str(error)))
            return
        leg.local_sdp = request.body
        leg.acknowledge(request, seq, changes, flow, now, source)

    leg.with_flow(send, now)
