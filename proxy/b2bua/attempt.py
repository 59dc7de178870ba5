"""One attempt to reach a target: a new call for it, with its own Call-ID, tag and branch, from the saved original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.b2bua.config import Target
from proxy.b2bua.core import Core
from proxy.b2bua.decisions import apply_rules, rule_context
from proxy.b2bua.heard import Challenged
from proxy.b2bua.leg import Leg
from proxy.b2bua.mapping import crossing_to, map_message, max_forwards_line, target_uri
from proxy.b2bua.outgoing import OutgoingInvite
from proxy.b2bua.reliable import Owed, rseq_of
from proxy.b2bua.retry import Outcome
from proxy.dialog.dialog import Dialog
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, Context, RuleSet
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Response, header
from proxy.sip.uri import parse_uri
from proxy.transaction.timers import Timer

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["Attempt"]


class Attempt(OutgoingInvite):
    """The UAC side of a call while it is being set up.

    Attributes:
        number: from 1 on.
        rules: what normalizes it.
        summary: what the records say of it.
    """

    __slots__ = ("_reliable", "_rseq", "_webhook_timer", "rules", "started", "summary")

    def __init__(self, core: Core, call: Call, number: int, target: Target, rules: RuleSet, now: float) -> None:
        super().__init__(core, call, "b", number, target)
        self.rules = rules
        self.started = now
        self._webhook_timer: Timer | None = None
        self._rseq: dict[str, int] = {}
        reliable = core.config.reliable
        self._reliable = reliable == "always" or (reliable == "auto" and call.invite.wants_reliable)
        if not call.original.body and not (call.invite.wants_reliable and core.config.relay_early_media):
            # An offer in a reliable provisional response wants its answer in the PRACK: only the caller has one.
            self._reliable = False
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

    def _on_sent(self, now: float) -> None:
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

    def _draft(self, flow: Flow, now: float) -> Draft:
        """The INVITE for the target: the original, through the rules, then with an identity of its own."""
        self.summary["flow"] = str(flow)
        original = self.call.original
        draft = Draft(original)
        self.apply_rules(draft, A_TO_B, now)
        self.exchange.cross(draft, original.body)
        target = self.target.uri
        draft.step = "builtin:target"
        draft.set_uri(target_uri(target, parse_uri(draft.uri).user))
        block = self._identity(draft, flow, max_forwards_line(original), crossing_to(draft, target))
        extensions = self._extensions("timer, 100rel" if self._reliable else "timer", draft.uri)
        map_message(draft, block, [*self.core.capabilities, *extensions])
        return draft

    # What the target answers

    def _on_answer(self, response: Response, flow: Flow, now: float) -> None:
        self.call.on_answer(self, response, now)
        self.end(now, response.status, response.reason, "answered")

    def _on_progress(self, response: Response, flow: Flow, now: float) -> None:
        self.progressed = True
        self._stop_patience()
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
        if response.status != 421:
            return super()._amend(response)
        if self._reliable or not any("100rel" in value.lower() for value in response.get_all("require")):
            return False
        self._reliable = True
        return True

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
        self._stop_patience()
        self.summary.update(status=status, reason=reason, cause=cause, duration_s=round(now - self.started, 6))
        if detail:
            self.summary["detail"] = detail
        for leg in self._early.values():
            leg.close()
        if cause != "answered":
            self._let_go()
        self.core.record("attempt-end", now, self.call.id, dict(self.summary), "b", self.number)
