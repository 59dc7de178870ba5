"""An INVITE of ours to somebody whom a call is to reach: the way there, the next address, the amendment, the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.b2bua.checkpoint import invite_out_facts
from proxy.b2bua.config import Target
from proxy.b2bua.core import AVOID_S, Core
from proxy.b2bua.credentials import DigestClient
from proxy.b2bua.effects import Checkpoint
from proxy.b2bua.exchange import Exchange
from proxy.b2bua.farewell import Farewell
from proxy.b2bua.given_up import GivenUp
from proxy.b2bua.heard import ByeUser
from proxy.b2bua.leg import Leg
from proxy.b2bua.mapping import contact_line, crossing_from, via_line
from proxy.b2bua.retry import Outcome
from proxy.dialog.session_timer import refusal_min_se
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import RuleReject
from proxy.sdp.errors import SdpError
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Header, Request, Response, header
from proxy.transaction.client import ClientTransaction, make_cancel
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["OutgoingInvite"]

_LARGE_MESSAGE_BYTES: Final = 1300
"""A request above this size goes by a congestion-controlled transport where it can (RFC 3261 section 18.1.1)."""

_AMENDABLE: Final = frozenset((401, 407, 421, 422))
"""Refusals after which the same INVITE may go out again with what they ask for."""


class OutgoingInvite:
    """The UAC side of an INVITE that begins a dialog. What it says, and what its outcome means, is up to subclasses.

    Attributes:
        side: the name of the leg that it is to become. number: that of the call's attempt.
        target: where it goes, with the credentials for it.
        exchange: its offer/answer exchange.
        request: the INVITE as sent; None before that.
        source: the message that it is made from, where that is no INVITE of the other leg.
        flow: the flow that it went out on.
        tx: its client transaction.
        leg: the leg, once it was answered.
        leg_call_id, from_tag: ours of the dialog.
        wanted: False once nobody waits for its answer any more: the caller has gone, or another attempt took over.
        ended: whether it has its final outcome.
        progressed: whether it had a provisional response other than 100.
        session_expires_s: the session interval that it asks for; 0 for none.
    """

    __slots__ = (
        "_cancel_extra",
        "_cancel_sent",
        "_cseq",
        "_digest",
        "_early",
        "_farewells",
        "_guard",
        "_hop_timer",
        "_hops",
        "_min_se_s",
        "_search",
        "_timer",
        "call",
        "core",
        "ended",
        "exchange",
        "flow",
        "from_tag",
        "leg",
        "leg_call_id",
        "number",
        "progressed",
        "request",
        "session_expires_s",
        "side",
        "source",
        "target",
        "tx",
        "wanted",
    )

    def __init__(self, core: Core, call: Call, side: str, number: int, target: Target) -> None:
        self.core = core
        self.call = call
        self.side = side
        self.number = number
        self.target = target
        self.exchange = Exchange()
        self.request: Request | None = None
        self.source: Request | None = None
        self.flow: Flow | None = None
        self.tx: ClientTransaction | None = None
        self.leg: Leg | None = None
        self.leg_call_id = core.new_id()
        self.from_tag = core.new_id()
        self.wanted = True
        self.ended = False
        self.progressed = False
        self.session_expires_s = core.config.session_expires_s
        self._min_se_s = 0
        self._cseq = 1
        self._digest = DigestClient(target.username, target.password, core.new_id)
        self._search = 0
        self._hops: list[Hop] = []
        self._hop_timer: Timer | None = None
        self._timer: Timer | None = None
        self._cancel_extra: tuple[Header, ...] | None = None
        self._cancel_sent = False
        self._guard: Timer | None = None
        self._early: dict[str, Leg] = {}
        self._farewells: dict[str, Farewell] = {}

    # What subclasses say

    def _draft(self, flow: Flow, now: float) -> Draft:
        """The INVITE for a flow. Raises RuleReject, SdpError or SipError where there can't be one."""
        raise NotImplementedError

    def _on_sent(self, now: float) -> None:
        """It went out."""

    def _on_progress(self, response: Response, flow: Flow, now: float) -> None:
        """A provisional response other than 100 came."""
        raise NotImplementedError

    def _on_answer(self, response: Response, flow: Flow, now: float) -> None:
        """The first 2xx came, and it is wanted."""
        raise NotImplementedError

    def _fail(self, outcome: Outcome, now: float, detail: str, response: Response | None = None) -> None:
        """It has failed for good; `response` is the refusal, where there is one."""
        raise NotImplementedError

    # On its way

    def on_flow(self, flow: Flow, now: float) -> None:
        """The target can be reached: build the INVITE and send it."""
        self._search = 0
        if self.ended:
            return
        self.flow = flow
        self.exchange = Exchange()
        try:
            draft = self._draft(flow, now)
        except RuleReject as reject:
            self._fail(Outcome("own", reject.status, reject.reason, headers=reject.headers), now, reject.rule)
            return
        except SdpError as error:
            self._fail(Outcome("own", 488, error.reason), now, "builtin:sdp")
            return
        except SipError as error:
            self._fail(Outcome("own", error.status, error.reason), now, "builtin:identity")
            return
        request = draft.finish()
        assert isinstance(request, Request)
        data = request.serialize()
        if self._goes_by_tcp(len(data), flow, now):
            return
        self.request = request
        core = self.core
        core.record_message(now, self.call.id, self.side, "out", flow, request, self.number, draft.changes, self.source)
        self.tx = core.layer.send_request(request, flow, self, now, data)
        if core.config.checkpoints:
            core.effects.append(Checkpoint(self.call.id, self.side, invite_out_facts(request, flow, self.target.name)))
        if self._hops:
            self._hop_timer = core.timers.schedule(now + core.config.retry.hop_timeout_s, self._on_silence)
        self._on_sent(now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """The target can't be reached."""
        self._search = 0
        if not self.ended:
            self._fail(Outcome("transport", 503, "Service Unavailable"), now, reason)

    def _identity(self, draft: Draft, flow: Flow, max_forwards: Header, to: str) -> list[Header]:
        """What makes the new dialog; `to` is the To value."""
        core = self.core
        return [
            via_line(flow, core.new_branch()),
            max_forwards,
            header("From", crossing_from(draft, core.config.public_address, self.from_tag)),
            header("To", to),
            header("Call-ID", self.leg_call_id),
            header("CSeq", f"{self._cseq} INVITE"),
            contact_line(flow),
        ]

    def _extensions(self, supported: str, uri: str) -> list[Header]:
        """Supported, the session timer that we ask for, and the answer to a challenge."""
        lines = [header("Supported", supported)]
        if self.session_expires_s:
            lines.append(header("Session-Expires", f"{self.session_expires_s};refresher=uac"))
        if self._min_se_s:
            lines.append(header("Min-SE", str(self._min_se_s)))
        lines.extend(self._digest.lines("INVITE", uri))
        return lines

    def _goes_by_tcp(self, size: int, flow: Flow, now: float) -> bool:
        """Whether a request of so many bytes is too large for UDP and about to be tried by TCP (RFC 3261 section
        18.1.1).

        A target that names its transport, or that has refused TCP before, gets it by UDP all the same.
        """
        if flow.transport != "udp" or size <= _LARGE_MESSAGE_BYTES:
            return False
        by_tcp = self.target.uri.param("transport") is None and flow.remote not in self.core.udp_only
        fields: dict[str, object] = {"flow": flow, "size": size, "by": "tcp" if by_tcp else "udp"}
        self.core.record("large-message", now, self.call.id, fields, self.side, self.number)
        if by_tcp:
            self._search = self.core.open_hop(Hop("tcp", *flow.remote), _ByTcp(self, flow))
        return by_tcp

    def _next_hop(self, why: str, now: float, avoid_s: float | None = None) -> bool:
        """Send the INVITE to the next address of the target; False when this one was the last (RFC 3263 4.3).

        It is a new transaction with a branch of its own; otherwise it is the same request.
        """
        flow = self.flow
        if not self._hops or not self.wanted or self.ended or self.progressed or flow is None:
            return False
        self.core.avoid(flow, now, AVOID_S if avoid_s is None else avoid_s)
        fields: dict[str, object] = {"target": self.target.name, "flow": flow, "why": why, "left": len(self._hops)}
        self.core.record("hop-failed", now, self.call.id, fields, self.side, self.number)
        self._stop_hop_timer()
        self.tx = None
        self.exchange = Exchange()
        self._search = self.core.next_flow(self, self._hops, now)
        return True

    def _on_silence(self, now: float) -> None:
        """Not even a 100 from this address."""
        self._hop_timer = None
        tx = self.tx
        if tx is not None and self._next_hop("no answer", now):
            tx.user = GivenUp(self.core, self.call.id, self.side, self.number)

    # What the target answers

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """A response to the INVITE."""
        status = response.status
        flow = tx.flow
        self.core.record_message(now, self.call.id, self.side, "in", flow, response, self.number)
        self._stop_hop_timer()
        if status >= 300:
            if status == 503 and self._next_hop("503", now, _retry_after(response)):
                return
            if status in _AMENDABLE and self.wanted and not self.ended and self._amend(response):
                self._resend(now)
                return
            self._stop_timers()
            if not self.ended:
                self._fail(Outcome("status", status, response.reason, _retry_after(response)), now, "", response)
        elif status >= 200:
            self._on_2xx(response, flow, now)
        else:
            if self._cancel_extra is not None:
                self._send_cancel(now)
            if self.wanted and status > 100:
                self._on_progress(response, flow, now)

    def _on_2xx(self, response: Response, flow: Flow, now: float) -> None:
        self._stop_timers()
        leg, request = self.leg, self.request
        assert request is not None
        tag = response.to.tag or ""
        if tag in self._farewells:
            self._farewells[tag].say(now)
        elif leg is not None and leg.dialog.remote_tag == tag:
            leg.repeat_ack(request.cseq.number, now)
        elif leg is not None or not self.wanted or self.ended:
            self.refuse_answer(response, flow, "Call no longer wanted" if leg is None else "Fork not used", now)
        else:
            self._on_answer(response, flow, now)

    def refuse_answer(self, response: Response, flow: Flow, why: str, now: float) -> None:
        """Acknowledge a 2xx that is of no use and end its session; its repetitions get the same ACK again."""
        request = self.request
        assert request is not None
        tag = response.to.tag or ""
        leg = self._early.get(tag)
        if leg is None and self.leg is not None and self.leg.dialog.remote_tag == tag:
            leg = self.leg
        seq = request.cseq.number
        if leg is not None:
            seq = leg.dialog.local_seq
            leg.close()
        farewell = self._farewells[tag] = Farewell(
            self.core,
            self.call.id,
            self.number,
            request,
            response,
            flow,
            why,
            seq,
            side=self.side,
            digest=self._digest,
        )
        farewell.say(now)

    def _amend(self, response: Response) -> bool:
        """Take from a refusal what the same INVITE has to say in addition; False when there is nothing to be done."""
        if response.status == 422:
            wanted = refusal_min_se(response)
            if not 0 < self.session_expires_s < wanted:
                return False
            self.session_expires_s = self._min_se_s = wanted
            return True
        return self._digest.take(response)

    def _resend(self, now: float) -> None:
        """The same INVITE again as a new transaction, amended, with the next CSeq number (RFC 3261 section 8.1.3.5)."""
        self._cseq += 1
        flow = self.flow
        assert flow is not None
        self.tx = None
        self.on_flow(flow, now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """The INVITE was never answered at all (timer B)."""
        if not self.ended and not self._next_hop("timeout", now):
            self._fail(Outcome("timeout", 408, "Request Timeout"), now, "no answer to the INVITE")

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The connection broke while the INVITE was pending."""
        if not self.ended and not self._next_hop("connection lost", now):
            self._fail(Outcome("transport", 503, "Service Unavailable"), now, "connection lost")

    # How it ends

    def cancel(self, now: float, extra: tuple[Header, ...]) -> None:
        """Nobody wants this INVITE any more: CANCEL it as soon as RFC 3261 section 9.1 allows, that is after a
        provisional response. Should it still be answered, that session is acknowledged and ended at once."""
        self.wanted = False
        if self._search:
            self.core.forget_search(self._search)
            self._search = 0
        if self.tx is None or self.ended:
            return
        self._cancel_extra = extra
        if self.tx.provisional_received:
            self._send_cancel(now)

    def _let_go(self) -> None:
        """It has ended without a dialog: nothing has to be kept of it outside of this process any more."""
        if self.request is not None and self.core.config.checkpoints:
            self.core.effects.append(Checkpoint(self.call.id, self.side, None))

    def _send_cancel(self, now: float) -> None:
        extra, self._cancel_extra = self._cancel_extra or (), None
        tx, request, flow = self.tx, self.request, self.flow
        if self._cancel_sent or tx is None or request is None or flow is None:
            return
        self._cancel_sent = True
        core, call = self.core, self.call
        cancel = make_cancel(request, extra)
        core.record_message(now, call.id, self.side, "out", flow, cancel, self.number)
        core.layer.send_request(cancel, flow, ByeUser(core, call.id, self.side, self.number), now)
        self._guard = core.timers.schedule(now + 64 * core.config.timers.t1_s, self._abandon)

    def _abandon(self, now: float) -> None:
        """A cancelled INVITE never got its final response (RFC 3261 section 9.1)."""
        self._guard = None
        if self.tx is not None:
            self.tx.terminate(now)

    def _stop_hop_timer(self) -> None:
        if self._hop_timer is not None:
            self._hop_timer.cancel()
            self._hop_timer = None

    def _stop_patience(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_timers(self) -> None:
        self._stop_hop_timer()
        self._stop_patience()
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None


class _ByTcp:
    """Waits for a TCP connection for a request that is too large for UDP; without one it goes by UDP after all."""

    __slots__ = ("_invite", "_udp_flow")

    def __init__(self, invite: OutgoingInvite, udp_flow: Flow) -> None:
        self._invite = invite
        self._udp_flow = udp_flow

    def on_flow(self, flow: Flow, now: float) -> None:
        """The target takes TCP."""
        self._invite.on_flow(flow, now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """It does not; remember that."""
        self._invite.core.udp_only.add(self._udp_flow.remote)
        self._invite.on_flow(self._udp_flow, now)


def _retry_after(response: Response) -> float | None:
    """Retry-After in seconds (RFC 3261 section 20.33), or None."""
    value = response.get("retry-after")
    if value is None:
        return None
    number = value.partition(";")[0].partition("(")[0].strip()
    return float(number) if number.isdigit() and len(number) < 10 else None
