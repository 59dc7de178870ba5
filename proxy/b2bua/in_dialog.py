"""What the peers of a call say inside their dialogs once it is under way, and what each of them is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.b2bua.crossing import ack_with_answer
from proxy.b2bua.leg import Leg
from proxy.b2bua.refer import read_refer_to, record_refer, sipfrag_status
from proxy.b2bua.relay import Relay
from proxy.b2bua.transfer import Transfer
from proxy.sip.errors import SipError
from proxy.sip.message import Request, header
from proxy.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["take_ack", "take_request"]

_RELAYED: Final = frozenset(("INFO", "MESSAGE", "NOTIFY", "OPTIONS", "REFER", "UPDATE", "INVITE"))
_TARGET_REFRESH: Final = frozenset(("INVITE", "UPDATE"))
_KNOWN_METHODS: Final = frozenset(("REGISTER", "SUBSCRIBE", "PUBLISH", "REFER", "PRACK"))
"""Methods that we know and do not take (405); any other one is unknown (501)."""


def take_request(call: Call, leg: Leg, tx: ServerTransaction, now: float) -> None:
    """A request in the dialog of one of the legs, its CSeq already checked."""
    request = tx.request
    call.core.record_message(now, call.id, leg.side, "in", tx.flow, request, call.attempt_number)
    method = request.method
    if leg.flow.closed:
        leg.move(tx.flow)
    if method == "BYE":
        _take_bye(call, leg, tx, now)
    elif call.state == "ended" or (leg.confirmed and not call.has_leg(leg)):
        leg.reply(tx, 481, now)
    elif method == "PRACK" and leg is call.leg_a:
        call.invite.prack(tx, lambda owed: Relay.start(call, leg, owed.leg, tx, now, rack=owed.rack), now)
    elif method == "UPDATE" and leg.peer is not None and not leg.peer.ended and not leg.confirmed:
        Relay.start(call, leg, leg.peer, tx, now)
    elif method == "REFER" and call.core.config.refer == "refuse":
        record_refer(call.core, leg, now, request, "refused", status=405)
        leg.reply(tx, 405, now)
    elif method not in _RELAYED:
        leg.reply(tx, 405 if method in _KNOWN_METHODS else 501, now)
    elif not leg.confirmed or leg.peer is None or not leg.peer.confirmed:
        leg.reply(tx, 500, now, "Call not established yet", (("Retry-After", "1"),))
    elif method == "REFER":
        _take_refer(call, leg, tx, now)
    else:
        peer = leg.peer
        if method in _TARGET_REFRESH:
            leg.refresh_target(request)
        elif method == "NOTIFY":
            _note_notify(call, leg, request, now)
        Relay.start(call, leg, peer, tx, now)


def _take_refer(call: Call, leg: Leg, tx: ServerTransaction, now: float) -> None:
    """A REFER (RFC 3515): the other leg's peer is to go elsewhere."""
    request = tx.request
    try:
        read_refer_to(request)
    except SipError as error:
        record_refer(call.core, leg, now, request, "refused", status=error.status, reason=error.reason)
        leg.reply(tx, error.status, now, error.reason)
        return
    record_refer(call.core, leg, now, request, "received")
    assert leg.peer is not None
    if call.core.config.refer == "execute":
        Transfer.start(call, leg, leg.peer, tx, now)
        return
    leg.refresh_target(request)
    Relay.start(call, leg, leg.peer, tx, now)


def _note_notify(call: Call, leg: Leg, request: Request, now: float) -> None:
    """Record what a NOTIFY says about a REFER."""
    status = sipfrag_status(request)
    if status is not None:
        done = (request.get("subscription-state") or "").strip().lower().startswith("terminated")
        facts: dict[str, object] = {
            "state": "done" if done else "progress",
            "status": status[0],
            "reason": status[1],
        }
        call.core.record("refer", now, call.id, facts, leg.side, call.attempt_number)


def _take_bye(call: Call, leg: Leg, tx: ServerTransaction, now: float) -> None:
    if not leg.confirmed and leg is not call.leg_a:
        leg.reply(tx, 481, now, "Only the caller may end an early dialog")
        return
    if call.transfer is not None and call.transfer.on_bye(leg, tx, now):
        return
    leg.reply(tx, 200, now)
    if leg.confirmed and not call.has_leg(leg):
        leg.close()
        return
    reason = tx.request.get("reason") or ""
    if call.state == "trying":
        call.cancel(now, tuple([header("Reason", value) for value in tx.request.get_all("reason")]), "caller-bye")
        return
    peer = leg.peer
    call.refuse_setup(487 if leg is call.leg_a else 480, None, now)
    call.refuse_pending(now)
    leg.close()
    if peer is not None:
        peer.bye(now, crossing=tx.request)
    call.end(now, 200, "OK", "caller" if leg.place == "a" else "target", reason)


def take_ack(call: Call, leg: Leg, request: Request, now: float) -> None:
    """The ACK of a 2xx of ours."""
    call.core.record_message(now, call.id, leg.side, "in", leg.flow, request, call.attempt_number)
    if not leg.on_ack(request, now):
        return
    leg.learn(request)
    waiting, leg.late_answer = leg.late_answer, None
    if waiting is not None and leg.peer is not None and leg.peer.owes_ack is not None:
        seq, exchange = waiting
        ack_with_answer(call, request, leg.peer, seq, exchange, now)
