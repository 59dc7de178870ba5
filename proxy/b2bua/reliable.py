"""Reliable provisional responses (RFC 3262): those that leg A acknowledges by PRACK, and those that leg B sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.b2bua.core import Core
from proxy.b2bua.way_back import WayBack
from proxy.sip.message import Header, Request, Response, header
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.leg import Leg

__all__ = ["Owed", "ReliableSender", "rseq_of"]

_REQUIRE: Final = header("Require", "100rel")


def rseq_of(response: Response) -> int | None:
    """The RSeq of a reliable provisional response, None for an unreliable one (or one with a malformed RSeq)."""
    value = response.get("rseq")
    if value is None or not any("100rel" in line.lower() for line in response.get_all("require")):
        return None
    value = value.strip()
    return int(value) if value.isdigit() and value.isascii() and len(value) <= 10 else None


class Owed:
    """A PRACK that leg B waits for until leg A's comes: the early dialog and what its RAck must say."""

    __slots__ = ("leg", "rack")

    def __init__(self, leg: Leg, rack: str) -> None:
        self.leg = leg
        self.rack = rack


class _Pending:
    __slots__ = ("owed", "response", "rseq", "sent")

    def __init__(self, rseq: int, response: Response, owed: Owed | None, sent: Callable[[float], None]) -> None:
        self.sent = sent
        self.rseq = rseq
        self.response = response
        self.owed = owed


class ReliableSender:
    """Sends provisional responses to an INVITE reliably, one after the other (RFC 3262 section 3).

    Each is repeated until its PRACK comes; what follows waits, a final response too.
    """

    __slots__ = ("_core", "_final", "_given_up", "_interval_s", "_queue", "_rseq", "_timer", "_tx", "_until", "_way")

    def __init__(self, core: Core, tx: ServerTransaction, way: WayBack, given_up: Callable[[float], None]) -> None:
        self._core = core
        self._way = way
        self._tx = tx
        self._given_up = given_up
        self._rseq = int(core.random() * 2**31) or 1
        self._queue: list[_Pending] = []
        self._final: Callable[[float], None] | None = None
        self._timer: Timer | None = None
        self._interval_s = 0.0
        self._until = 0.0

    def lines(self) -> list[Header]:
        """Require and RSeq for the next response; call `send` with that response afterwards."""
        self._rseq += 1
        return [_REQUIRE, header("RSeq", str(self._rseq))]

    def send(self, response: Response, owed: Owed | None, sent: Callable[[float], None], now: float) -> None:
        """Send the response that carries the last `lines`, or let it wait for those before it; `sent` is called when it
        goes out for the first time."""
        self._queue.append(_Pending(self._rseq, response, owed, sent))
        if len(self._queue) == 1:
            self._begin(now)

    @property
    def is_waiting(self) -> bool:
        """Whether a PRACK is still to come, so that whatever is to be sent has to wait."""
        return bool(self._queue)

    def after(self, final: Callable[[float], None], now: float) -> None:
        """Send a final response once every provisional one is acknowledged; at once when all are."""
        if self._queue:
            self._final = final
        else:
            final(now)

    def stop(self) -> None:
        """Nothing is repeated any more."""
        self._queue.clear()
        self._final = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def acknowledge(self, prack: Request, now: float) -> tuple[bool, Owed | None]:
        """Take a PRACK: whether it acknowledges what is pending, and what leg B is owed for it."""
        parts = (prack.get("rack") or "").split()
        queue = self._queue
        if not queue or len(parts) != 3:
            return False, None
        pending = queue[0]
        if parts != [str(pending.rseq), str(self._tx.request.cseq.number), "INVITE"]:
            return False, None
        del queue[0]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if queue:
            self._begin(now)
        elif self._final is not None:
            final, self._final = self._final, None
            final(now)
        return True, pending.owed

    def _begin(self, now: float) -> None:
        if not self._queue or not self._way.is_open(self._begin, now):
            return
        pending = self._queue[0]
        pending.sent(now)
        self._tx.respond(pending.response, now)
        self._interval_s = self._core.config.timers.t1_s
        self._until = now + 64 * self._interval_s
        self._timer = self._core.timers.schedule(now + self._interval_s, self._repeat)

    def _repeat(self, now: float) -> None:
        self._timer = None
        if now >= self._until:
            self.stop()
            self._given_up(now)
            return
        if not self._way.is_waited_for:
            self._send_again(now)
        self._interval_s *= 2
        self._timer = self._core.timers.schedule(min(now + self._interval_s, self._until), self._repeat)

    def _send_again(self, now: float) -> None:
        if self._queue and self._way.is_open(self._send_again, now):
            self._core.send(self._tx.flow, self._queue[0].response.serialize())
