"""The caller's INVITE, seen from the UAS side: every response that leg A gets to it leaves here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.b2bua.core import Core
from proxy.b2bua.leg import Leg
from proxy.b2bua.mapping import map_message
from proxy.b2bua.reliable import Owed, ReliableSender
from proxy.b2bua.way_back import WayBack
from proxy.dialog.session_timer import SessionTerms, accept_terms, has_option
from proxy.rewrite.draft import Draft
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Response, header
from proxy.sip.respond import REASON_PHRASES, make_response
from proxy.transaction.server import ServerTransaction

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["CallerInvite", "reason_header"]


def reason_header(status: int, text: str) -> Header:
    """A Reason header with a SIP status (RFC 3326)."""
    text = text or REASON_PHRASES.get(status, "")
    clean = "".join([ch for ch in text if ch.isprintable()]).replace("\\", "").replace('"', "'")
    return header("Reason", f'SIP;cause={status};text="{clean}"')


class CallerInvite:
    """Answers the INVITE that began a call.

    Attributes:
        tx: its server transaction.
        wants_reliable: whether the caller takes reliable provisional responses (RFC 3262).
        needs_reliable: whether it demands them.
    """

    __slots__ = ("_call", "_core", "_heard", "_leg", "_sender", "_way", "needs_reliable", "tx", "wants_reliable")

    def __init__(self, core: Core, call: Call, leg: Leg, tx: ServerTransaction) -> None:
        self._core = core
        self._call = call
        self._leg = leg
        self._sender: ReliableSender | None = None
        self._heard: tuple[int, str] | None = None
        self._way = WayBack(core, tx, call)
        self.tx = tx
        self.needs_reliable = any("100rel" in value.lower() for value in tx.request.values("require"))
        self.wants_reliable = self.needs_reliable or has_option(tx.request, "100rel")

    def trying(self, now: float) -> None:
        """100 at once, so that the caller stops repeating (RFC 3261 section 8.2.6.1)."""
        tx = self.tx
        response = make_response(tx.request, 100, remote=tx.flow.remote)
        self._core.record_message(now, self._call.id, "a", "out", tx.flow, response)
        tx.respond(response, now)

    def progress(self, draft: Draft, owed: Owed | None, branch: tuple[int, str], now: float) -> None:
        """Relay a provisional response, reliably where leg B is owed a PRACK for it or the caller insists.

        `branch`: who sent it, as in `may_hear`.
        """
        if owed is None and not self.needs_reliable:
            self._send(self._mapped(draft, success=True), draft, now)
            return
        if draft.has_sdp():
            self._heard = branch
        sender = self._reliable()
        response = self._mapped(draft, success=True, extra=sender.lines())
        waits = sender.is_waiting
        sender.send(response, owed, lambda now: self._record(response, draft, waits, now), now)

    def may_hear(self, branch: tuple[int, str]) -> bool:
        """Whether a session may reach the caller in a provisional response: no other fork's has done so reliably, since
        one dialog has one answer (RFC 3261 section 13.2.1). `branch`: the attempt's number and the target's tag."""
        return self._core.config.relay_early_media and self._heard in (None, branch)

    def has_heard(self, branch: tuple[int, str]) -> bool:
        """Whether the caller has the session of this fork from a reliable provisional response."""
        return self._heard == branch

    def accept(self, draft: Draft, branch: tuple[int, str], now: float) -> None:
        """Relay the 2xx, repeat it until the ACK, and begin the session timer that the caller asked for.

        `branch`: who sent it, as in `may_hear`.
        """
        config, leg = self._core.config, self._leg
        terms, lines = accept_terms(self.tx.request, config.min_se_s, config.session_expires_s)
        if self._heard not in (None, branch):
            # The caller has another answer in this dialog already; this one comes from another fork.
            leg.take_tag(self._core.new_id())
        response = self._mapped(draft, success=True, extra=list(lines))
        leg.local_sdp = response.body
        waits = self._sender is not None and self._sender.is_waiting

        # Local functions that know each other would be a circle, which nothing frees soon in the compiled core.
        if self._sender is None:
            self._answer(response, draft, terms, waits, now)
        else:
            self._sender.after(lambda now: self._answer(response, draft, terms, waits, now), now)

    def _answer(self, response: Response, draft: Draft, terms: SessionTerms | None, waited: bool, now: float) -> None:
        """Send the 2xx, or have it sent once there is a way to the caller again."""
        if self._way.is_open(lambda now: self._deliver(response, draft, terms, True, now), now):
            self._deliver(response, draft, terms, waited, now)

    def _deliver(self, response: Response, draft: Draft, terms: SessionTerms | None, waited: bool, now: float) -> None:
        leg, tx = self._leg, self.tx
        self._record(response, draft, waited, now)
        leg.answer(tx, response, now, self._way)
        if leg.flow.closed:
            leg.move(tx.flow)
        leg.keeper.start(terms, now)

    def relay_refusal(self, draft: Draft, now: float) -> None:
        """Relay the target's final refusal, with a Reason header that says where it came from."""
        if not any(draft.headers[at].value.upper().startswith("SIP") for at in draft.positions("reason")):
            draft.step = "builtin:reason"
            draft.append(reason_header(draft.status, draft.reason))
        self._stop()
        self._send(self._mapped(draft, success=False), draft, now)

    def refuse(self, status: int, reason: str | None, now: float, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Refuse the INVITE ourselves."""
        self._stop()
        extra = reason_header(status, reason or "")
        lines = ((extra.name, extra.value), *headers)

        def send(now: float) -> None:
            self._leg.reply(self.tx, status, now, reason, lines)

        if self._way.is_open(send, now):
            send(now)

    def abandon(self, now: float) -> None:
        """End the transaction though the caller can't be told: its connection is gone. Should it come back with the
        same INVITE, that is a new call."""
        self._stop()
        if self.tx.last_status < 200:
            self.tx.forget(now)

    def follow(self, flow: Flow, now: float) -> None:
        """A request that belongs to the INVITE came by this flow."""
        self._way.follow(flow, now)

    def prack(self, tx: ServerTransaction, relay: Callable[[Owed], None], now: float) -> None:
        """The caller's PRACK: taken to leg B where that is owed one, else answered here (RFC 3262 section 3)."""
        self.follow(tx.flow, now)
        matched, owed = (False, None) if self._sender is None else self._sender.acknowledge(tx.request, now)
        if not matched:
            self._leg.reply(tx, 481, now)
        elif owed is not None:
            relay(owed)
        elif tx.request.body:
            self._leg.reply(tx, 488, now, "No offer is possible in this PRACK")
        else:
            self._leg.reply(tx, 200, now)

    def _stop(self) -> None:
        self._way.forget()
        if self._sender is not None:
            self._sender.stop()

    def _reliable(self) -> ReliableSender:
        if self._sender is None:
            self._sender = ReliableSender(self._core, self.tx, self._way, self._not_acknowledged)
        return self._sender

    def _not_acknowledged(self, now: float) -> None:
        self._call.hang_up(now, 504, "PRACK not received")

    def _mapped(self, draft: Draft, *, success: bool, extra: list[Header] | None = None) -> Response:
        tx = self.tx
        block = self._leg.response_block(tx.request, tx.flow, success=success)
        map_message(draft, block, [*self._core.reply_capabilities, *extra] if extra else self._core.reply_capabilities)
        response = draft.finish()
        assert isinstance(response, Response)
        return response

    def _send(self, response: Response, draft: Draft, now: float) -> None:
        def late(now: float) -> None:
            self._record(response, draft, True, now)
            self.tx.respond(response, now)

        if self._way.is_open(late, now):
            self._record(response, draft, False, now)
            self.tx.respond(response, now)

    def _record(self, response: Response, draft: Draft, waited: bool, now: float) -> None:
        call, source = self._call, draft.source if waited else None
        number, flow = call.attempt_number, self.tx.flow
        self._core.record_message(now, call.id, "a", "out", flow, response, number, draft.changes, source)
