"""How a transfer goes, told to the referrer by NOTIFY (RFC 3515 section 2.4.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.b2bua.mapping import contact_line
from proxy.sip.flow import Flow
from proxy.sip.message import Response, header
from proxy.transaction.client import ClientTransaction

if TYPE_CHECKING:
    from proxy.b2bua.leg import Leg

__all__ = ["News"]

Then = Callable[[float], None]


class News:
    """The subscription that a REFER makes. One NOTIFY goes out at a time; of what waits meanwhile only the latest does.

    Args:
        leg: the referrer's.
        seq: the CSeq number of the REFER, by which the NOTIFYs name it.
        expires_s: how long it lasts at most.
        silent: whether the referrer wants no NOTIFY (RFC 4488).
    """

    __slots__ = ("_end", "_ended", "_expires_s", "_gone", "_last", "_leg", "_pending", "_seq", "_started", "_then")

    def __init__(self, leg: Leg, seq: int, expires_s: int, *, silent: bool) -> None:
        self._leg = leg
        self._seq = seq
        self._expires_s = expires_s
        self._gone = silent
        self._started = -1.0
        self._last = ""
        self._pending = ""
        self._end = ""
        self._ended = False
        self._then: Then | None = None

    def tell(self, status_line: str, now: float) -> None:
        """Report progress by the status line of a response."""
        if not self._end:
            self._next(status_line, now)

    def close(self, status_line: str, then: Then | None, now: float) -> None:
        """Report the end, and call `then` once the referrer has heard of it, or can't."""
        self._end = status_line
        self._then = then
        self._next(status_line, now)

    def _next(self, line: str, now: float) -> None:
        if self._gone or self._leg.ended:
            self._gone = True
            self._finish(now)
        elif self._last:
            self._pending = line
        else:
            self._send(line, now)

    def _finish(self, now: float) -> None:
        then, self._then = self._then, None
        if then is not None and self._end:
            then(now)

    def _send(self, line: str, now: float) -> None:
        leg = self._leg
        if self._started < 0:
            self._started = now
        left = max(int(self._expires_s - (now - self._started)), 1)
        self._last = line
        self._ended = line == self._end
        state = "terminated;reason=noresource" if self._ended else f"active;expires={left}"

        def send(flow: Flow, now: float) -> None:
            extra = (
                contact_line(flow),
                header("Event", f"refer;id={self._seq}"),
                header("Subscription-State", state),
                *leg.core.capabilities,
                *leg.credentials("NOTIFY"),
                header("Content-Type", "message/sipfrag;version=2.0"),
            )
            body = f"{line}\r\n".encode("utf-8", "surrogateescape")
            notify = leg.dialog.request("NOTIFY", leg.dialog.next_seq(), leg.top(), extra, body)
            number = leg.call.attempt_number
            leg.core.record_message(now, leg.call.id, leg.side, "out", flow, notify, number)
            leg.core.layer.send_request(notify, flow, self, now)

        leg.with_flow(send, now, self._lost)

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """The referrer has heard it, or does not want to hear any more."""
        leg = self._leg
        leg.core.record_message(now, leg.call.id, leg.side, "in", tx.flow, response, leg.call.attempt_number)
        if response.status < 200:
            return
        line, self._last = self._last, ""
        if leg.digest is not None and leg.digest.take(response):
            self._send(line, now)
        elif response.status >= 300 or self._ended:
            self._gone = True
            self._finish(now)
        else:
            pending, self._pending = self._pending, ""
            if pending and pending != line:
                self._next(pending, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """The referrer is gone."""
        self._lost("", now)

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The referrer's connection broke."""
        self._lost("", now)

    def _lost(self, reason: str, now: float) -> None:
        self._gone = True
        self._last = ""
        self._finish(now)
