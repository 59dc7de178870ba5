"""One call at the simulated OpenAI side, from its INVITE to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.sdp.errors import SdpError
from proxy.sdp.session import Session
from proxy.sim.dialog import OkUntilAck, SimDialog, make_ok, top_via
from proxy.sim.faults import Decision
from proxy.sim.media import is_srtp, make_answer, make_offer
from proxy.sim.records import CallRecord
from proxy.sip.errors import SipError
from proxy.sip.message import Request, Response
from proxy.sip.respond import make_response
from proxy.transaction.client import ClientTransaction
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.sim.openai import OpenAiSim

__all__ = ["OpenAiCall"]

WAITING: Final = "waiting"
ANSWERED: Final = "answered"
CONFIRMED: Final = "confirmed"
ENDED: Final = "ended"
_BAD_REQUEST: Final = "Bad Request"


class OpenAiCall:
    """A call: waiting for the accept, answered (200 sent), confirmed (ACK came) or ended."""

    __slots__ = (
        "_decision",
        "_dialog",
        "_ok",
        "_origin",
        "_reinvite",
        "_reinvite_ok",
        "_sim",
        "_timers",
        "_transaction",
        "offer",
        "record",
        "request",
        "state",
        "tag",
    )

    def __init__(
        self,
        sim: OpenAiSim,
        transaction: ServerTransaction,
        record: CallRecord,
        decision: Decision,
        offer: Session | None,
    ) -> None:
        self._sim = sim
        self._transaction = transaction
        self._decision = decision
        self._origin = sim.new_origin()
        self._timers: list[Timer] = []
        self._dialog: SimDialog | None = None
        self._ok: OkUntilAck | None = None
        self._reinvite_ok: OkUntilAck | None = None
        self._reinvite: ClientTransaction | None = None
        self.request = transaction.request
        self.offer = offer
        self.record = record
        self.state: str = WAITING
        self.tag = sim.new_hex(8)

    @property
    def srtp(self) -> bool:
        """Whether the caller offered SRTP."""
        return is_srtp(self.offer)

    def begin(self) -> None:
        """100 at once, then the webhook, then wait for the accept."""
        self._trying()
        try:
            self._description()
        except SdpError:
            self.refuse(400, "Invalid SDP offer")
            return
        config = self._sim.config
        if config.ringing_after_ms is not None:
            self._after_ms(config.ringing_after_ms, self._ring)
        self._after_ms(config.accept_timeout_ms, self._too_late)
        if self._decision.webhook_delay_ms:
            # Not among the timers that end with the call: a late webhook comes although the call is over.
            self._sim.endpoint.after(self._decision.webhook_delay_ms / 1000, self._announce)
        else:
            self._announce(0.0)

    def refuse_by_decision(self) -> None:
        """100 and the refusal that the fault plan chose."""
        self._trying()
        self.refuse(self._decision.status, self._decision.reason, headers=self._decision.headers)

    def stall(self) -> None:
        """100 and nothing more, until CANCEL."""
        self._trying()

    def accept(self, *, valid: bool = True) -> bool:
        """The application accepts; False when it comes too late. An accept that is not `valid` is taken, and fails."""
        if self.state != WAITING or self.record.cancelled:
            return False
        if not valid or self._decision.fault == "accept-failure":
            self.refuse(400, _BAD_REQUEST, body=b"error code: 504")
        else:
            self._answer()
        return True

    def reject(self, status: int) -> bool:
        """The application rejects; False when it comes too late."""
        if self.state != WAITING:
            return False
        self.refuse(status, None)
        return True

    def hang_up(self) -> bool:
        """The application hangs up; a call that was not answered yet is declined. False when it is over."""
        if self.state == WAITING:
            self.refuse(603, None)
        elif self.state in (ANSWERED, CONFIRMED):
            self._bye(0.0)
        else:
            return False
        return True

    def refer(self, target: str) -> bool:
        """The application transfers the caller to a sip: or tel: URI. False unless the call is confirmed.

        Raises ValueError for a target that does not fit into a header field.
        """
        if self.state != CONFIRMED:
            return False
        if not self._sim.config.faults.lose_refer:
            self._send("REFER", (("Contact", self._contact()), ("Refer-To", f"<{target}>")))
        return True

    def on_cancel(self) -> None:
        """The caller gave up."""
        if self.state != WAITING or self.record.cancelled:
            return
        self.record.cancelled = True
        if self._decision.fault == "answer-cancelled":
            self._stop_timers()
            self._after_ms(self._sim.config.faults.answer_cancelled_ms, self._answer_all_the_same)
        else:
            self.refuse(487, None)

    def on_ack(self, request: Request) -> None:
        """An ACK for our 200, or for the 200 to a re-INVITE."""
        if self._reinvite_ok is not None and self._reinvite_ok.matches(request):
            self._reinvite_ok.stop()
            self._reinvite_ok = None
        if self._ok is None or not self._ok.matches(request):
            return
        self._ok.stop()
        self.record.acked = True
        if self.state != ANSWERED:
            return
        self.state = CONFIRMED
        self.record.answer_in_ack = bool(request.body)
        config = self._sim.config
        if config.call_ms is not None:
            self._after_ms(config.call_ms, self._bye)
        if config.reinvite_after_ms is not None:
            self._after_ms(config.reinvite_after_ms, self._send_reinvite)

    def on_request(self, transaction: ServerTransaction) -> None:
        """A request in the dialog."""
        method = transaction.method
        request = transaction.request
        if method == "BYE":
            self.record.bye_reason = request.get("reason") or ""
            self._respond(transaction, 200)
            self._end("caller")
        elif self._dialog is not None and request.cseq.number <= self._dialog.remote_seq:
            self._respond(transaction, 500, "CSeq out of order")
        elif method == "INVITE":
            self._on_reinvite(transaction)
        elif method in ("OPTIONS", "INFO", "NOTIFY", "MESSAGE"):
            self._respond(transaction, 200)
        else:
            self._respond(transaction, 405)

    def refuse(
        self,
        status: int,
        reason: str | None,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
    ) -> None:
        """Send a final response other than 2xx. A body is plain text."""
        extra = (*headers, ("Content-Type", "text/plain")) if body else headers
        response = make_response(
            self.request,
            status,
            reason,
            remote=self._transaction.flow.remote,
            to_tag=self.tag,
            headers=extra,
            body=body,
        )
        self._stop_timers()
        self.state = ENDED
        self.record.status = status
        self.record.reason = response.reason
        self.record.ended_at = self._sim.endpoint.now
        self._sim.forget(self)
        self._sim.endpoint.respond(self._transaction, response)

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """An answer to a request of ours in the dialog."""
        if response.status < 200:
            return
        success = response.status < 300
        if tx.method == "BYE":
            self._end("target" if success else "lost")
        elif tx.method == "REFER":
            self.record.refers += success
        elif tx.method == "INVITE" and success:
            self._on_reinvite_ok(tx, response)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Nobody answered."""
        if tx.method == "BYE":
            self._end("lost")

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The connection is gone."""
        self.on_timeout(tx, now)

    def _trying(self) -> None:
        self._respond(self._transaction, 100)

    def _ring(self, now: float) -> None:
        if self.state == WAITING and not self.record.cancelled:
            self._respond(self._transaction, 180)

    def _too_late(self, now: float) -> None:
        if self.state == WAITING:
            self.refuse(400, _BAD_REQUEST)

    def _announce(self, now: float) -> None:
        self._sim.announce(self)
        delay_ms = self._sim.config.answer_after_ms
        if delay_ms is not None and self.state == WAITING:
            self._after_ms(delay_ms, self._accept_in_time)

    def _accept_in_time(self, now: float) -> None:
        self.accept()

    def _answer_all_the_same(self, now: float) -> None:
        if self.state == WAITING:
            self._answer()

    def _answer(self) -> None:
        self._stop_timers()
        flow = self._transaction.flow
        extra = (("Contact", self._contact()),)
        response = make_ok(self.request, flow, self.tag, extra, self._description())
        self._dialog = SimDialog.as_uas(self.request, self.tag)
        self.state = ANSWERED
        self.record.answered = True
        self.record.status = 200
        self.record.reason = "OK"
        self.record.answered_at = self._sim.endpoint.now
        self._ok = OkUntilAck(self._sim.endpoint, self._transaction, response, self._bye)

    def _on_reinvite(self, transaction: ServerTransaction) -> None:
        request = transaction.request
        assert self._dialog is not None
        try:
            offer = Session.parse(request.body) if request.body else None
            self._origin = self._origin.next_version()
            body = self._description() if offer is None else make_answer(offer, self._origin, self._sim.config.codecs)
        except SdpError:
            self._respond(transaction, 488)
            return
        self._dialog.remote_seq = request.cseq.number
        self._dialog.refresh(request)
        self.record.reinvites_received += 1
        response = make_ok(request, transaction.flow, self.tag, (("Contact", self._contact()),), body)
        self._reinvite_ok = OkUntilAck(self._sim.endpoint, transaction, response, self._bye)

    def _send_reinvite(self, now: float) -> None:
        if self.state == CONFIRMED:
            self._origin = self._origin.next_version()
            self._send("INVITE", (("Contact", self._contact()), ("Content-Type", "application/sdp")), self._own_offer())

    def _on_reinvite_ok(self, tx: ClientTransaction, response: Response) -> None:
        dialog = self._dialog
        if dialog is None:
            return
        try:
            dialog.refresh(response)
        except SipError:
            return
        if self._reinvite is not tx:
            self._reinvite = tx
            self.record.reinvites_sent += 1
        vias = [top_via(tx.flow, self._sim.new_hex(24))]
        ack = dialog.request("ACK", tx.request.cseq.number, vias)
        self._sim.endpoint.send(tx.flow, ack.serialize())

    def _bye(self, now: float) -> None:
        if self.state in (ANSWERED, CONFIRMED):
            self._stop_timers()
            self.state = ENDED
            self._send("BYE", ())

    def _end(self, by: str) -> None:
        self._stop_timers()
        self.state = ENDED
        if not self.record.ended_by:
            self.record.ended_by = by
            self.record.ended_at = self._sim.endpoint.now
        self._sim.forget(self)

    def _send(self, method: str, extra: tuple[tuple[str, str], ...], body: bytes = b"") -> None:
        dialog = self._dialog
        if dialog is None:
            return
        flow = self._transaction.flow
        vias = [top_via(flow, self._sim.new_hex(24))]
        request = dialog.request(method, dialog.next_seq(), vias, extra, body)
        self._sim.endpoint.send_request(request, flow, self)

    def _respond(self, transaction: ServerTransaction, status: int, reason: str | None = None) -> None:
        response = make_response(transaction.request, status, reason, remote=transaction.flow.remote, to_tag=self.tag)
        self._sim.endpoint.respond(transaction, response)

    def _contact(self) -> str:
        host = self._sim.config.contact_host
        advertised = self._transaction.flow.advertised
        return f"<sip:OAI@{host or advertised}>"

    def _description(self) -> bytes:
        """Our answer, or our offer when the INVITE has none. Raises SdpError."""
        if self.offer is None:
            return self._own_offer()
        return make_answer(self.offer, self._origin, self._sim.config.codecs)

    def _own_offer(self) -> bytes:
        return make_offer(self._origin, srtp=self.srtp)

    def _after_ms(self, delay_ms: float, callback: Callable[[float], None]) -> Timer:
        timer = self._sim.endpoint.after(delay_ms / 1000, callback)
        self._timers.append(timer)
        return timer

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for ok in (self._ok, self._reinvite_ok):
            if ok is not None:
                ok.stop()
