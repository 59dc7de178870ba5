"""One call of the simulated Twilio side, from its INVITE to its end."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from proxy.sdp.errors import SdpError
from proxy.sdp.offer_answer import check_answer
from proxy.sdp.session import Session
from proxy.sim.dialog import OkUntilAck, SimDialog, make_ok
from proxy.sim.media import make_answer, make_offer
from proxy.sim.report import CallResult
from proxy.sim.shape import (
    ALLOW,
    Caller,
    contact_uri,
    make_identity,
    make_invite,
    make_origin,
    make_vias,
    record_routes,
)
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.headers import Via, parse_via
from proxy.sip.message import Header, Request, Response
from proxy.sip.respond import make_response
from proxy.sip.uri import parse_uri
from proxy.transaction.client import ClientTransaction, make_cancel
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.sim.twilio import TwilioSim

__all__ = ["TwilioCall"]

_HANG_UP_REASON: Final = 'Q.850;cause=16;text="Normal call clearing"'
_CODECS: Final = ("PCMU", "PCMA")


class TwilioCall:
    """A call: inviting, then talking or over."""

    __slots__ = (
        "_bye_sent",
        "_cancel_sent",
        "_dialog",
        "_invite",
        "_offer",
        "_ok",
        "_origin",
        "_over",
        "_planned_cancel",
        "_ringing_ms",
        "_routes",
        "_sent_vias",
        "_setup_ms",
        "_sim",
        "_started",
        "_status",
        "_timers",
        "_transaction",
        "caller",
        "flow",
        "identity",
        "started_s",
    )

    def __init__(self, sim: TwilioSim, caller: Caller, started_s: float = 0.0) -> None:
        self._sim = sim
        self.caller = caller
        self.started_s = started_s
        self.identity = make_identity(sim.random)
        self.flow: Flow | None = None
        self._origin = make_origin(sim.random)
        self._invite: Request | None = None
        self._offer: Session | None = None
        self._routes: list[str] = []
        self._sent_vias: list[tuple[str, str, str]] = []
        self._transaction: ClientTransaction | None = None
        self._dialog: SimDialog | None = None
        self._ok: OkUntilAck | None = None
        self._timers: list[Timer] = []
        self._started = 0.0
        self._setup_ms = 0.0
        self._ringing_ms = 0.0
        self._status = 0
        self._planned_cancel = False
        self._cancel_sent = False
        self._bye_sent = False
        self._over = False

    def start(self, flow: Flow) -> None:
        """Send the INVITE."""
        config = self._sim.config
        self.flow = flow
        edge = self._sim.edge(flow)
        self._routes = record_routes(flow, edge)
        vias = make_vias(flow, edge, self._sim.random, self.identity.gateway_branch)
        uri = self._sim.request_uri(self.caller)
        srtp = config.media_security == "srtp"
        invite = make_invite(self.caller, self.identity, uri, vias, self._routes, self._origin, srtp)
        self._invite = invite
        self._offer = Session.parse(invite.body)
        self._sent_vias = [_via_mark(parse_via(value)) for value in invite.values("via")]
        self._started = perf_counter()
        self._transaction = self._sim.endpoint.send_request(invite, flow, self)
        if self.caller.cancel:
            self._after(config.cancel_after_ms / 1000, self._cancel_as_planned)
        self._after(config.patience_s, self._lose_patience)

    def fail(self, outcome: str) -> None:
        """The call could not be placed."""
        self._finish(outcome, "failed")

    def end(self) -> None:
        """Hang up, or cancel where there is no answer yet; then the call counts as cancelled."""
        now = self._sim.endpoint.now
        if self._dialog is not None:
            self._hang_up(now)
        else:
            self._cancel_as_planned(now)

    # What transactions call.

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """A response to one of our requests."""
        if tx.method == "INVITE":
            try:
                self._on_invite_response(response)
            except SipError as error:
                self._sim.unexpected(f"unusable {response.status} to INVITE: {error.reason}")
                self._finish(f"unusable {response.status}", "failed")
        elif response.status >= 200 and tx.method != "CANCEL":
            if response.status >= 300:
                self._sim.unexpected(f"{tx.method} answered {response.status}")
            self._on_bye_done(tx)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """No answer in time."""
        if tx.method == "INVITE":
            self._finish("timeout", "failed")
        else:
            self._sim.unexpected(f"{tx.method} not answered")
            self._on_bye_done(tx)

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The connection is gone."""
        if tx.method == "INVITE":
            self._finish("connection lost", "failed")
        else:
            self._sim.unexpected(f"connection lost before {tx.method} was answered")
            self._on_bye_done(tx)

    def on_request(self, tx: ServerTransaction) -> None:
        """A request of the other side in our dialog."""
        dialog = self._dialog
        request = tx.request
        if dialog is None:
            self._respond(tx, 481)
            return
        self._check_routing(request)
        if request.cseq.number <= dialog.remote_seq:
            self._sim.unexpected(f"{tx.method} with a CSeq out of order")
            self._respond(tx, 500)
            return
        dialog.remote_seq = request.cseq.number
        if tx.method == "BYE":
            self._respond(tx, 200)
            self._finish_answered("callee")
        elif tx.method == "INVITE":
            self._on_reinvite(tx, dialog)
        elif tx.method == "REFER":
            self._on_refer(tx, dialog)
        elif tx.method in ("OPTIONS", "INFO", "NOTIFY"):
            self._respond(tx, 200)
        else:
            self._sim.unexpected(f"{tx.method} in the dialog")
            self._respond(tx, 405, (("Allow", ALLOW),))

    def on_ack(self, request: Request) -> None:
        """An ACK for our 200 to a re-INVITE."""
        if self._ok is not None and self._ok.matches(request):
            self._ok.stop()
            self._ok = None

    # The answer to the INVITE.

    def _on_invite_response(self, response: Response) -> None:
        status = response.status
        self._check_vias(response)
        if status < 200:
            if status > 100 and not self._ringing_ms:
                self._ringing_ms = self._elapsed_ms()
            if self._planned_cancel:
                self._cancel()
        elif status < 300:
            self._on_success(response)
        else:
            self._status = status
            if status == 487 and self._cancel_sent:
                planned = self._planned_cancel
                self._finish("cancelled" if planned else "no answer", "cancelled" if planned else "failed")
            else:
                self._finish(f"{status} {response.reason}", "failed")

    def _on_success(self, response: Response) -> None:
        assert self._invite is not None
        assert self.flow is not None
        dialog = self._dialog
        if dialog is not None and response.to.tag == dialog.remote_tag:
            self._ack(dialog)
            return
        fresh = SimDialog.as_uac(self._invite, response)
        # The edge takes its own routes off before it sends.
        fresh.routes = [route for route in fresh.routes if route not in self._routes]
        if dialog is not None:
            self._sim.unexpected("a second 200 with another To tag")
            self._ack(fresh)
            self._send(fresh, "BYE", ())
            return
        self._dialog = dialog = fresh
        self._status = response.status
        self._ack(dialog)
        self._stop_timers()
        if self._over:
            self._sim.unexpected("200 to a call that was over")
            self._send(dialog, "BYE", ())
            return
        self._setup_ms = self._elapsed_ms()
        self._sim.add_dialog(self)
        self._check_success(response)
        config = self._sim.config
        if self._cancel_sent:
            self._hang_up(0.0)
        elif config.hang_up == "caller":
            self._after(config.hold_ms / 1000, self._hang_up)
        else:
            self._after(config.hold_ms / 1000 + 64 * config.timers.t1_s, self._callee_never_hung_up)

    def _check_vias(self, response: Response) -> None:
        got = [_via_mark(parse_via(value)) for value in response.values("via")]
        if got != self._sent_vias:
            self._sim.unexpected(f"{response.status} without our Vias")

    def _check_success(self, response: Response) -> None:
        assert self._offer is not None
        sim = self._sim
        if response.values("record-route") != self._routes:
            sim.unexpected("200 without our Record-Route")
        if response.contact is None:
            sim.unexpected("200 without Contact")
        if response.body and response.content_type != "application/sdp":
            sim.report.answers_without_content_type += 1
        try:
            problems = check_answer(Session.parse(response.body), self._offer)
        except SdpError as error:
            problems = [error.reason]
        if problems:
            sim.report.answers_incomplete += 1
            sim.report.incomplete_because.update(problems)

    # The end.

    def _cancel_as_planned(self, now: float) -> None:
        if self._dialog is not None or self._over:
            return
        self._planned_cancel = True
        if self._transaction is not None and self._transaction.provisional_received:
            self._cancel()

    def _lose_patience(self, now: float) -> None:
        if self._transaction is None or self._transaction.provisional_received:
            self._cancel()
        else:
            self._transaction.terminate(now)
            self._finish("no answer", "failed")

    def _cancel(self) -> None:
        """CANCEL, and give up 64*T1 after it (RFC 3261 section 9.1)."""
        if self._dialog is not None or self._over or self._cancel_sent:
            return
        assert self._invite is not None
        assert self.flow is not None
        self._cancel_sent = True
        self._sim.endpoint.send_request(make_cancel(self._invite), self.flow, self)
        self._after(64 * self._sim.config.timers.t1_s, self._give_up)

    def _give_up(self, now: float) -> None:
        if not self._over and self._dialog is None:
            if self._transaction is not None:
                self._transaction.terminate(now)
            self._finish("no final response after CANCEL", "failed")

    def _hang_up(self, now: float) -> None:
        if self._dialog is not None and not self._over and not self._bye_sent:
            self._bye_sent = True
            self._send(self._dialog, "BYE", (("Reason", _HANG_UP_REASON), ("X-Twilio-CallSid", self.caller.call_sid)))

    def _callee_never_hung_up(self, now: float) -> None:
        self._sim.unexpected("the callee never hung up")
        self._hang_up(now)

    def _on_bye_done(self, tx: ClientTransaction) -> None:
        dialog = self._dialog
        if tx.method == "BYE" and dialog is not None and tx.request.to.tag == dialog.remote_tag:
            self._finish_answered("caller")

    def _finish_answered(self, by: str) -> None:
        if not self._cancel_sent:
            self._finish("200 OK", "answered", by)
        elif self._planned_cancel:
            self._finish("cancelled, 200 came all the same", "cancelled", by)
        else:
            self._finish("200 OK after CANCEL", "failed", by)

    def _finish(self, outcome: str, kind: str, ended_by: str = "") -> None:
        if self._over:
            return
        self._over = True
        self._stop_timers()
        if self._ok is not None:
            self._ok.stop()
        caller = self.caller
        result = CallResult(
            caller.index,
            caller.call_sid,
            self.identity.call_id,
            caller.problem or "",
            outcome,
            kind,
            self._status,
            self._setup_ms,
            self._ringing_ms,
            ended_by,
            round(self.started_s, 3),
        )
        self._sim.finished(self, result)

    # Requests in the dialog.

    def _on_reinvite(self, tx: ServerTransaction, dialog: SimDialog) -> None:
        request = tx.request
        try:
            dialog.refresh(request)
            offer = Session.parse(request.body) if request.body else None
            self._origin = self._origin.next_version()
            if offer is None:
                body = make_offer(self._origin, srtp=self._sim.config.media_security == "srtp")
            else:
                body = make_answer(offer, self._origin, _CODECS)
        except (SdpError, SipError) as error:
            self._sim.unexpected(f"unusable re-INVITE: {error.reason}")
            self._respond(tx, 488)
            return
        extra = (
            ("Contact", f"<{contact_uri(self.caller)}>"),
            ("Allow", ALLOW),
            ("User-Agent", "Twilio Gateway"),
            ("Content-Type", "application/sdp"),
        )
        self._sim.report.reinvites += 1
        self._ok = OkUntilAck(self._sim.endpoint, tx, make_ok(request, tx.flow, "", extra, body), self._no_ack)

    def _no_ack(self, now: float) -> None:
        self._sim.unexpected("200 to a re-INVITE without ACK")
        self._hang_up(now)

    def _on_refer(self, tx: ServerTransaction, dialog: SimDialog) -> None:
        """Accept a transfer, and tell at once that it came to a good end (RFC 3515)."""
        self._sim.report.refers += 1
        self._respond(tx, 202)
        extra = (
            ("Contact", f"<{contact_uri(self.caller)}>"),
            ("Event", "refer"),
            ("Subscription-State", "terminated;reason=noresource"),
            ("Content-Type", "message/sipfrag;version=2.0"),
        )
        self._send(dialog, "NOTIFY", extra, b"SIP/2.0 200 OK\r\n")

    def _ack(self, dialog: SimDialog) -> None:
        flow = self._sim.dialog_flow(self, dialog)
        ack = dialog.request("ACK", self.identity.cseq, self._vias(flow))
        self._sim.endpoint.send(flow, ack.serialize())

    def _send(self, dialog: SimDialog, method: str, extra: tuple[tuple[str, str], ...], body: bytes = b"") -> None:
        flow = self._sim.dialog_flow(self, dialog)
        request = dialog.request(method, dialog.next_seq(), self._vias(flow), extra, body)
        self._sim.endpoint.send_request(request, flow, self)

    def _vias(self, flow: Flow) -> list[Header]:
        return make_vias(flow, self._sim.edge(flow), self._sim.random, self.identity.gateway_branch)

    def _respond(self, tx: ServerTransaction, status: int, extra: tuple[tuple[str, str], ...] = ()) -> None:
        self._sim.endpoint.respond(tx, make_response(tx.request, status, remote=tx.flow.remote, headers=extra))

    def _check_routing(self, request: Request) -> None:
        """The other side must send to our Contact by way of our Record-Route."""
        # Whoever sends may drop what our Contact has twice.
        contact = parse_uri(contact_uri(self.caller)).text
        if parse_uri(request.uri).without_duplicate_params().text != contact:
            self._sim.unexpected(f"{request.method} to another URI than our Contact")
        if request.values("route") != self._routes:
            self._sim.unexpected(f"{request.method} without our route set")

    def _elapsed_ms(self) -> float:
        return (perf_counter() - self._started) * 1000

    def _after(self, delay_s: float, callback: Callable[[float], None]) -> None:
        self._timers.append(self._sim.endpoint.after(delay_s, callback))

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def _via_mark(via: Via) -> tuple[str, str, str]:
    """What of a Via must come back as it went out."""
    return (via.transport, via.sent_by, via.branch)
