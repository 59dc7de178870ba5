"""One attempt to reach a target: a new call for it, with its own Call-ID, tag and branch, from the saved original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.b2bua.config import Target
from proxy.b2bua.core import AVOID_S, Core
from proxy.b2bua.credentials import DigestClient
from proxy.b2bua.decisions import apply_rules, rule_context
from proxy.b2bua.exchange import Exchange
from proxy.b2bua.farewell import Farewell
from proxy.b2bua.given_up import GivenUp
from proxy.b2bua.heard import ByeUser, Challenged
from proxy.b2bua.leg import MAX_FORWARDS, Leg
from proxy.b2bua.mapping import contact_line, crossing_from, crossing_to, map_message, target_uri, via_line
from proxy.b2bua.reliable import Owed, rseq_of
from proxy.b2bua.retry import Outcome
from proxy.dialog.dialog import Dialog
from proxy.dialog.session_timer import refusal_min_se
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, Context, RuleReject, RuleSet
from proxy.sdp.errors import SdpError
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Header, Request, Response, header
from proxy.sip.uri import parse_uri
from proxy.transaction.client import ClientTransaction, make_cancel
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["Attempt", "max_forwards_line"]

LARGE_MESSAGE_BYTES = 1300
"""A request above this size goes by a congestion-controlled transport where it can (RFC 3261 section 18.1.1)."""

_AMENDABLE = frozenset((401, 407, 421, 422))
"""Refusals after which the same INVITE may go out again with what they ask for."""


def max_forwards_line(request: Request) -> Header:
    """The Max-Forwards of what we send on: one less than came in; 70 stands for a missing one (RFC 3261 8.1.1.6)."""
    value = request.get("max-forwards")
    return MAX_FORWARDS if value is None else header("Max-Forwards", str(max(int(value) - 1, 0)))


class Attempt:
    """The UAC side of a call while it is being set up.

    Attributes:
        number: from 1 on.
        target, rules: where it goes and what normalizes it.
        exchange: the offer/answer exchange of its INVITE.
        request: the INVITE as sent; None before that.
        flow: the flow that it went out on.
        leg: leg B, once this attempt was answered.
        wanted: False once nobody waits for its answer any more: the caller has gone, or another attempt took over.
        ended: whether it has its final outcome.
        session_expires_s: the session interval that its INVITE asks for; 0 for none.
    """

    __slots__ = (
        "_cancel_extra",
        "_cancel_sent",
        "_cseq",
        "_digest",
        "_early",
        "_guard",
        "_hop_timer",
        "_hops",
        "_min_se_s",
        "_reliable",
        "_rseq",
        "_search",
        "_timer",
        "_unwanted",
        "_webhook_timer",
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
        "rules",
        "session_expires_s",
        "started",
        "summary",
        "target",
        "tx",
        "wanted",
    )

    def __init__(self, core: Core, call: Call, number: int, target: Target, rules: RuleSet, now: float) -> None:
        self.core = core
        self.call = call
        self.number = number
        self.target = target
        self.rules = rules
        self.started = now
        self.exchange = Exchange()
        self.request: Request | None = None
        self.flow: Flow | None = None
        self.leg: Leg | None = None
        self.tx: ClientTransaction | None = None
        self.leg_call_id = core.new_id()
        self.from_tag = core.new_id()
        self.wanted = True
        self.ended = False
        self.progressed = False
        self._cancel_extra: tuple[Header, ...] | None = None
        self._cancel_sent = False
        self._guard: Timer | None = None
        self._hop_timer: Timer | None = None
        self._hops: list[Hop] = []
        self._timer: Timer | None = None
        self._webhook_timer: Timer | None = None
        self._search = 0
        self._cseq = 1
        self._rseq: dict[str, int] = {}
        self._early: dict[str, Leg] = {}
        self._unwanted: dict[str, Farewell] = {}
        reliable = core.config.reliable
        self._reliable = reliable == "always" or (reliable == "auto" and call.invite.wants_reliable)
        if not call.original.body and not (call.invite.wants_reliable and core.config.relay_early_media):
            # An offer in a reliable provisional response wants its answer in the PRACK: only the caller has one.
            self._reliable = False
        self.session_expires_s = core.config.session_expires_s
        self._min_se_s = 0
        self._digest = DigestClient(target.username, target.password, core.new_id)
        self.summary: dict[str, object] = {
            "attempt": number,
            "target": target.name,
            "uri": target.uri.text,
            "rules": rules.name,
            "rules_version": rules.version,
            "call_id": self.leg_call_id,
        }

    def start(self, now: float, limit_s: float) -> None:
        """Look for a flow to the target and send the INVITE; without any answer within `limit_s` it is given up."""
        self.core.record("attempt-start", now, self.call.id, dict(self.summary), "b", self.number)
        self._timer = self.core.timers.schedule(now + limit_s, self._give_up)
        self._search = self.core.find_flow(self.target.uri, self, self._hops)

    def context(self, direction: str) -> Context:
        """What rules may know when they work for this attempt."""
        flow = self.call.leg_a.flow if direction == A_TO_B else self.flow or self.call.leg_a.flow
        return rule_context(self.call, direction, self.number, self.target, flow)

    def apply_rules(self, draft: Draft, direction: str, now: float) -> None:
        """Apply the rules of this attempt to a message on its way. Raises RuleReject."""
        apply_rules(self.call, self.rules, draft, self.context(direction), now)

    def on_flow(self, flow: Flow, now: float) -> None:
        """The target can be reached: build the INVITE and send it."""
        self._search = 0
        if self.ended:
            return
        self.flow = flow
        self.summary["flow"] = str(flow)
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
        if self._goes_by_tcp(request, flow, now):
            return
        self.request = request
        self.core.record_message(now, self.call.id, "b", "out", flow, request, self.number, draft.changes)
        self.tx = self.core.layer.send_request(request, flow, self, now)
        if self._hops:
            limit_s = self.core.config.retry.hop_timeout_s
            self._hop_timer = self.core.timers.schedule(now + limit_s, self._on_silence)
        self._await_webhook(now)

    def _await_webhook(self, now: float) -> None:
        """Have the attempt given up when its webhook never comes, if webhooks pass by us and another attempt may."""
        policy = self.call.retry
        limit_s = policy.no_webhook_after_s
        if limit_s and self.core.webhooks_seen and policy.on_timeout and self.number < policy.max_attempts:
            self.webhook_seen()
            self._webhook_timer = self.core.timers.schedule(now + limit_s, self._on_no_webhook)

    def webhook_seen(self) -> None:
        """Its webhook came: it may take its time."""
        if self._webhook_timer is not None:
            self._webhook_timer.cancel()
            self._webhook_timer = None

    def _on_no_webhook(self, now: float) -> None:
        """The target took the INVITE, and nobody was told of it: no accept can come."""
        self._webhook_timer = None
        policy = self.call.retry
        if now - self.call.started + policy.backoff_max_s < policy.deadline_s and self.wanted:
            self._time_out(now, f"no webhook in {policy.no_webhook_after_s:g} s")

    def _goes_by_tcp(self, request: Request, flow: Flow, now: float) -> bool:
        """Whether a request that is too large for UDP is about to be tried by TCP (RFC 3261 section 18.1.1).

        A target that names its transport, or that has refused TCP before, gets it by UDP all the same.
        """
        if flow.transport != "udp":
            return False
        size = len(request.serialize())
        if size <= LARGE_MESSAGE_BYTES:
            return False
        by_tcp = self.target.uri.param("transport") is None and flow.remote not in self.core.udp_only
        fields: dict[str, object] = {"flow": flow, "size": size, "by": "tcp" if by_tcp else "udp"}
        self.core.record("large-message", now, self.call.id, fields, "b", self.number)
        if by_tcp:
            self._search = self.core.open_hop(Hop("tcp", *flow.remote), _ByTcp(self, flow))
        return by_tcp

    def on_no_flow(self, reason: str, now: float) -> None:
        """The target can't be reached."""
        self._search = 0
        if not self.ended:
            self._fail(Outcome("transport", 503, "Service Unavailable"), now, reason)

    def _next_hop(self, why: str, now: float, avoid_s: float | None = None) -> bool:
        """Send the INVITE to the next address of the target; False when this one was the last (RFC 3263 4.3).

        It is a new transaction with a branch of its own; otherwise it is the same request.
        """
        flow = self.flow
        if not self._hops or not self.wanted or self.ended or self.progressed or flow is None:
            return False
        self.core.avoid(flow, now, AVOID_S if avoid_s is None else avoid_s)
        fields: dict[str, object] = {"target": self.target.name, "flow": flow, "why": why, "left": len(self._hops)}
        self.core.record("hop-failed", now, self.call.id, fields, "b", self.number)
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
            tx.user = GivenUp(self.core, self.call.id, self.number)

    def _stop_hop_timer(self) -> None:
        if self._hop_timer is not None:
            self._hop_timer.cancel()
            self._hop_timer = None

    def _draft(self, flow: Flow, now: float) -> Draft:
        """The INVITE for the target: the original, through the rules, then with an identity of its own."""
        original = self.call.original
        draft = Draft(original)
        self.apply_rules(draft, A_TO_B, now)
        self.exchange.cross(draft, original.body)
        core, target = self.core, self.target.uri
        draft.step = "builtin:target"
        draft.set_uri(target_uri(target, parse_uri(draft.uri).user))
        block = [
            via_line(flow, core.new_branch()),
            max_forwards_line(original),
            header("From", crossing_from(draft, core.config.public_address, self.from_tag)),
            header("To", crossing_to(draft, target)),
            header("Call-ID", self.leg_call_id),
            header("CSeq", f"{self._cseq} INVITE"),
            contact_line(flow),
        ]
        map_message(draft, block, [*core.capabilities, *self._extensions(draft.uri)])
        return draft

    def _extensions(self, uri: str) -> list[Header]:
        """Supported, the session timer that we ask for, and the answer to a challenge."""
        lines = [header("Supported", "timer, 100rel" if self._reliable else "timer")]
        if self.session_expires_s:
            lines.append(header("Session-Expires", f"{self.session_expires_s};refresher=uac"))
        if self._min_se_s:
            lines.append(header("Min-SE", str(self._min_se_s)))
        lines.extend(self._digest.lines("INVITE", uri))
        return lines

    # What the target answers

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """A response to the INVITE."""
        status = response.status
        flow = tx.flow
        self.core.record_message(now, self.call.id, "b", "in", flow, response, self.number)
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
        leg = self.leg
        request = self.request
        assert request is not None
        tag = response.to.tag or ""
        if tag in self._unwanted:
            self._unwanted[tag].say(now)
        elif leg is not None and leg.dialog.remote_tag == tag:
            leg.repeat_ack(request.cseq.number, now)
        elif leg is not None or not self.wanted or self.ended:
            why = "Fork not used" if leg is not None else "Call no longer wanted"
            self.end(now, response.status, response.reason, "ended: answered too late")
            self.refuse_answer(response, flow, why, now)
        else:
            self.call.on_answer(self, response, now)
            self.end(now, response.status, response.reason, "answered")

    def refuse_answer(self, response: Response, flow: Flow, why: str, now: float) -> None:
        """Acknowledge a 2xx that is of no use and end its session; its repetitions get the same ACK again."""
        assert self.request is not None
        tag = response.to.tag or ""
        leg = self._early.get(tag)
        if leg is None and self.leg is not None and self.leg.dialog.remote_tag == tag:
            leg = self.leg
        seq = self.request.cseq.number
        if leg is not None:
            seq = leg.dialog.local_seq
            leg.close()
        farewell = self._unwanted[tag] = Farewell(
            self.core, self.call.id, self.number, self.request, response, flow, why, seq, digest=self._digest
        )
        farewell.say(now)

    def _on_progress(self, response: Response, flow: Flow, now: float) -> None:
        self.progressed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rseq = rseq_of(response)
        if rseq is None:
            self.call.on_progress(self, response, None, now)
            return
        try:
            leg = self._early_leg(response, flow)
        except SipError as error:
            fields: dict[str, object] = {"why": error.reason, "status": response.status}
            self.core.record("not-relayed", now, self.call.id, fields, "b", self.number)
            return
        last = self._rseq.get(leg.dialog.remote_tag)
        if last is not None and rseq != last + 1:
            return
        self._rseq[leg.dialog.remote_tag] = rseq
        owed = Owed(leg, f"{rseq} {response.cseq.number} INVITE")
        invite = self.call.invite
        if invite.wants_reliable and (not response.body or invite.may_hear((self.number, leg.dialog.remote_tag))):
            leg.peer, self.call.leg_a.peer = self.call.leg_a, leg
            if self.call.on_progress(self, response, owed, now):
                return
        else:
            self.call.on_progress(self, response, None, now)
        self._prack(owed, flow, now)

    def _prack(self, owed: Owed, flow: Flow, now: float) -> None:
        """Acknowledge a reliable provisional response ourselves (RFC 3262 section 4)."""
        leg = owed.leg
        user = Challenged(
            self.core, self.call.id, "b", self.number, self._digest, lambda now: self._prack(owed, flow, now)
        )
        extra = (header("RAck", owed.rack), *self.core.capabilities, *leg.credentials("PRACK"))
        prack = leg.dialog.request("PRACK", leg.dialog.next_seq(), leg.top(), extra)
        self.core.record_message(now, self.call.id, "b", "out", flow, prack, self.number)
        self.core.layer.send_request(prack, flow, user, now)

    def _early_leg(self, response: Response, flow: Flow) -> Leg:
        """The early dialog that a reliable provisional response belongs to (RFC 3261 section 12.1). Raises SipError."""
        tag = response.to.tag or ""
        leg = self._early.get(tag)
        if leg is None:
            assert self.request is not None
            dialog = Dialog.as_uac(self.request, response)
            leg = self._early[tag] = Leg(self.core, self.call, "b", dialog, flow)
            leg.local_sdp = self.request.body
            leg.digest = self._digest
        leg.learn(response)
        return leg

    def answered_leg(self, response: Response) -> Leg:
        """Leg B, from the 2xx; an early dialog with its tag becomes the confirmed one. Raises SipError."""
        assert self.request is not None
        assert self.flow is not None
        dialog = Dialog.as_uac(self.request, response)
        leg = self._early.pop(response.to.tag or "", None)
        if leg is None:
            leg = Leg(self.core, self.call, "b", dialog, self.flow)
            leg.local_sdp = self.request.body
        else:
            leg.dialog.confirm(response)
            self.core.legs[(leg.dialog.call_id, leg.dialog.local_tag)] = leg
        leg.learn(response)
        leg.confirmed = True
        leg.digest = self._digest
        leg.keeper.min_se_s = self._min_se_s
        self.leg = leg
        return leg

    def _amend(self, response: Response) -> bool:
        """Take from a refusal what the same INVITE has to say in addition; False when there is nothing to be done."""
        if response.status == 422:
            wanted = refusal_min_se(response)
            if not self.session_expires_s or wanted <= self.session_expires_s:
                return False
            self.session_expires_s = self._min_se_s = wanted
            return True
        if response.status in (401, 407):
            return self._digest.take(response)
        if self._reliable or not any("100rel" in value.lower() for value in response.get_all("require")):
            return False
        self._reliable = True
        return True

    def _resend(self, now: float) -> None:
        """The same INVITE again as a new transaction, amended, with the next CSeq number (RFC 3261 section 8.1.3.5)."""
        self._cseq += 1
        flow = self.flow
        assert flow is not None
        self.tx = None
        self.exchange = Exchange()
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

    def _give_up(self, now: float) -> None:
        """The target has taken too long."""
        self._timer = None
        self._time_out(now, f"no answer in {now - self.started:.1f} s")

    def _time_out(self, now: float, detail: str) -> None:
        """End this attempt there, and let the call decide what follows."""
        if self.ended or self.progressed:
            return
        self.cancel(now, (header("Reason", 'SIP;cause=408;text="No answer in time"'),))
        outcome = Outcome("timeout", 408, "Request Timeout")
        self.end(now, outcome.status, outcome.reason, outcome.kind, detail)
        self.call.on_attempt_failed(self, outcome, None, now)

    def cancel(self, now: float, extra: tuple[Header, ...]) -> None:
        """Nobody wants this attempt any more: CANCEL it as soon as RFC 3261 section 9.1 allows, that is after a
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

    def _send_cancel(self, now: float) -> None:
        extra, self._cancel_extra = self._cancel_extra or (), None
        tx, request, flow = self.tx, self.request, self.flow
        if self._cancel_sent or tx is None or request is None or flow is None:
            return
        self._cancel_sent = True
        cancel = make_cancel(request, extra)
        self.core.record_message(now, self.call.id, "b", "out", flow, cancel, self.number)
        self.core.layer.send_request(cancel, flow, ByeUser(self.core, self.call.id, "b", self.number), now)
        self._guard = self.core.timers.schedule(now + 64 * self.core.config.timers.t1_s, self._abandon)

    def _abandon(self, now: float) -> None:
        """A cancelled INVITE never got its final response (RFC 3261 section 9.1)."""
        self._guard = None
        if self.tx is not None:
            self.tx.terminate(now)

    def _stop_timers(self) -> None:
        self._stop_hop_timer()
        for timer in (self._timer, self._guard):
            if timer is not None:
                timer.cancel()
        self._timer = self._guard = None

    def _fail(self, outcome: Outcome, now: float, detail: str, response: Response | None = None) -> None:
        self.end(now, outcome.status, outcome.reason, outcome.kind, detail)
        if self.wanted:
            self.call.on_attempt_failed(self, outcome, response, now)

    def end(self, now: float, status: int, reason: str, cause: str, detail: str = "") -> None:
        """Record the outcome, once."""
        if self.ended:
            return
        self.ended = True
        self._stop_hop_timer()
        self.webhook_seen()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.summary.update(status=status, reason=reason, cause=cause, duration_s=round(now - self.started, 6))
        if detail:
            self.summary["detail"] = detail
        for leg in self._early.values():
            leg.close()
        self.core.record("attempt-end", now, self.call.id, dict(self.summary), "b", self.number)


class _ByTcp:
    """Waits for a TCP connection for a request that is too large for UDP; without one it goes by UDP after all."""

    __slots__ = ("_attempt", "_udp_flow")

    def __init__(self, attempt: Attempt, udp_flow: Flow) -> None:
        self._attempt = attempt
        self._udp_flow = udp_flow

    def on_flow(self, flow: Flow, now: float) -> None:
        """The target takes TCP."""
        self._attempt.on_flow(flow, now)

    def on_no_flow(self, reason: str, now: float) -> None:
        """It does not; remember that."""
        self._attempt.core.udp_only.add(self._udp_flow.remote)
        self._attempt.on_flow(self._udp_flow, now)


def _retry_after(response: Response) -> float | None:
    """Retry-After in seconds (RFC 3261 section 20.33), or None."""
    value = response.get("retry-after")
    if value is None:
        return None
    number = value.partition(";")[0].partition("(")[0].strip()
    return float(number) if number.isdigit() and len(number) < 10 else None
