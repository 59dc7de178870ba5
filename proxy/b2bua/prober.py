"""Finds calls whose peer is gone without a word: OPTIONS in the dialog, from time to time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.b2bua.leg import Leg
from proxy.sip.flow import Flow
from proxy.sip.message import Response, header
from proxy.transaction.client import ClientTransaction
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["Prober"]

_ACCEPT: Final = header("Accept", "application/sdp")


class Prober:
    """Asks both peers of a call every `probe_s` seconds whether they still know it.

    481, 408 and silence end the call (RFC 3261 section 12.2.1.2). Any other answer, a refusal of OPTIONS too, comes
    from somebody who is there. A peer that can't be reached gets another chance at the next turn.
    """

    __slots__ = ("_asked", "_call", "_lost", "_timer")

    def __init__(self, call: Call, now: float) -> None:
        self._call = call
        self._asked: set[Leg] = set()
        self._lost: set[Leg] = set()
        self._timer: Timer | None = None
        self._again(now)

    def stop(self) -> None:
        """No more questions, and no answer counts any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._asked.clear()

    def _again(self, now: float) -> None:
        core = self._call.core
        self._timer = core.timers.schedule(now + core.config.probe_s, self._due)

    def _due(self, now: float) -> None:
        self._again(now)
        for leg in (self._call.leg_a, self._call.leg_b):
            if leg is not None and leg.confirmed and not leg.ended and not leg.answering and leg not in self._asked:
                self._asked.add(leg)
                _Probe(self, leg).send(now)

    def answered(self, leg: Leg, status: int, now: float) -> None:
        """A peer has answered."""
        if leg in self._asked:
            self._asked.remove(leg)
            self._lost.discard(leg)
            if status in (408, 481):
                self._call.hang_up(now, status, "The other side has lost the call")

    def silent(self, leg: Leg, now: float) -> None:
        """A peer has not answered."""
        if leg in self._asked:
            self._call.hang_up(now, 408, "The other side does not answer")

    def unreachable(self, leg: Leg, now: float) -> None:
        """There was no way to a peer."""
        if leg in self._asked:
            self._asked.remove(leg)
            if leg in self._lost:
                self._call.hang_up(now, 408, "The other side can't be reached")
            else:
                self._lost.add(leg)


class _Probe:
    """One OPTIONS, sent again where it is challenged."""

    __slots__ = ("_leg", "_prober")

    def __init__(self, prober: Prober, leg: Leg) -> None:
        self._prober = prober
        self._leg = leg

    def send(self, now: float) -> None:
        """Send it by the leg's flow, or by a new one where that is gone."""
        self._leg.with_flow(self._on_flow, now, self._on_no_flow)

    def _on_flow(self, flow: Flow, now: float) -> None:
        leg = self._leg
        if leg.ended:
            return
        core, call = leg.core, leg.call
        extra = (_ACCEPT, *core.capabilities, *leg.credentials("OPTIONS"))
        request = leg.dialog.request("OPTIONS", leg.dialog.next_seq(), leg.top(), extra)
        core.record_message(now, call.id, leg.side, "out", flow, request, call.attempt_number)
        core.layer.send_request(request, flow, self, now)

    def _on_no_flow(self, reason: str, now: float) -> None:
        self._prober.unreachable(self._leg, now)

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """The peer's answer."""
        leg, status = self._leg, response.status
        leg.core.record_message(now, leg.call.id, leg.side, "in", tx.flow, response, leg.call.attempt_number)
        if status < 200:
            return
        if leg.digest is not None and leg.digest.take(response):
            self.send(now)
        else:
            self._prober.answered(leg, status, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """None came."""
        self._prober.silent(self._leg, now)

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The connection broke."""
        self._prober.unreachable(self._leg, now)
