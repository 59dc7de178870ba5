"""A request inside the dialog of one leg, taken to the other leg, and its responses back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.b2bua.crossing import crossed_request
from proxy.b2bua.exchange import Exchange
from proxy.b2bua.heard import ByeUser
from proxy.b2bua.leg import Leg
from proxy.b2bua.mapping import contact_line, hide_own_refusal, map_message
from proxy.b2bua.refer import record_refer
from proxy.dialog.session_timer import SessionTerms, accept_terms, answered_terms
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, RuleReject
from proxy.sdp.errors import SdpError
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request, Response, header
from proxy.transaction.client import ClientTransaction, make_cancel
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["Relay"]


class Relay:
    """One relayed request: the server transaction on `leg`, the client transaction on `peer`.

    A re-INVITE's 2xx is acknowledged at once when its offer came in the request; a late offer waits for the ACK.
    """

    __slots__ = (
        "_cancel_sent",
        "_cancelled",
        "_guard",
        "_lines",
        "_rack",
        "_request",
        "_sent_sdp",
        "_source",
        "_terms",
        "_tx_out",
        "call",
        "exchange",
        "leg",
        "peer",
        "tx",
    )

    def __init__(self, call: Call, leg: Leg, peer: Leg, tx: ServerTransaction, rack: str = "") -> None:
        self.call = call
        self.leg = leg
        self.peer = peer
        self.tx = tx
        self.exchange = Exchange()
        self._request: Request | None = None
        self._tx_out: ClientTransaction | None = None
        self._cancelled = False
        self._cancel_sent = False
        self._guard: Timer | None = None
        self._rack = rack
        self._sent_sdp = b""
        self._source = None if peer.is_ready else tx.request
        self._terms: SessionTerms | None = None
        self._lines: tuple[Header, ...] = ()
        attempt = call.attempt
        if rack and attempt is not None and not attempt.exchange.answered:
            self.exchange = attempt.exchange

    @classmethod
    def start(cls, call: Call, leg: Leg, peer: Leg, tx: ServerTransaction, now: float, rack: str = "") -> None:
        """Relay a request, or refuse it where RFC 3261 section 14 says so.

        A mere refresh of the session timer is answered here: the other leg has a timer of its own (RFC 4028).
        `rack`: what a PRACK has to acknowledge on the other leg.
        """
        relay = cls(call, leg, peer, tx, rack)
        try:
            if tx.method in ("INVITE", "UPDATE"):
                relay._check_glare()
                config = call.core.config
                terms = accept_terms(tx.request, config.min_se_s, config.session_expires_s, leg.keeper.terms)
                relay._terms, relay._lines = terms
            if relay._is_refresh():
                relay._refreshed(now)
                return
            if relay._offers() and (peer.invite_out or peer.update_out or (tx.method == "INVITE" and peer.answering)):
                raise SipError(491, "Request Pending")
        except SipError as error:
            leg.reply(tx, error.status, now, error.reason, error.headers)
            return
        if tx.method == "INVITE":
            leg.invite_in = tx
            peer.invite_out = True
        elif relay._offers():
            leg.update_in = peer.update_out = True
        tx.user = relay

        def failed(reason: str, now: float) -> None:
            relay._finish(now, 503, "Peer can't be reached")

        peer.with_flow(relay._send, now, failed)

    def _offers(self) -> bool:
        """Whether the request makes an offer, or asks for one."""
        return self.tx.method == "INVITE" or (self.tx.method == "UPDATE" and bool(self.tx.request.body))

    def _check_glare(self) -> None:
        """Refuse an offer while another one is pending on its leg (RFC 3261 section 14.2, RFC 3311 section 5.2).

        Raises SipError 500 for one of the same peer, 491 for one that was sent to it.
        """
        leg = self.leg
        if not self._offers():
            return
        if leg.update_in or (leg.confirmed and leg.invite_in is not None):
            raise SipError(500, "Another offer is pending", (("Retry-After", "1"),))
        waits_for_ack = leg.answering if self.tx.method == "INVITE" else leg.late_answer is not None
        if leg.invite_out or leg.update_out or waits_for_ack:
            raise SipError(491, "Request Pending")

    def _is_refresh(self) -> bool:
        """Whether the request changes nothing but the session timer."""
        request, leg = self.tx.request, self.leg
        if not leg.confirmed or request.get("session-expires") is None:
            return False
        if request.method == "UPDATE":
            return not request.body
        known = request.method == "INVITE" and bool(request.body) and bool(leg.local_sdp)
        return known and request.body == leg.remote_sdp

    def _refreshed(self, now: float) -> None:
        leg, tx = self.leg, self.tx
        invite = tx.method == "INVITE"
        lines = [(item.name, item.value) for item in (contact_line(tx.flow), *self._lines)]
        body = leg.local_sdp if invite else b""
        if body:
            lines.append(("Content-Type", "application/sdp"))
        response = leg.own_response(tx, 200, tuple(lines), body)
        self.call.core.record_message(now, self.call.id, leg.side, "out", tx.flow, response, self.call.attempt_number)
        if invite:
            leg.answer(tx, response, now)
        else:
            tx.respond(response, now)
        leg.keeper.start(self._terms, now)

    def _send(self, flow: Flow, now: float) -> None:
        if self.tx.last_status >= 200:
            return
        if self.peer.ended:
            # It had to wait, and the call ended meanwhile (RFC 3261 section 15.1.2).
            self._finish(now, 487, "Request Terminated")
            return
        call = self.call
        extra: tuple[Header, ...] = ()
        if self.tx.method in ("INVITE", "UPDATE"):
            extra = self.peer.keeper.lines()
        elif self._rack:
            extra = (header("RAck", self._rack),)
        try:
            request, changes = crossed_request(call, self.tx.request, self.peer, self.exchange, now, extra)
        except (RuleReject, SdpError, SipError) as error:
            self._finish(now, getattr(error, "status", 488), getattr(error, "reason", str(error)))
            return
        self._request = request
        if request.body:
            self._sent_sdp = request.body
        number = call.attempt_number
        call.core.record_message(now, call.id, self.peer.side, "out", flow, request, number, changes, self._source)
        self._tx_out = call.core.layer.send_request(request, flow, self, now)
        if self.tx.method == "INVITE" and not self.tx.last_status:
            self.leg.reply(self.tx, 100, now)

    def on_cancel(self, tx: ServerTransaction, now: float) -> None:
        """The peer takes its re-INVITE back."""
        call = self.call
        call.core.record_message(now, call.id, self.leg.side, "in", tx.flow, tx.request, call.attempt_number)
        self.leg.reply(tx, 200, now)
        if self.tx.last_status >= 200:
            return
        if self._tx_out is None:
            self._finish(now, 487, "Request Terminated")
        else:
            self._cancelled = True
            self._cancel_out(now)

    def abandon(self, now: float) -> None:
        """The dialog ends while the request is pending: refuse it, and give the other side some time to end it too."""
        self._finish(now, 487, "Request Terminated")
        self._watch(now)

    def _cancel_out(self, now: float) -> None:
        """CANCEL, once, after a provisional response (RFC 3261 section 9.1)."""
        out, request, call = self._tx_out, self._request, self.call
        if self._cancel_sent or out is None or request is None or not out.provisional_received:
            return
        self._cancel_sent = True
        cancel = make_cancel(request)
        user = ByeUser(call.core, call.id, self.peer.side, call.attempt_number)
        call.core.record_message(now, call.id, self.peer.side, "out", out.flow, cancel, call.attempt_number)
        call.core.layer.send_request(cancel, out.flow, user, now)
        self._watch(now)

    def _watch(self, now: float) -> None:
        if self._guard is None and self._tx_out is not None:
            core = self.call.core
            self._guard = core.timers.schedule(now + 64 * core.config.timers.t1_s, self._given_up)

    def _given_up(self, now: float) -> None:
        """A request that was taken back never got its final response (RFC 3261 section 9.1)."""
        self._guard = None
        if self._tx_out is not None:
            self._tx_out.terminate(now)
        self._finish(now, 487, "Request Terminated")

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """The other leg's response."""
        call, peer, leg = self.call, self.peer, self.leg
        call.core.record_message(now, call.id, peer.side, "in", tx.flow, response, call.attempt_number)
        status = response.status
        if status < 200 and self._cancelled:
            self._cancel_out(now)
        if status == 100 or (status < 200 and self._wants_reliable()):
            return
        if status >= 200 and self._guard is not None:
            self._guard.cancel()
            self._guard = None
        if (peer.digest is not None and status >= 200 and peer.digest.take(response)) or (
            status == 422 and not peer.ended and peer.keeper.lengthen(response)
        ):
            if not self._rack:
                self.exchange = Exchange()
            self._send(tx.flow, now)
            return
        invite = tx.method == "INVITE"
        if invite and 200 <= status < 300:
            seq = response.cseq.number
            if peer.repeat_ack(seq, now) or seq == peer.owes_ack:
                return
            if self.tx.last_status >= 200:
                peer.send_ack(seq, now)
        if self.tx.last_status >= 200:
            return
        draft = Draft(response)
        assert call.attempt is not None
        try:
            call.attempt.apply_rules(draft, B_TO_A if peer.place == "b" else A_TO_B, now)
            if status < 300:
                self.exchange.cross(draft, response.body)
            if leg.origin is not None:
                leg.origin.keep(draft)
            hide_own_refusal(draft)
        except (RuleReject, SdpError) as error:
            if status >= 200:
                if invite and status < 300:
                    peer.send_ack(response.cseq.number, now)
                self._finish(now, 488, getattr(error, "reason", str(error)))
            return
        lines: list[Header] = []
        if 200 <= status < 300:
            leg.learn(self.tx.request)
            peer.learn(response)
            if self._sent_sdp:
                peer.local_sdp = self._sent_sdp
            if draft.body:
                leg.local_sdp = draft.body
            if tx.method in ("INVITE", "UPDATE"):
                peer.refresh_target(response)
                lines = list(self._lines)
                peer.keeper.start(answered_terms(response, peer.keeper.asks_s), now)
                if leg.confirmed:
                    leg.keeper.start(self._terms, now)
        block = leg.response_block(self.tx.request, self.tx.flow, success=status < 300)
        map_message(draft, block, [*call.core.reply_capabilities, *lines])
        mapped = draft.finish()
        assert isinstance(mapped, Response)
        call.core.record_message(
            now, call.id, leg.side, "out", self.tx.flow, mapped, call.attempt_number, draft.changes
        )
        if status < 200:
            self.tx.respond(mapped, now)
            return
        self._done(now, status, response.reason)
        if invite and status < 300:
            if self.tx.request.body:
                peer.send_ack(response.cseq.number, now)
            else:
                peer.owes_ack = response.cseq.number
                leg.late_answer = (response.cseq.number, self.exchange)
            leg.answer(self.tx, mapped, now)
            return
        self.tx.respond(mapped, now)
        if status in (408, 481):
            call.hang_up(now, status, "The other side has lost the call")

    def _wants_reliable(self) -> bool:
        """Whether provisional responses may only go out reliably (RFC 3262 section 3), which we do for the INVITE that
        begins a call only."""
        return self.tx.method == "INVITE" and any("100rel" in one.lower() for one in self.tx.request.get_all("require"))

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """The other leg never answered: its dialog is lost (RFC 3261 section 12.2.1.2)."""
        self._finish(now, 408, "Request Timeout")
        self.call.hang_up(now, 408, "The other side does not answer")

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The other leg's connection broke."""
        self._finish(now, 503, "Service Unavailable")

    def _finish(self, now: float, status: int, reason: str) -> None:
        if self.tx.last_status < 200:
            self.leg.reply(self.tx, status, now, reason)
            self._done(now, status, reason)

    def _done(self, now: float, status: int, reason: str) -> None:
        if self.tx.method == "REFER":
            state = "accepted" if status < 300 else "refused"
            record_refer(self.call.core, self.leg, now, self.tx.request, state, status=status, reason=reason)
        elif self.tx.method == "INVITE":
            self.leg.invite_in = None
            self.peer.invite_out = False
        elif self._offers():
            self.leg.update_in = self.peer.update_out = False
