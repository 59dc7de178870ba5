"""A REFER that is carried out here (RFC 3515, RFC 5589): the call that it asks for, the joining, and the news for the
referrer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.b2bua.caller_invite import reason_header
from proxy.b2bua.credentials import DigestClient
from proxy.b2bua.decisions import apply_rules, rule_context
from proxy.b2bua.exchange import Exchange
from proxy.b2bua.farewell import Farewell
from proxy.b2bua.goal import Goal, find_goal
from proxy.b2bua.heard import ByeUser
from proxy.b2bua.leg import MAX_FORWARDS, Leg
from proxy.b2bua.mapping import contact_line, crossing_from, map_message, via_line
from proxy.b2bua.news import News
from proxy.b2bua.origin import Origin
from proxy.b2bua.refer import map_referred_by, read_refer_to, record_refer, wants_no_subscription
from proxy.b2bua.reinvite import Made, Reinvite, give_back, reinvite_from
from proxy.b2bua.relay import Relay
from proxy.dialog.dialog import Dialog
from proxy.dialog.session_timer import answered_terms, refusal_min_se
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, RuleReject
from proxy.sdp.errors import SdpError
from proxy.sdp.session import Session
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request, Response, header
from proxy.transaction.client import ClientTransaction, make_cancel
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import Timer

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


class Transfer:
    """One transfer, from the REFER to the call that goes on with somebody else, or to its failure: then the old call
    stays as it is.

    Attributes:
        referrer: the leg whose peer sent the REFER.
        staying: the other one.
        leg: the new leg, once it was answered.
    """

    __slots__ = (
        "_answer",
        "_before",
        "_call_id",
        "_cancel_extra",
        "_cancel_sent",
        "_core",
        "_cseq",
        "_digest",
        "_exchange",
        "_farewells",
        "_flow",
        "_from_tag",
        "_goal",
        "_guard",
        "_min_se_s",
        "_news",
        "_offered",
        "_over",
        "_refer",
        "_request",
        "_search",
        "_session_expires_s",
        "_side",
        "_timer",
        "_tx",
        "call",
        "leg",
        "referrer",
        "staying",
    )

    def __init__(self, call: Call, referrer: Leg, staying: Leg, refer: Request, goal: Goal, side: str) -> None:
        core = call.core
        self.call = call
        self.referrer = referrer
        self.staying = staying
        self.leg: Leg | None = None
        self._core = core
        self._refer = refer
        self._goal = goal
        self._side = side
        expires_s = int(core.config.ring_timeout_s + 64 * core.config.timers.t1_s)
        self._news = News(referrer, refer.cseq.number, expires_s, silent=wants_no_subscription(refer))
        self._call_id = core.new_id()
        self._from_tag = core.new_id()
        self._cseq = 1
        self._exchange = Exchange()
        self._digest = DigestClient(goal.target.username, goal.target.password, core.new_id)
        self._session_expires_s = core.config.session_expires_s
        self._min_se_s = 0
        self._request: Request | None = None
        self._answer: Response | None = None
        self._tx: ClientTransaction | None = None
        self._flow: Flow | None = None
        self._search = 0
        self._timer: Timer | None = None
        self._guard: Timer | None = None
        self._cancel_extra: tuple[Header, ...] | None = None
        self._cancel_sent = False
        self._farewells: dict[str, Farewell] = {}
        self._offered = b""
        self._before = b""
        self._over = False

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
        leg.dialog.refresh_target(request)
        transfer = cls(call, leg, staying, request, goal, call.new_side())
        call.transfer = transfer
        contact = contact_line(tx.flow)
        headers = [(contact.name, contact.value)]
        if wants_no_subscription(request):
            headers.append(("Refer-Sub", "false"))
        leg.reply(tx, 202, now, headers=tuple(headers))
        transfer._begin(now)

    def _begin(self, now: float) -> None:
        core, goal = self._core, self._goal
        record_refer(
            core, self.referrer, now, self._refer, "accepted", status=202, uri=goal.uri.text, new_leg=self._side
        )
        self._news.tell("SIP/2.0 100 Trying", now)
        self._timer = core.timers.schedule(now + core.config.ring_timeout_s, self._on_silence)
        if goal.flow is not None and not goal.flow.closed:
            self.on_flow(goal.flow, now)
        else:
            self._search = core.find_flow(goal.way, self)

    # The call to the transfer target

    def on_flow(self, flow: Flow, now: float) -> None:
        """The transfer target can be reached."""
        self._search = 0
        if self._over:
            return
        self._flow = flow
        self._exchange = Exchange()
        try:
            draft = self._draft(flow, now)
        except (RuleReject, SdpError, SipError) as error:
            self._fail(getattr(error, "status", 488), getattr(error, "reason", str(error)), now)
            return
        request = draft.finish()
        assert isinstance(request, Request)
        self._request = request
        self._record("out", flow, request, now, draft, self._refer)
        self._tx = self._core.layer.send_request(request, flow, self, now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """The transfer target can't be reached."""
        self._search = 0
        if not self._over:
            self._fail(503, "Service Unavailable", now)

    def _record(
        self,
        direction: str,
        flow: Flow,
        message: Request | Response,
        now: float,
        draft: Draft | None = None,
        source: Request | None = None,
    ) -> None:
        changes = None if draft is None else draft.changes
        call = self.call
        self._core.record_message(
            now, call.id, self._side, direction, flow, message, call.attempt_number, changes, source
        )

    def _rules(self, draft: Draft, to_new_leg: bool, flow: Flow, now: float) -> None:
        """Apply the rules of the call, in the direction that the new leg's place gives. Raises RuleReject."""
        attempt = self.call.attempt
        assert attempt is not None
        outward = (self.referrer.place == "b") is to_new_leg
        context = rule_context(
            self.call, A_TO_B if outward else B_TO_A, self.call.attempt_number, self._goal.target, flow
        )
        apply_rules(self.call, attempt.rules, draft, context, now)

    def _draft(self, flow: Flow, now: float) -> Draft:
        """The INVITE: what the REFER carries, with the session and the identity of the side that stays."""
        core, goal, staying = self._core, self._goal, self.staying
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
        self._exchange.cross(draft, offer)
        draft.step = _STEP
        draft.set_uri(goal.uri.text)
        block = [
            via_line(flow, core.new_branch()),
            MAX_FORWARDS,
            header("From", crossing_from(draft, core.config.public_address, self._from_tag)),
            header("To", f"<{goal.uri.text}>"),
            header("Call-ID", self._call_id),
            header("CSeq", f"{self._cseq} INVITE"),
            contact_line(flow),
        ]
        map_message(draft, block, [*core.capabilities, *self._extensions(goal)], list(goal.routes))
        return draft

    def _extensions(self, goal: Goal) -> list[Header]:
        lines = [header("Supported", "timer")]
        if self._session_expires_s:
            lines.append(header("Session-Expires", f"{self._session_expires_s};refresher=uac"))
        if self._min_se_s:
            lines.append(header("Min-SE", str(self._min_se_s)))
        if goal.replaces:
            lines += [header("Replaces", goal.replaces), header("Require", "replaces")]
        lines.extend(self._digest.lines("INVITE", goal.uri.text))
        return lines

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """A response of the transfer target."""
        status = response.status
        self._record("in", tx.flow, response, now)
        if status >= 200 and self._guard is not None:
            self._guard.cancel()
            self._guard = None
        if status < 200:
            if self._cancel_extra is not None:
                self._send_cancel(now)
            elif status > 100 and not self._over:
                self._news.tell(f"SIP/2.0 {status} {response.reason}", now)
        elif status < 300:
            self._on_2xx(tx, response, now)
        elif not self._over:
            if self._amend(response):
                self._cseq += 1
                self.on_flow(tx.flow, now)
            else:
                self._fail(status, response.reason, now)

    def _amend(self, response: Response) -> bool:
        """Whether the INVITE may go out again with what a refusal asks for."""
        if response.status == 422:
            wanted = refusal_min_se(response)
            if not 0 < self._session_expires_s < wanted:
                return False
            self._session_expires_s = self._min_se_s = wanted
            return True
        return self._digest.take(response)

    def _on_2xx(self, tx: ClientTransaction, response: Response, now: float) -> None:
        tag, leg, seq = response.to.tag or "", self.leg, tx.request.cseq.number
        farewell = self._farewells.get(tag)
        if farewell is not None:
            farewell.say(now)
        elif leg is not None and leg.dialog.remote_tag == tag:
            leg.repeat_ack(seq, now)
        elif leg is not None or self._over:
            why = "Call no longer wanted" if leg is None else "Fork not used"
            self._say_farewell(tx, response, why, now)
        else:
            self._on_answer(tx, response, now)

    def _say_farewell(self, tx: ClientTransaction, response: Response, why: str, now: float) -> None:
        call, seq = self.call, tx.request.cseq.number
        farewell = Farewell(
            self._core,
            call.id,
            call.attempt_number,
            tx.request,
            response,
            tx.flow,
            why,
            seq,
            side=self._side,
            digest=self._digest,
        )
        self._farewells[response.to.tag or ""] = farewell
        farewell.say(now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """The transfer target never answered."""
        if not self._over:
            self._fail(408, "Request Timeout", now)

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The connection to the transfer target broke."""
        if not self._over:
            self._fail(503, "Service Unavailable", now)

    def _on_silence(self, now: float) -> None:
        """It rings for too long."""
        self._timer = None
        self._cancel(now, (reason_header(408, "Ring timeout"),))
        self._fail(408, "Request Timeout", now)

    def _cancel(self, now: float, extra: tuple[Header, ...]) -> None:
        """CANCEL the INVITE as soon as there is a provisional response (RFC 3261 section 9.1)."""
        if self._search:
            self._core.forget_search(self._search)
            self._search = 0
        if self._tx is not None:
            self._cancel_extra = extra
            if self._tx.provisional_received:
                self._send_cancel(now)

    def _send_cancel(self, now: float) -> None:
        extra, self._cancel_extra = self._cancel_extra or (), None
        tx, call = self._tx, self.call
        if self._cancel_sent or tx is None:
            return
        self._cancel_sent = True
        cancel = make_cancel(tx.request, extra)
        self._record("out", tx.flow, cancel, now)
        user = ByeUser(self._core, call.id, self._side, call.attempt_number)
        self._core.layer.send_request(cancel, tx.flow, user, now)
        self._guard = self._core.timers.schedule(now + 64 * self._core.config.timers.t1_s, self._abandon)

    def _abandon(self, now: float) -> None:
        self._guard = None
        if self._tx is not None:
            self._tx.terminate(now)

    # The joining

    def _on_answer(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """The transfer target answered: now the side that stays gets its session."""
        self._stop_timer()
        try:
            dialog = Dialog.as_uac(tx.request, response)
        except SipError as error:
            self._say_farewell(tx, response, "Unusable answer", now)
            self._fail(502, error.reason, now)
            return
        leg = self.leg = Leg(self._core, self.call, self._side, dialog, tx.flow, self.referrer.place)
        self.call.others.append(leg)
        leg.learn(response)
        leg.local_sdp = tx.request.body
        leg.confirmed = True
        leg.digest = self._digest
        leg.keeper.min_se_s = self._min_se_s
        leg.settle_flow()
        leg.send_ack(tx.request.cseq.number, now)
        leg.keeper.start(answered_terms(response, self._session_expires_s), now)
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
        self._exchange.cross(draft, answer.body)
        if not draft.has_sdp():
            raise SdpError("The answer has no session")
        return reinvite_from(draft, staying, flow, lines, answer)

    def _on_joined(self, response: Response | None, status: int, reason: str, now: float) -> None:
        """What the side that stays says to its new session."""
        leg, call = self.leg, self.call
        assert leg is not None
        if self._over:
            return
        if status in (408, 481):
            call.hang_up(now, status, "The other side has lost the call")
        elif status >= 300:
            leg.bye(now, (reason_header(status, reason),))
            self._fail(status, reason, now)
        elif leg.ended:
            self._restore(now)
        else:
            self._join(leg, response, now)

    def _join(self, leg: Leg, response: Response | None, now: float) -> None:
        self._over = True
        referrer, call = self.referrer, self.call
        call.transfer = None
        call.replace_leg(referrer, leg)
        record_refer(self._core, referrer, now, self._refer, "joined", status=200, new_leg=self._side)
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
            self._fail(480, "Temporarily Unavailable", now)
            return

        def done(response: Response | None, status: int, reason: str, now: float) -> None:
            if not self._over and status >= 300:
                self.call.hang_up(now, status, "The old session could not be restored")
            elif not self._over:
                self._fail(480, "Temporarily Unavailable", now)

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
            record_refer(self._core, leg, now, self._refer, "left-alone")
        return True

    def abort(self, now: float, extra: tuple[Header, ...]) -> None:
        """The call ends: so does whatever the transfer began."""
        if self._over:
            return
        self._over = True
        self._stop_timer()
        self.call.transfer = None
        record_refer(self._core, self.referrer, now, self._refer, "ended", status=487)
        if self.leg is not None:
            self.leg.bye(now, extra)
        else:
            self._cancel(now, extra)
        self._news.close("SIP/2.0 487 Request Terminated", None, now)

    def _fail(self, status: int, reason: str, now: float) -> None:
        """The transfer failed: the old call goes on, or ends where the referrer has left it."""
        self._over = True
        self._stop_timer()
        self.call.transfer = None
        record_refer(self._core, self.referrer, now, self._refer, "failed", status=status, reason=reason)
        if self.referrer.ended:
            self.call.hang_up(now, status, "Transfer failed")
        else:
            self._news.close(f"SIP/2.0 {status} {reason}", None, now)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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
