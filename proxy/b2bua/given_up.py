"""An INVITE of ours that nobody waits for any more: whatever it still brings is ended."""

from __future__ import annotations

from proxy.b2bua.core import Core
from proxy.b2bua.farewell import Farewell
from proxy.b2bua.heard import ByeUser
from proxy.sip.message import Header, Response
from proxy.transaction.client import ClientTransaction, make_cancel
from proxy.transaction.timers import Timer

__all__ = ["GivenUp"]


class GivenUp:
    """Takes over the client transaction of an INVITE, such as one to an address that was given up for the next one.

    A late provisional response is answered by a CANCEL (RFC 3261 section 9.1), a late 2xx by ACK and BYE. `side` and
    `number` are those of its leg and attempt, for the records; `why` is for the Reason header of that BYE.
    """

    __slots__ = ("_call_id", "_core", "_guard", "_number", "_side", "_unwanted", "_why")

    def __init__(
        self, core: Core, call_id: str, side: str, number: int, why: str = "Another address was taken"
    ) -> None:
        self._core = core
        self._call_id = call_id
        self._side = side
        self._number = number
        self._why = why
        self._guard: Timer | None = None
        self._unwanted: dict[str, Farewell] = {}

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """A response after all."""
        core, flow = self._core, tx.flow
        core.record_message(now, self._call_id, self._side, "in", flow, response, self._number)
        if response.status >= 200 and self._guard is not None:
            self._guard.cancel()
        if response.status >= 300:
            return
        if response.status >= 200:
            tag = response.to.tag or ""
            farewell = self._unwanted.get(tag)
            if farewell is None:
                seq = tx.request.cseq.number
                farewell = Farewell(
                    core, self._call_id, self._number, tx.request, response, flow, self._why, seq, side=self._side
                )
                self._unwanted[tag] = farewell
            farewell.say(now)
        elif self._guard is None:
            self.cancel(tx, now)

    def cancel(self, tx: ClientTransaction, now: float, extra: tuple[Header, ...] = ()) -> None:
        """Send the CANCEL, once; without a final response the transaction ends after 64*T1 (RFC 3261 section 9.1)."""
        core, flow = self._core, tx.flow
        cancel = make_cancel(tx.request, extra)
        core.record_message(now, self._call_id, self._side, "out", flow, cancel, self._number)
        core.layer.send_request(cancel, flow, ByeUser(core, self._call_id, self._side, self._number), now)
        self._guard = core.timers.schedule(now + 64 * core.config.timers.t1_s, tx.terminate)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """It never came."""

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """It can't come any more."""
        if self._guard is not None:
            self._guard.cancel()
