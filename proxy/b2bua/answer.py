"""A 2xx of ours to an INVITE, until its ACK comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.b2bua.way_back import WayBack
from proxy.sip.message import Response
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.leg import Leg

__all__ = ["Answer"]


class Answer:
    """Repeats a 2xx until its ACK comes or 64*T1 are over (RFC 3261 section 13.3.1.4).

    Args:
        way: leads back to a caller whose connection is gone; None where none is looked for.

    Attributes:
        seq: the CSeq number of the INVITE.
    """

    __slots__ = ("_data", "_interval_s", "_leg", "_timer", "_tx", "_until", "_way", "seq")

    def __init__(self, leg: Leg, tx: ServerTransaction, response: Response, now: float, way: WayBack | None) -> None:
        timers = leg.core.config.timers
        self._leg = leg
        self._tx = tx
        self._way = way
        self._data = response.serialize()
        self._until = now + 64 * timers.t1_s
        self._interval_s = timers.t1_s
        self._timer: Timer | None = leg.core.timers.schedule(now + self._interval_s, self._repeat)
        self.seq = tx.request.cseq.number

    def _repeat(self, now: float) -> None:
        core = self._leg.core
        if now >= self._until:
            self._timer = None
            self._leg.on_no_ack(now)
            return
        if self._way is None or not self._way.is_waited_for:
            self._send(now)
        self._interval_s = min(2 * self._interval_s, core.config.timers.t2_s)
        self._timer = core.timers.schedule(min(now + self._interval_s, self._until), self._repeat)

    def _send(self, now: float) -> None:
        if self._timer is None:
            return
        if not self._tx.flow.closed or (self._way is not None and self._way.is_open(self._send, now)):
            self._leg.core.send(self._tx.flow, self._data)

    def stop(self) -> None:
        """No more repetitions."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
