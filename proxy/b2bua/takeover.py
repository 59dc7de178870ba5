"""An INVITE with Replaces (RFC 3891): its sender takes the place of one leg of a call; an attended transfer ends so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.b2bua.caller_invite import reason_header
from proxy.b2bua.core import Core
from proxy.b2bua.exchange import Exchange
from proxy.b2bua.leg import Leg
from proxy.b2bua.mapping import hide_own_refusal, map_message
from proxy.b2bua.origin import Origin
from proxy.b2bua.refer import find_replaced, parse_replaces
from proxy.b2bua.reinvite import Made, Reinvite, give_back, reinvite_from
from proxy.b2bua.relay import Relay
from proxy.dialog.dialog import Dialog
from proxy.dialog.session_timer import accept_terms
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, RuleReject
from proxy.sdp.errors import SdpError
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request, Response, header
from proxy.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["Takeover", "find_leg"]


def find_leg(core: Core, request: Request) -> Leg:
    """The leg whose place an INVITE is to take.

    Raises SipError: 400 for a malformed Replaces, 481 when it names no dialog of ours that is up, 486 when it wants one
    that is not answered yet and is, 488 without an offer, 491 while the call is being moved anyway.
    """
    values = request.values("replaces")
    if len(values) != 1 or request.get("join") is not None:
        raise SipError(400, "More than one dialog to replace")
    replaces = parse_replaces(values[0])
    leg = find_replaced(core, replaces)
    if leg is None or not leg.confirmed or leg.peer is None or not leg.peer.confirmed:
        raise SipError(481, "No such dialog to replace")
    if replaces.early_only:
        raise SipError(486, "Busy Here")
    if not request.body:
        raise SipError(488, "An INVITE with Replaces needs an offer here")
    if leg.call.transfer is not None:
        raise SipError(491, "Request Pending")
    return leg


class Takeover:
    """One INVITE with Replaces, until it is answered: the offer goes to the side that stays, as a re-INVITE.

    Attributes:
        leg: the new leg.
        replaced: the leg whose place it takes.
        staying: the other one.
    """

    __slots__ = ("_before", "_core", "_exchange", "_over", "_tx", "call", "leg", "replaced", "staying")

    def __init__(self, call: Call, replaced: Leg, staying: Leg, tx: ServerTransaction, side: str) -> None:
        self.call = call
        self.replaced = replaced
        self.staying = staying
        self._core = core = call.core
        self._tx = tx
        self._exchange = Exchange()
        self._before = staying.local_sdp
        self._over = False
        dialog = Dialog.as_uas(tx.request, core.new_id())
        self.leg = Leg(core, call, side, dialog, tx.flow, replaced.place)
        self.leg.invite_in = tx
        call.others.append(self.leg)

    @classmethod
    def start(cls, replaced: Leg, tx: ServerTransaction, now: float) -> None:
        """Begin. Raises SipError for an INVITE that can't begin a dialog."""
        call, staying = replaced.call, replaced.peer
        assert staying is not None
        takeover = cls(call, replaced, staying, tx, call.new_side())
        call.transfer = takeover
        tx.user = takeover
        takeover._begin(now)

    def _begin(self, now: float) -> None:
        call, leg, tx, staying = self.call, self.leg, self._tx, self.staying
        self._core.record_message(now, call.id, leg.side, "in", tx.flow, tx.request, call.attempt_number)
        leg.reply(tx, 100, now)
        leg.settle_flow()
        if staying.origin is None:
            staying.origin = Origin(staying.local_sdp)
        Reinvite(staying, "INVITE", self._offer, self._on_answer).start(now)

    def _apply_rules(self, draft: Draft, to_staying: bool, now: float) -> None:
        attempt = self.call.attempt
        assert attempt is not None
        outward = (self.staying.place == "b") is to_staying
        attempt.apply_rules(draft, A_TO_B if outward else B_TO_A, now)

    def _offer(self, flow: Flow, lines: tuple[Header, ...], now: float) -> Made:
        request = self._tx.request
        draft = Draft(request)
        self._exchange = Exchange()
        self._apply_rules(draft, True, now)
        self._exchange.cross(draft, request.body)
        return reinvite_from(draft, self.staying, flow, lines, request)

    def _on_answer(self, response: Response | None, status: int, reason: str, now: float) -> None:
        """What the side that stays says to its new session."""
        call, leg = self.call, self.leg
        if self._over:
            if status < 300 and call.transfer is self:
                self._give_back(now)
            elif call.transfer is self:
                self._ends(status, now)
            return
        if status >= 300 or response is None:
            self._refuse(response, status, reason, now)
            self._ends(status, now)
            return
        draft = Draft(response)
        try:
            self._apply_rules(draft, False, now)
            self._exchange.cross(draft, response.body)
            if not draft.has_sdp():
                raise SdpError("The answer has no session")
        except (RuleReject, SdpError, SipError) as error:
            self._refuse(None, 488, getattr(error, "reason", str(error)), now)
            self._give_back(now)
            return
        config, tx, core = self._core.config, self._tx, self._core
        terms, headers = accept_terms(tx.request, config.min_se_s, config.session_expires_s)
        block = leg.response_block(tx.request, tx.flow, success=True)
        map_message(draft, block, [*core.reply_capabilities, header("Supported", "replaces, timer"), *headers])
        answer = draft.finish()
        assert isinstance(answer, Response)
        number = call.attempt_number
        core.record_message(now, call.id, leg.side, "out", tx.flow, answer, number, draft.changes, response)
        leg.learn(tx.request)
        leg.local_sdp = answer.body
        leg.answer(tx, answer, now)
        leg.keeper.start(terms, now)
        self._over = True
        call.transfer = None
        call.replace_leg(self.replaced, leg)
        self._record(now, "replaced", 200)
        self.replaced.keeper.stop()
        self.replaced.bye(now, (reason_header(200, "Replaced"),))

    def _record(self, now: float, state: str, status: int) -> None:
        fields: dict[str, object] = {"state": state, "status": status, "by": self.leg.side}
        self._core.record("takeover", now, self.call.id, fields, self.replaced.side, self.call.attempt_number)

    def _refuse(self, response: Response | None, status: int, reason: str, now: float) -> None:
        """Refuse the INVITE, once."""
        if self._tx.last_status >= 200:
            return
        if response is not None:
            draft = Draft(response)
            if hide_own_refusal(draft):
                status, reason = draft.status, draft.reason
        self._over = True
        self.leg.reply(self._tx, status, now, reason)
        self.leg.close()
        self._record(now, "failed", status)

    def _give_back(self, now: float) -> None:
        """The side that stays has a session that nobody shares: its old one comes back."""
        if self.replaced.ended:
            self._ends(480, now)
            return

        def done(response: Response | None, status: int, reason: str, now: float) -> None:
            if status >= 300:
                self.call.hang_up(now, status, "The old session could not be restored")
            self._ends(status, now)

        give_back(self.staying, self._before, done, now)

    def _ends(self, status: int, now: float) -> None:
        """The call goes on as it was, if there is anybody left."""
        call = self.call
        if call.transfer is self:
            call.transfer = None
        if status in (408, 481):
            call.hang_up(now, status, "The other side has lost the call")
        elif self.replaced.ended:
            call.hang_up(now, 480, "Nobody took the call over")

    def on_cancel(self, tx: ServerTransaction, now: float) -> None:
        """The INVITE is taken back (RFC 3261 section 9.2)."""
        call = self.call
        self._core.record_message(now, call.id, self.leg.side, "in", tx.flow, tx.request, call.attempt_number)
        self.leg.reply(tx, 200, now)
        self._refuse(None, 487, "Request Terminated", now)

    def on_bye(self, leg: Leg, tx: ServerTransaction, now: float) -> bool:
        """A BYE meanwhile; False when it ends the whole call. The leg that is being replaced may leave."""
        if leg is self.staying:
            self.abort(now, ())
            return False
        leg.reply(tx, 200, now)
        pending = None if leg.invite_in is None else leg.invite_in.user
        if isinstance(pending, Relay):
            pending.abandon(now)
        leg.close()
        self.staying.peer = None
        return True

    def abort(self, now: float, extra: tuple[Header, ...]) -> None:
        """The call ends."""
        self.call.transfer = None
        self._refuse(None, 481, "Call/Transaction Does Not Exist", now)
