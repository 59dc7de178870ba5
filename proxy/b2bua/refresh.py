"""Keeps the session timer of one leg (RFC 4028): refreshes when that is our part, ends the call when nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.b2bua.mapping import contact_line
from proxy.b2bua.reinvite import Made, Reinvite
from proxy.dialog.session_timer import SessionTerms, refusal_min_se
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Response, header
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.leg import Leg

__all__ = ["SessionKeeper"]

_SUPPORTED: Final = header("Supported", "timer")
_AGAIN_S: Final = 1.0


class SessionKeeper:
    """The session timer of a leg. The other leg never hears of it.

    Attributes:
        terms: what was negotiated last; None while no session timer runs.
        min_se_s: the interval that a 422 of the peer demanded, 0 for none; every later request says it
            (RFC 4028 section 7.4).
    """

    __slots__ = ("_leg", "_since", "_timer", "min_se_s", "terms")

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self._since = 0.0
        self._timer: Timer | None = None
        self.min_se_s = 0
        self.terms: SessionTerms | None = None

    def start(self, terms: SessionTerms | None, now: float) -> None:
        """Begin anew with these terms; None ends the session timer (RFC 4028 section 7.4)."""
        self.stop()
        if terms is not None and not self._leg.ended:
            self.terms = terms
            self._since = now
            self._schedule(now + terms.wait_s)

    def stop(self) -> None:
        """No more refreshes and no expiry."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.terms = None

    @property
    def asks_s(self) -> int:
        """The session interval that a request of ours asks for; 0 for none."""
        return 0 if self.terms is None else max(self.terms.interval_s, self.min_se_s)

    def lines(self) -> tuple[Header, ...]:
        """What a re-INVITE or UPDATE of ours must say so that the timer goes on in the same roles."""
        terms = self.terms
        if terms is None:
            return (_SUPPORTED,)
        refresher = "uac" if terms.we_refresh else "uas"
        lines = (_SUPPORTED, header("Session-Expires", f"{self.asks_s};refresher={refresher}"))
        return (*lines, header("Min-SE", str(self.min_se_s))) if self.min_se_s else lines

    def lengthen(self, response: Response) -> bool:
        """Take the interval that a 422 demands; False when it is not longer than what we asked for."""
        wanted = refusal_min_se(response)
        if not 0 < self.asks_s < wanted:
            return False
        self.min_se_s = wanted
        return True

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
            return
        if self._leg.busy:
            # A re-INVITE that is under way refreshes the session too.
            self._schedule(min(now + _AGAIN_S, self._expires()))
            return
        self._schedule(self._expires())
        self._refresh(now)

    def _refresh(self, now: float) -> None:
        """An UPDATE where the peer takes it, else a re-INVITE with the session as it stands."""
        leg = self._leg
        method = "UPDATE" if leg.takes_update else "INVITE"

        def make(flow: Flow, lines: tuple[Header, ...], now: float) -> Made:
            extra = [contact_line(flow), *lines, *leg.core.capabilities]
            body = leg.local_sdp if method == "INVITE" else b""
            if body:
                extra.append(header("Content-Type", "application/sdp"))
            return Made(leg.dialog.request(method, leg.dialog.next_seq(), leg.top(), tuple(extra), body))

        def done(response: Response | None, status: int, reason: str, now: float) -> None:
            self._refreshed(method, response, status, now)

        Reinvite(leg, method, make, done).start(now)

    def _refreshed(self, method: str, response: Response | None, status: int, now: float) -> None:
        """What became of a refresh; one that failed is tried again until the session expires."""
        leg = self._leg
        if leg.ended or self.terms is None or status < 300:
            return
        if status == 481 or (status == 408 and response is not None):
            leg.call.hang_up(now, status, "The other side has lost the call")
        elif status == 408:
            leg.call.hang_up(now, status, "Session refresh not answered")
        elif method == "UPDATE" and status in (405, 501):
            leg.takes_update = False
            self._refresh(now)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = self._leg.core.timers.schedule(min(now + _AGAIN_S, self._expires()), self._due)
