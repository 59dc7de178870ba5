"""Keeps the session timer of one leg (RFC 4028): refreshes when that is our part, ends the call when nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.b2bua.mapping import contact_line
from proxy.dialog.session_timer import SessionTerms, answered_terms, refusal_min_se
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Response, header
from proxy.transaction.client import ClientTransaction
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.leg import Leg

__all__ = ["SessionKeeper"]


class SessionKeeper:
    """The session timer of a leg. The other leg never hears of it.

    Attributes:
        terms: what was negotiated last; None while no session timer runs.
    """

    __slots__ = ("_leg", "_since", "_timer", "terms")

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self._since = 0.0
        self._timer: Timer | None = None
        self.terms: SessionTerms | None = None

    def start(self, terms: SessionTerms | None, now: float) -> None:
        """Begin anew with these terms; None ends the session timer (RFC 4028 section 7.4)."""
        self.stop()
        self.terms = terms
        if terms is not None:
            self._since = now
            self._schedule(now + terms.wait_s)

    def stop(self) -> None:
        """No more refreshes and no expiry."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.terms = None

    def lines(self) -> tuple[Header, ...]:
        """What a re-INVITE or UPDATE of ours must say so that the timer goes on in the same roles."""
        terms = self.terms
        if terms is None:
            return ()
        return (header("Session-Expires", f"{terms.interval_s};refresher={'uac' if terms.we_refresh else 'uas'}"),)

    def _schedule(self, when: float) -> None:
        self._timer = self._leg.core.timers.schedule(when, self._due)

    def _expires(self) -> float:
        """When the session counts as dead."""
        terms = self.terms
        assert terms is not None
        return self._since + terms.interval_s - min(32.0, terms.interval_s / 3)

    def _due(self, now: float) -> None:
        self._timer = None
        terms = self.terms
        if terms is None:
            return
        if not terms.we_refresh or now >= self._expires():
            self._leg.call.hang_up(now, 408, "Session expired")
        elif self._leg.invite_in is not None or self._leg.invite_out or self._leg.answering:
            self._schedule(now + 1.0)
        else:
            self._schedule(self._expires())
            self._refresh(now)

    def _refresh(self, now: float) -> None:
        """An UPDATE where the peer takes it, else a re-INVITE with the session as it stands."""
        leg = self._leg
        method = "UPDATE" if leg.takes_update else "INVITE"

        def send(flow: Flow, now: float) -> None:
            extra = [contact_line(flow), *self.lines(), *leg.core.capabilities]
            body = leg.local_sdp if method == "INVITE" else b""
            if body:
                extra.append(header("Content-Type", "application/sdp"))
            request = leg.dialog.request(method, leg.dialog.next_seq(), leg.top(), tuple(extra), body)
            leg.invite_out = method == "INVITE"
            leg.core.record_message(now, leg.call.id, leg.side, "out", flow, request, leg.call.attempt_number)
            leg.core.layer.send_request(request, flow, self, now)

        leg.with_flow(send, now)

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """The peer's answer to a refresh."""
        leg, status = self._leg, response.status
        leg.core.record_message(now, leg.call.id, leg.side, "in", tx.flow, response, leg.call.attempt_number)
        if status < 200:
            return
        if tx.method == "INVITE":
            if status < 300:
                if leg.repeat_ack(response.cseq.number, now):
                    return
                leg.send_ack(response.cseq.number, now)
            leg.invite_out = False
        terms = self.terms
        if terms is None:
            return
        if status < 300:
            leg.dialog.refresh_target(response)
            self.start(answered_terms(response, terms.interval_s), now)
        elif status == 422:
            self.terms = SessionTerms(max(refusal_min_se(response), terms.interval_s), True)
            self._refresh(now)
        elif status in (408, 481):
            leg.call.hang_up(now, status, "The other side has lost the call")
        elif self._timer is not None:
            self._timer.cancel()
            self._schedule(min(now + leg.glare_wait_s(), self._expires()))

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """No answer to a refresh: the peer is gone (RFC 4028 section 10)."""
        self._leg.invite_out = False
        self._leg.call.hang_up(now, 408, "Session refresh not answered")

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The connection broke; a new one is tried until the session expires."""
        self._leg.invite_out = False
        if self.terms is not None and self._timer is not None:
            self._timer.cancel()
            self._schedule(min(now + 1.0, self._expires()))
