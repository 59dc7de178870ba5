"""A re-INVITE or UPDATE that begins with us: it waits for its turn, and goes out again where the answer asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.audit.records import Change
from proxy.b2bua.heard import ByeUser
from proxy.b2bua.mapping import contact_line, map_message
from proxy.dialog.session_timer import answered_terms
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import RuleReject
from proxy.sdp.errors import SdpError
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Message, Request, Response, header
from proxy.transaction.client import ClientTransaction, make_cancel
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.leg import Leg

__all__ = ["Made", "Reinvite", "give_back", "reinvite_from"]

_BUSY_WAIT_S: Final = 0.2
_ANSWER_WAIT_S: Final = 60.0
_MAX_TRIES: Final = 10


class Made:
    """A request that is ready to go, and for one that was made from another message that message and the changes."""

    __slots__ = ("changes", "request", "source")

    def __init__(self, request: Request, changes: list[Change] | None = None, source: Message | None = None) -> None:
        self.request = request
        self.changes = changes
        self.source = source


Make = Callable[[Flow, tuple[Header, ...], float], Made]
Done = Callable[[Response | None, int, str, float], None]


class Reinvite:
    """Sends an INVITE or UPDATE in a leg's dialog and hears what becomes of it.

    An INVITE waits until no other one is pending (RFC 3261 section 14.1). After 491 it is tried again, after 401 or 407
    with credentials, after 422 with a longer session interval. A 2xx is acknowledged, and what it says of session,
    target and session timer is kept.

    Args:
        leg: whose dialog it is.
        method: "INVITE" or "UPDATE".
        make: builds the request for a flow, each time anew, with the header fields that it is given. RuleReject,
            SdpError and SipError say that it can't be made.
        done: is told the final response (None without one), status and reason phrase, once.
        patience_s: how long an INVITE waits for its turn.
    """

    __slots__ = ("_done", "_guard", "_leg", "_make", "_method", "_over", "_started", "_tries", "patience_s")

    def __init__(self, leg: Leg, method: str, make: Make, done: Done, patience_s: float = 32.0) -> None:
        self._leg = leg
        self._method = method
        self._make = make
        self._done = done
        self._tries = 0
        self._started = -1.0
        self._over = False
        self._guard: Timer | None = None
        self.patience_s = patience_s

    def start(self, now: float) -> None:
        """Send it as soon as may be."""
        leg = self._leg
        if self._over:
            return
        if self._started < 0:
            self._started = now
        if leg.ended:
            self._finish(None, 481, "Call/Transaction Does Not Exist", now)
        elif self._method == "INVITE" and leg.busy:
            if now - self._started >= self.patience_s:
                self._finish(None, 491, "Request Pending", now)
            else:
                leg.core.timers.schedule(now + _BUSY_WAIT_S, self.start)
        else:
            leg.invite_out = leg.invite_out or self._method == "INVITE"
            leg.with_flow(self._send, now, self._no_flow)

    def _send(self, flow: Flow, now: float) -> None:
        leg = self._leg
        if leg.ended:
            self._release()
            self._finish(None, 481, "Call/Transaction Does Not Exist", now)
            return
        uri = leg.dialog.request_lines()[0]
        credentials = () if leg.digest is None else leg.digest.lines(self._method, uri)
        try:
            made = self._make(flow, (*leg.keeper.lines(), *credentials), now)
        except (RuleReject, SdpError, SipError) as error:
            self._release()
            self._finish(None, getattr(error, "status", 488), getattr(error, "reason", str(error)), now)
            return
        number = leg.call.attempt_number
        request = made.request
        leg.core.record_message(now, leg.call.id, leg.side, "out", flow, request, number, made.changes, made.source)
        tx = leg.core.layer.send_request(request, flow, self, now)
        if self._method == "INVITE":
            self._guard = leg.core.timers.schedule(now + _ANSWER_WAIT_S, lambda now: self._cancel(tx, now))

    def _cancel(self, tx: ClientTransaction, now: float) -> None:
        """The peer rings, or says nothing more: take the INVITE back, and end it in any case (RFC 3261 section 9.1)."""
        leg = self._leg
        core, number = leg.core, leg.call.attempt_number
        if tx.provisional_received and not tx.flow.closed:
            cancel = make_cancel(tx.request, (header("Reason", 'SIP;cause=408;text="No answer in time"'),))
            core.record_message(now, leg.call.id, leg.side, "out", tx.flow, cancel, number)
            core.layer.send_request(cancel, tx.flow, ByeUser(core, leg.call.id, leg.side, number), now)

        def end(now: float) -> None:
            tx.terminate(now)
            self.on_timeout(tx, now)

        self._guard = core.timers.schedule(now + 64 * core.config.timers.t1_s, end)

    def _no_flow(self, reason: str, now: float) -> None:
        self._release()
        self._finish(None, 503, reason, now)

    def _release(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None
        if self._method == "INVITE":
            self._leg.invite_out = False

    def _finish(self, response: Response | None, status: int, reason: str, now: float) -> None:
        if not self._over:
            self._over = True
            self._done(response, status, reason, now)

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """The peer's answer."""
        leg, status = self._leg, response.status
        leg.core.record_message(now, leg.call.id, leg.side, "in", tx.flow, response, leg.call.attempt_number)
        if status < 200:
            return
        if tx.method == "INVITE" and status < 300:
            if leg.repeat_ack(response.cseq.number, now):
                return
            leg.send_ack(response.cseq.number, now)
        self._release()
        if leg.ended:
            self._finish(response, status, response.reason, now)
        elif leg.digest is not None and leg.digest.take(response):
            self.start(now)
        elif status < 300:
            self._take(tx, response, now)
        elif status == 422 and leg.keeper.lengthen(response):
            self.start(now)
        elif status == 491 and self._tries < _MAX_TRIES:
            self._tries += 1
            leg.core.timers.schedule(now + leg.glare_wait_s(), self.start)
        else:
            self._finish(response, status, response.reason, now)

    def _take(self, tx: ClientTransaction, response: Response, now: float) -> None:
        leg = self._leg
        leg.refresh_target(response)
        leg.learn(response)
        if tx.request.body:
            leg.local_sdp = tx.request.body
        leg.keeper.start(answered_terms(response, leg.keeper.asks_s), now)
        self._finish(response, response.status, response.reason, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """No answer at all."""
        self._release()
        self._finish(None, 408, "Request Timeout", now)

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The connection broke."""
        self._release()
        self._finish(None, 503, "Connection lost", now)


def reinvite_from(draft: Draft, leg: Leg, flow: Flow, lines: tuple[Header, ...], source: Message) -> Made:
    """The re-INVITE for a leg from a message of somebody else, whose rules and offer/answer exchange are done."""
    uri, routes = leg.dialog.request_lines()
    draft.step = "builtin:transfer"
    draft.become_request("INVITE", uri)
    if leg.origin is not None:
        leg.origin.keep(draft)
    identity = leg.dialog.identity(leg.dialog.next_seq(), "INVITE")
    block = [*leg.top(), *identity, contact_line(flow)]
    map_message(draft, block, [*leg.core.capabilities, *lines], routes)
    request = draft.finish()
    assert isinstance(request, Request)
    return Made(request, draft.changes, source)


def give_back(leg: Leg, session: bytes, done: Done, now: float) -> None:
    """Offer a leg the session again that it had before."""

    def make(flow: Flow, lines: tuple[Header, ...], now: float) -> Made:
        body = session if leg.origin is None else leg.origin.stamp(session)
        extra = (contact_line(flow), *lines, *leg.core.capabilities, header("Content-Type", "application/sdp"))
        return Made(leg.dialog.request("INVITE", leg.dialog.next_seq(), leg.top(), extra, body))

    Reinvite(leg, "INVITE", make, done).start(now)
