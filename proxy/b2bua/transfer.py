"""A REFER that is carried out here (RFC 3515, RFC 5589): the call that it asks for, the joining, and the news for the
referrer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.b2bua.caller_invite import reason_header
from proxy.b2bua.decisions import apply_rules, rule_context
from proxy.b2bua.exchange import Exchange
from proxy.b2bua.goal import Goal, find_goal
from proxy.b2bua.leg import Leg
from proxy.b2bua.mapping import MAX_FORWARDS, contact_line, map_message
from proxy.b2bua.news import News
from proxy.b2bua.origin import Origin
from proxy.b2bua.outgoing import OutgoingInvite
from proxy.b2bua.refer import map_referred_by, read_refer_to, record_refer, wants_no_subscription
from proxy.b2bua.reinvite import Made, Reinvite, give_back, reinvite_from
from proxy.b2bua.relay import Relay
from proxy.b2bua.retry import Outcome
from proxy.dialog.dialog import Dialog
from proxy.dialog.session_timer import answered_terms
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A
from proxy.sdp.errors import SdpError
from proxy.sdp.session import Session
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request, Response, header
from proxy.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["Transfer"]

_STEP: Final = "builtin:transfer"
_NOT_CARRIED: Final = (
    "refer-to",
    "refer-sub",
    "content-type",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-id",
    "accept",
    "event",
    "expires",
)
"""What a REFER says of itself and its own body."""


class Transfer(OutgoingInvite):
    """One transfer, from the REFER to the call that goes on with somebody else, or to its failure: then the old call
    stays as it is.

    Attributes:
        referrer: the leg whose peer sent the REFER.
        staying: the other one.
        leg: the new leg, once it was answered.
    """

    __slots__ = ("_answer", "_before", "_goal", "_news", "_offered", "_refer", "referrer", "staying")

    def __init__(self, call: Call, referrer: Leg, staying: Leg, refer: Request, goal: Goal, side: str) -> None:
        core = call.core
        super().__init__(core, call, side, call.attempt_number, goal.target)
        self.referrer = referrer
        self.staying = staying
        self.source = self._refer = refer
        self._goal = goal
        expires_s = int(core.config.ring_timeout_s + 64 * core.config.timers.t1_s)
        self._news = News(referrer, refer.cseq.number, expires_s, silent=wants_no_subscription(refer))
        self._answer: Response | None = None
        self._offered = b""
        self._before = b""

    @classmethod
    def start(cls, call: Call, leg: Leg, staying: Leg, tx: ServerTransaction, now: float) -> None:
        """Take a REFER and begin, or refuse it."""
        core, request = call.core, tx.request
        try:
            if call.transfer is not None:
                raise SipError(491, "Another transfer is under way")
            goal = find_goal(call, leg, read_refer_to(request))
        except SipError as error:
            record_refer(core, leg, now, request, "refused", status=error.status, reason=error.reason)
            leg.reply(tx, error.status, now, error.reason, error.headers)
            return
        leg.refresh_target(request)
        transfer = cls(call, leg, staying, request, goal, call.new_side())
        call.transfer = transfer
        contact = contact_line(tx.flow)
        headers = [(contact.name, contact.value)]
        if wants_no_subscription(request):
            headers.append(("Refer-Sub", "false"))
        leg.reply(tx, 202, now, headers=tuple(headers))
        transfer._begin(now)

    def _begin(self, now: float) -> None:
        core, goal = self.core, self._goal
        record_refer(
            core, self.referrer, now, self._refer, "accepted", status=202, uri=goal.uri.text, new_leg=self.side
        )
        self._news.tell("SIP/2.0 100 Trying", now)
        self._timer = core.timers.schedule(now + core.config.ring_timeout_s, self._on_ring_timeout)
        if goal.flow is not None and not goal.flow.closed:
            self.on_flow(goal.flow, now)
        else:
            self._search = core.find_flow(goal.way, self, self._hops)

    # The call to the transfer target

    def _rules(self, draft: Draft, to_new_leg: bool, flow: Flow, now: float) -> None:
        """Apply the rules of the call, in the direction that the new leg's place gives. Raises RuleReject."""
        attempt = self.call.attempt
        assert attempt is not None
        outward = (self.referrer.place == "b") is to_new_leg
        context = rule_context(self.call, A_TO_B if outward else B_TO_A, self.number, self.target, flow)
        apply_rules(self.call, attempt.rules, draft, context, now)

    def _draft(self, flow: Flow, now: float) -> Draft:
        """The INVITE: what the REFER carries, with the session and the identity of the side that stays."""
        core, goal, staying = self.core, self._goal, self.staying
        draft = Draft(self._refer)
        draft.step = _STEP
        draft.become_request("INVITE", goal.uri.text)
        for key in _NOT_CARRIED:
            draft.remove_all(key)
        draft.replace(draft.positions("from")[0], header("From", staying.dialog.remote))
        draft.replace(draft.positions("to")[0], header("To", f"<{goal.uri.text}>"))
        for item in goal.headers:
            draft.append(item)
        self._offered = staying.remote_sdp
        draft.append(header("Content-Type", "application/sdp"))
        draft.set_body(self._offered)
        editor = draft.sdp
        if editor is None:
            raise SdpError("There is no session to offer")
        # The referrer may have put the call on hold before it let go of it.
        editor.set_direction("sendrecv")
        offer = draft.body
        map_referred_by(draft, core)
        self._rules(draft, True, staying.flow, now)
        self.exchange.cross(draft, offer)
        draft.step = _STEP
        draft.set_uri(goal.uri.text)
        block = self._identity(draft, flow, MAX_FORWARDS, f"<{goal.uri.text}>")
        extensions = self._extensions("timer", goal.uri.text)
        if goal.replaces:
            extensions += [header("Replaces", goal.replaces), header("Require", "replaces")]
        map_message(draft, block, [*core.capabilities, *extensions], list(goal.routes))
        return draft

    def _on_progress(self, response: Response, flow: Flow, now: float) -> None:
        self.progressed = True
        if not self.ended:
            self._news.tell(f"SIP/2.0 {response.status} {response.reason}", now)

    def _on_ring_timeout(self, now: float) -> None:
        """It rings for too long."""
        self._timer = None
        self.cancel(now, (reason_header(408, "Ring timeout"),))
        self._end(408, "Request Timeout", now)

    # The joining

    def _on_answer(self, response: Response, flow: Flow, now: float) -> None:
        """The transfer target answered: now the side that stays gets its session."""
        request = self.request
        assert request is not None
        try:
            dialog = Dialog.as_uac(request, response)
        except SipError as error:
            self.refuse_answer(response, flow, "Unusable answer", now)
            self._end(502, error.reason, now)
            return
        leg = self.leg = Leg(self.core, self.call, self.side, dialog, flow, self.referrer.place)
        self.call.others.append(leg)
        leg.learn(response)
        leg.local_sdp = request.body
        leg.confirmed = True
        leg.digest = self._digest
        leg.checkpoint()
        leg.keeper.min_se_s = self._min_se_s
        leg.settle_flow()
        leg.send_ack(request.cseq.number, now)
        leg.keeper.start(answered_terms(response, self.session_expires_s), now)
        self._answer = response
        staying = self.staying
        self._before = staying.local_sdp
        if staying.origin is None:
            staying.origin = Origin(staying.local_sdp)
        Reinvite(staying, "INVITE", self._offer, self._on_joined).start(now)

    def _offer(self, flow: Flow, lines: tuple[Header, ...], now: float) -> Made:
        """The re-INVITE for the side that stays: the transfer target's answer, in its terms, is the offer."""
        answer, leg, staying = self._answer, self.leg, self.staying
        assert answer is not None
        assert leg is not None
        draft = Draft(answer)
        self._rules(draft, False, leg.flow, now)
        self.exchange.cross(draft, answer.body)
        if not draft.has_sdp():
            raise SdpError("The answer has no session")
        return reinvite_from(draft, staying, flow, lines, answer)

    def _on_joined(self, response: Response | None, status: int, reason: str, now: float) -> None:
        """What the side that stays says to its new session."""
        leg, call = self.leg, self.call
        assert leg is not None
        if self.ended:
            return
        if status in (408, 481):
            call.hang_up(now, status, "The other side has lost the call")
        elif status >= 300:
            leg.bye(now, (reason_header(status, reason),))
            self._end(status, reason, now)
        elif leg.ended:
            self._restore(now)
        else:
            self._join(leg, response, now)

    def _join(self, leg: Leg, response: Response | None, now: float) -> None:
        self.ended = True
        referrer, call = self.referrer, self.call
        call.transfer = None
        call.replace_leg(referrer, leg)
        record_refer(self.core, referrer, now, self._refer, "joined", status=200, new_leg=self.side)
        if response is not None and _moved(self._offered, response.body):
            self._catch_up(leg, response, now)
        referrer.keeper.stop()
        self._news.close("SIP/2.0 200 OK", lambda now: referrer.bye(now, (reason_header(200, "Transferred"),)), now)

    def _catch_up(self, leg: Leg, answer: Response, now: float) -> None:
        """The side that stays answered with another address or key than the transfer target knows: tell it, once."""

        def make(flow: Flow, lines: tuple[Header, ...], now: float) -> Made:
            draft = Draft(answer)
            self._rules(draft, True, self.staying.flow, now)
            Exchange().cross(draft, answer.body)
            return reinvite_from(draft, leg, flow, lines, answer)

        def done(response: Response | None, status: int, reason: str, now: float) -> None:
            if status in (408, 481):
                self.call.hang_up(now, status, "The other side has lost the call")

        Reinvite(leg, "INVITE", make, done).start(now)

    def _restore(self, now: float) -> None:
        """The transfer target hung up while the joining was under way: give the side that stays its old session."""
        if self.referrer.ended:
            self._end(480, "Temporarily Unavailable", now)
            return

        def done(response: Response | None, status: int, reason: str, now: float) -> None:
            if not self.ended and status >= 300:
                self.call.hang_up(now, status, "The old session could not be restored")
            elif not self.ended:
                self._end(480, "Temporarily Unavailable", now)

        give_back(self.staying, self._before, done, now)

    # How it ends

    def on_bye(self, leg: Leg, tx: ServerTransaction, now: float) -> bool:
        """A BYE during the transfer; False when it ends the whole call.

        A referrer that hangs up leaves the transfer to us. A transfer target that hangs up before it was joined has
        refused, in a way.
        """
        if leg is self.staying:
            self.abort(now, tuple([header("Reason", value) for value in tx.request.get_all("reason")]))
            return False
        leg.reply(tx, 200, now)
        pending = None if leg.invite_in is None else leg.invite_in.user
        if isinstance(pending, Relay):
            pending.abandon(now)
        leg.close()
        if leg is self.referrer:
            self.staying.peer = None
            record_refer(self.core, leg, now, self._refer, "left-alone")
        return True

    def abort(self, now: float, extra: tuple[Header, ...]) -> None:
        """The call ends: so does whatever the transfer began."""
        if self.ended:
            return
        self._stop_patience()
        self.call.transfer = None
        record_refer(self.core, self.referrer, now, self._refer, "ended", status=487)
        if self.leg is not None:
            self.leg.bye(now, extra)
        else:
            self.cancel(now, extra)
            self._let_go()
        self.ended = True
        self._news.close("SIP/2.0 487 Request Terminated", None, now)

    def _fail(self, outcome: Outcome, now: float, detail: str, response: Response | None = None) -> None:
        self._end(outcome.status, outcome.reason, now)

    def _end(self, status: int, reason: str, now: float) -> None:
        """The transfer failed: the old call goes on, or ends where the referrer has left it."""
        self.ended = True
        if self.leg is None:
            self._let_go()
        self._stop_patience()
        self.call.transfer = None
        record_refer(self.core, self.referrer, now, self._refer, "failed", status=status, reason=reason)
        if self.referrer.ended:
            self.call.hang_up(now, status, "Transfer failed")
        else:
            self._news.close(f"SIP/2.0 {status} {reason}", None, now)


def _moved(offered: bytes, answered: bytes) -> bool:
    """Whether media has to go elsewhere, or with another key, than the description that was offered says."""
    try:
        old, new = Session.parse(offered), Session.parse(answered)
    except SdpError:
        return False
    if [_way(media.connection_address, media.port) for media in new.media if media.port] != [
        _way(media.connection_address, media.port) for media, now in zip(old.media, new.media, strict=False) if now.port
    ]:
        return True
    return not _keys(new) <= _keys(old)


def _way(address: str | None, port: int) -> tuple[str | None, int]:
    return address, port


def _keys(session: Session) -> set[str]:
    return {line.partition("inline:")[2] for line in session.lines if line.startswith("a=crypto:")}
