"""One call: leg A, the attempts to reach a target, leg B, and what passes between the legs."""

from __future__ import annotations

from proxy.b2bua.attempt import Attempt
from proxy.b2bua.caller_invite import CallerInvite, reason_header
from proxy.b2bua.checkpoint import invite_in_facts
from proxy.b2bua.config import AttemptPlan, RetryPolicy, Target
from proxy.b2bua.core import Core
from proxy.b2bua.decisions import decide_call
from proxy.b2bua.effects import Checkpoint
from proxy.b2bua.exchange import Exchange
from proxy.b2bua.leg import Leg
from proxy.b2bua.mapping import add_early_answer, hide_own_refusal, withhold_early_media
from proxy.b2bua.prober import Prober
from proxy.b2bua.relay import Relay
from proxy.b2bua.reliable import Owed
from proxy.b2bua.retry import Outcome, Retry, decide, plan_for
from proxy.b2bua.takeover import Takeover
from proxy.b2bua.transfer import Transfer
from proxy.dialog.dialog import Dialog
from proxy.dialog.session_timer import answered_terms
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import B_TO_A, RuleReject
from proxy.sdp.errors import SdpError
from proxy.sip.errors import SipError
from proxy.sip.message import Header, Request, Response, header
from proxy.sip.respond import REASON_PHRASES
from proxy.transaction.server import ServerTransaction
from proxy.transaction.tables import State
from proxy.transaction.timers import Timer

__all__ = ["Call"]


class Call:
    """A call from the caller's INVITE to its end.

    Attributes:
        trunk: the name of the trunk that it came in by, or of the user who authenticated.
        id: our id of the call; X-Trunkline-Call-ID carries it to the target.
        original: the caller's INVITE, untouched; every attempt starts from it.
        invite: the UAS side of that INVITE.
        leg_a: the caller's leg. leg_b: the target's, once an attempt was answered.
        attempt: the attempt that is under way, or that was answered.
        others: legs that were replaced, or never came to be part of the call.
        transfer: the REFER that is being carried out, or the INVITE with Replaces; or None.
        referred: for the leg that a REFER was relayed to and its CSeq number there, the one that it came with.
        retry: the retry policy. rule_sets: all rule sets by name, as they were when the call began.
        state: "trying", "answered" or "ended".
        tags: what rules have tagged the call with.
    """

    __deletable__ = ("invite", "leg_a")
    __slots__ = (
        "_expires_s",
        "_facts",
        "_limit_timer",
        "_outcomes",
        "_prober",
        "_retry_timer",
        "_ring_timer",
        "_rules",
        "_sides",
        "_targets",
        "answered_at",
        "attempt",
        "core",
        "id",
        "invite",
        "leg_a",
        "leg_b",
        "original",
        "others",
        "referred",
        "retry",
        "rule_sets",
        "started",
        "state",
        "tags",
        "transfer",
        "trunk",
    )

    def __init__(
        self, core: Core, tx: ServerTransaction, targets: list[Target], rules: str, trunk: str, now: float
    ) -> None:
        """Begin a call with its INVITE; `targets` in the order in which to try them.

        Raises SipError when the INVITE can't begin a dialog.
        """
        self.core = core
        self.id = core.new_id()
        self.original = tx.request
        self.trunk = trunk
        self._targets = targets
        self._rules = rules
        self.rule_sets = core.config.rules
        self.retry = core.config.retry
        self.tags: list[str] = []
        self.started = now
        self.answered_at = 0.0
        self.state = "trying"
        self.attempt: Attempt | None = None
        self.leg_b: Leg | None = None
        self.referred: dict[tuple[str, int], int] = {}
        self.transfer: Transfer | Takeover | None = None
        self.others: list[Leg] = []
        self._sides = 0
        dialog = Dialog.as_uas(tx.request, core.new_id())
        self.leg_a = Leg(core, self, "a", dialog, tx.flow)
        self.leg_a.invite_in = tx
        self.leg_a.learn(tx.request)
        self.invite = CallerInvite(core, self, self.leg_a, tx)
        self._retry_timer: Timer | None = None
        self._expires_s = _expires_s(tx.request)
        limit_s = min(core.config.ring_timeout_s, self._expires_s or core.config.ring_timeout_s)
        self._ring_timer: Timer | None = core.timers.schedule(now + limit_s, self._on_ring_timeout)
        self._limit_timer: Timer | None = None
        self._prober: Prober | None = None
        self._outcomes: list[dict[str, object]] = []
        self._facts = _facts(tx, trunk)
        tx.user = self
        core.calls[self.id] = self

    @property
    def attempt_number(self) -> int:
        """The number of the attempt that is under way; 0 before the first."""
        return 0 if self.attempt is None else self.attempt.number

    # Set-up

    def start(self, now: float) -> None:
        """Answer 100 at once and begin the first attempt."""
        self.core.record("call-start", now, self.id, self._facts, "a")
        self.core.record_message(now, self.id, "a", "in", self.leg_a.flow, self.original)
        refusal = self._decide()
        if refusal is not None and refusal.silent:
            self.invite.tx.forget(now)
            self.end(now, refusal.status, "Dropped", "refused", refusal.rule)
            return
        self.invite.trying(now)
        if self.core.config.checkpoints:
            self.leg_a.kept = True
            self.core.effects.append(Checkpoint(self.id, "a", invite_in_facts(self, self.leg_a)))
        self.leg_a.settle_flow()
        if refusal is None:
            self._begin_attempt(plan_for(self.retry, 1), now)
        else:
            self._refuse(refusal.status, refusal.reason, now, refusal.rule, refusal.headers)

    def _decide(self) -> RuleReject | None:
        """Have the rules route the call and plan its attempts, if any of them does; what they refuse it with."""
        rules = self.rule_sets[plan_for(self.retry, 1).rules or self._rules]
        if rules.decides:
            try:
                self._targets, self.retry = decide_call(self, rules, self._targets, self.retry)
            except RuleReject as reject:
                return reject
        return None

    def _begin_attempt(self, plan: AttemptPlan, now: float) -> None:
        config = self.core.config
        policy = self.retry
        number = self.attempt_number + 1
        # One that the settings have no more is replaced by the call's own first target.
        target = (config.targets.get(plan.target) if plan.target else None) or self._targets[0]
        rules = self.rule_sets[plan.rules or self._rules]
        self.attempt = Attempt(self.core, self, number, target, rules, now)
        self._outcomes.append(self.attempt.summary)
        self.attempt.start(now, _limit_s(policy, number, now - self.started))

    def on_progress(self, attempt: Attempt, response: Response, owed: Owed | None, now: float) -> bool:
        """The target rings or sends early media: tell the caller. False when that could not be.

        `owed`: leg B waits for a PRACK that the caller's is to become.
        """
        if self.state != "trying" or attempt is not self.attempt:
            return False
        draft = Draft(response)
        exchange = attempt.exchange if owed is not None or attempt.exchange.offered else Exchange()
        branch = (attempt.number, response.to.tag or "")
        try:
            attempt.apply_rules(draft, B_TO_A, now)
            if draft.has_sdp() and not self.invite.may_hear(branch):
                withhold_early_media(draft)
            exchange.cross(draft, response.body)
        except (RuleReject, SdpError, SipError) as error:
            self.core.record("not-relayed", now, self.id, {"why": str(error), "status": response.status}, "b")
            return False
        self.invite.progress(draft, owed, branch, now)
        return True

    def on_answer(self, attempt: Attempt, response: Response, now: float) -> None:
        """The target answered: acknowledge it, and answer the caller in the terms of its own offer."""
        assert attempt.request is not None
        assert attempt.flow is not None
        exchange, offered = attempt.exchange, attempt.exchange.offered
        branch = (attempt.number, response.to.tag or "")
        draft, response_body = Draft(response), response.body
        try:
            leg_b = attempt.answered_leg(response)
            session = leg_b.remote_sdp if offered and not self.invite.has_heard(branch) else b""
            if session and not response.body:
                add_early_answer(draft, session)
                response_body = session
            attempt.apply_rules(draft, B_TO_A, now)
            exchange.cross(draft, response_body)
        except (RuleReject, SdpError, SipError) as error:
            reason = getattr(error, "reason", str(error))
            attempt.refuse_answer(response, attempt.flow, "Unusable answer", now)
            attempt.end(now, response.status, response.reason, "unusable answer", reason)
            self._refuse(502, f"Unusable answer: {reason}", now)
            return
        self.leg_b = leg_b
        self.core.health.worked(attempt.target.name)
        leg_b.peer, self.leg_a.peer = self.leg_a, leg_b
        self.answered_at = now
        self.leg_a.checkpoint()
        leg_b.checkpoint()
        seq = attempt.request.cseq.number
        leg_b.settle_flow()
        if exchange.offered and not exchange.answered and not offered:
            leg_b.owes_ack = seq
            self.leg_a.late_answer = (seq, exchange)
        else:
            leg_b.send_ack(seq, now)
        self.state = "answered"
        self._stop_timers()
        if self.core.config.max_call_s:
            self._limit_timer = self.core.timers.schedule(now + self.core.config.max_call_s, self._on_limit)
        if self.core.config.probe_s:
            self._prober = Prober(self, now)
        leg_b.keeper.start(answered_terms(response, attempt.session_expires_s), now)
        self.invite.accept(draft, branch, now)
        self.core.record("call-answered", now, self.id, {"setup_s": round(now - self.started, 6)}, "a", attempt.number)
        # All of it would lie there for as long as people talk.
        exchange.settle()
        self.original.condense()
        attempt.request.condense()

    def on_attempt_failed(self, attempt: Attempt, outcome: Outcome, response: Response | None, now: float) -> None:
        """An attempt failed: try again, or tell the caller."""
        if self.state != "trying" or attempt is not self.attempt:
            return
        elapsed = now - self.started
        if outcome.kind in ("transport", "timeout") or (outcome.kind == "status" and outcome.status == 503):
            # This target is in trouble itself: the others go first, for this call and for a while for new ones.
            self.core.health.failed(attempt.target.name, now)
            if len(self._targets) > 1 and self._targets[0] is attempt.target:
                self._targets.append(self._targets.pop(0))
        decision = decide(self.retry, outcome, attempt.number, elapsed, self.core.random)
        if isinstance(decision, Retry):
            attempt.summary["next"] = f"retry in {decision.delay_s:.3f} s"
            plan = decision.plan
            self.core.record(
                "retry",
                now,
                self.id,
                {"delay_s": round(decision.delay_s, 6), "rules": plan.rules, "target": plan.target},
                "b",
                attempt.number,
            )

            def begin(now: float) -> None:
                self._retry_timer = None
                self._begin_attempt(plan, now)

            self._retry_timer = self.core.timers.schedule(now + decision.delay_s, begin)
            return
        attempt.summary["next"] = decision
        if response is None:
            self._refuse(outcome.status, outcome.reason, now, decision, outcome.headers)
        else:
            self._refuse_as(attempt, response, now, decision)

    def _refuse_as(self, attempt: Attempt, response: Response, now: float, why: str) -> None:
        """Give the target's refusal to the caller, with its own status and reason phrase, and a Reason header."""
        draft = Draft(response)
        try:
            attempt.apply_rules(draft, B_TO_A, now)
        except RuleReject as reject:
            self._refuse(reject.status, reject.reason, now, why)
            return
        except SdpError:
            self._refuse(response.status, response.reason, now, why)
            return
        if hide_own_refusal(draft):
            draft.append(reason_header(response.status, response.reason))
        status, reason = draft.status, draft.reason
        self.invite.relay_refusal(draft, now)
        self._end_refused(status, reason, now, why)

    def _refuse(
        self, status: int, reason: str, now: float, why: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Refuse the caller's INVITE ourselves."""
        self.invite.refuse(status, reason, now, headers)
        self._end_refused(status, reason, now, why)

    def _end_refused(self, status: int, reason: str, now: float, why: str) -> None:
        cached = None if status == 487 else (status, reason)
        if cached is not None:
            key = (self.original.call_id, self.original.from_.tag or "")
            self.core.rejections.remember(key, cached, now)
        self.end(now, status, reason, "refused", why)

    def cancel(self, now: float, extra: tuple[Header, ...], ended_by: str) -> None:
        """Stop setting up: no retry any more, the running attempt is cancelled, the caller's INVITE gets 487."""
        if self.state != "trying":
            return
        if self.attempt is not None:
            self.attempt.cancel(now, extra)
            self.attempt.end(now, 487, "Request Terminated", "cancelled")
        self.invite.refuse(487, None, now)
        self.end(now, 487, "Request Terminated", ended_by, "")

    def on_cancel(self, tx: ServerTransaction, now: float) -> None:
        """The caller's CANCEL (RFC 3261 section 9.2): 200 for it; it has no effect once the call is answered."""
        self.core.record_message(now, self.id, "a", "in", tx.flow, tx.request, self.attempt_number)
        self.invite.follow(tx.flow, now)
        self.leg_a.reply(tx, 200, now)
        reasons = tuple([header("Reason", value) for value in tx.request.get_all("reason")])
        if self.leg_b is None:
            self.cancel(now, reasons, "caller-cancel")
        elif self.refuse_setup(487, None, now):
            self.refuse_pending(now)
            self.leg_b.bye(now, reasons)
            self.end(now, 487, "Request Terminated", "caller-cancel", "")

    def _on_ring_timeout(self, now: float) -> None:
        self._ring_timer = None
        if 0 < self._expires_s < self.core.config.ring_timeout_s:
            # The caller said how long its invitation is good (RFC 3261 section 13.3.1).
            self.cancel(now, (reason_header(487, "INVITE expired"),), "caller-expires")
        elif self.state == "trying":
            extra = reason_header(408, "Ring timeout")
            if self.attempt is not None:
                self.attempt.cancel(now, (extra,))
                self.attempt.end(now, 408, "Request Timeout", "timeout", "ring timeout")
            self._refuse(408, "Request Timeout", now, "ring timeout")

    def _on_limit(self, now: float) -> None:
        self._limit_timer = None
        self.hang_up(now, 408, "Maximum call duration reached")

    # Its legs

    def has_leg(self, leg: Leg) -> bool:
        """Whether a leg is part of the call: one that was transferred away is not."""
        return leg in (self.leg_a, self.leg_b) or (self.transfer is not None and leg is self.transfer.leg)

    def new_side(self) -> str:
        """A name for one more leg: "c", "d" and so on."""
        self._sides += 1
        return chr(min(ord("b") + self._sides, ord("z")))

    def replace_leg(self, old: Leg, new: Leg) -> None:
        """Give a leg's place in the call to another one."""
        peer = self.leg_b if old is self.leg_a else self.leg_a
        if old is self.leg_a:
            self.leg_a = new
        else:
            self.leg_b = new
        self.others.append(old)
        old.peer, new.peer = None, peer
        if peer is not None:
            peer.peer = new
        new.checkpoint()

    # The end

    def on_caller_lost(self, now: float) -> None:
        """The caller's INVITE can't be answered any more: its connection is gone."""
        has_answer = self.invite.tx.last_status >= 200
        self.invite.abandon(now)
        if self.state == "trying":
            if self.attempt is not None:
                self.attempt.cancel(now, (reason_header(487, "Caller's connection lost"),))
                self.attempt.end(now, 487, "Request Terminated", "cancelled", "caller's connection lost")
            self.end(now, 487, "Request Terminated", "transport", "caller's connection lost")
        elif self.state == "answered" and self.leg_b is not None and not has_answer:
            self.leg_a.close()
            self.leg_b.bye(now, (reason_header(487, "Caller's connection lost"),))
            self.end(now, 487, "Request Terminated", "transport", "caller's connection lost")
        elif self.state == "answered":
            self.hang_up(now, 487, "Caller's connection lost")

    def on_no_ack(self, leg: Leg, now: float) -> None:
        """Our 2xx was never acknowledged: end both legs (RFC 3261 section 13.3.1.4)."""
        self.hang_up(now, 408, "ACK not received")

    def hang_up(self, now: float, cause: int, text: str) -> None:
        """End the call from the middle, on both legs."""
        if self.state == "ended":
            return
        if self.state == "trying":
            if self.attempt is not None:
                self.attempt.cancel(now, (reason_header(cause, text),))
                self.attempt.end(now, cause, text, "ended here")
            if cause >= 500:
                self._refuse(cause, REASON_PHRASES.get(cause, text), now, text)
            else:
                self._refuse(503, "Service Unavailable", now, text)
            return
        self.refuse_pending(now)
        reason = (reason_header(cause, text),)
        if self.transfer is not None:
            self.transfer.abort(now, reason)
        self.refuse_setup(cause, text, now)
        self.leg_a.bye(now, reason)
        if self.leg_b is not None:
            self.leg_b.bye(now, reason)
        self.end(now, cause, text, "trunkline", text)

    def refuse_setup(self, status: int, reason: str | None, now: float) -> bool:
        """Refuse the caller's INVITE while our 200 still waits for a PRACK; False when it had a final response."""
        if self.invite.tx.last_status >= 200:
            return False
        self.invite.refuse(status, reason, now)
        self.leg_a.close()
        return True

    def refuse_pending(self, now: float) -> None:
        """Answer re-INVITEs that are still pending when the dialog ends (RFC 3261 section 15.1.2)."""
        for leg in (self.leg_a, self.leg_b):
            if leg is not None and leg.confirmed and leg.invite_in is not None:
                pending = leg.invite_in.user
                if isinstance(pending, Relay):
                    pending.abandon(now)

    def release(self) -> bool:
        """Let go of all that knows this call: it is freed at once, and the garbage collector, which would look at every
        call in progress, has nothing to find. False when something may still happen to it."""
        legs = {self.leg_a, *self.others} if self.leg_b is None else {self.leg_a, self.leg_b, *self.others}
        if self.invite.tx.state != State.TERMINATED or not all(leg.ended and leg.idle for leg in legs):
            return False
        for leg in legs:
            leg.release()
        self.leg_b = self.attempt = self.transfer = None
        self.others.clear()
        del self.leg_a, self.invite
        return True

    def _stop_timers(self) -> None:
        for timer in (self._retry_timer, self._ring_timer, self._limit_timer):
            if timer is not None:
                timer.cancel()
        self._retry_timer = self._ring_timer = self._limit_timer = None
        if self._prober is not None:
            self._prober.stop()
            self._prober = None

    def end(self, now: float, status: int, reason: str, ended_by: str, detail: str) -> None:
        """Close the books, once."""
        if self.state == "ended":
            return
        answered = self.state == "answered" and 200 <= self.invite.tx.last_status < 300
        self.state = "ended"
        self._stop_timers()
        if not answered:
            self.leg_a.close()
        self.core.calls.pop(self.id, None)
        self.core.bury(self, now)
        fields = dict(self._facts)
        fields.update(
            outcome="answered" if answered else "cancelled" if status == 487 else "failed",
            status=200 if answered else status,
            reason="OK" if answered else reason,
            ended_by=ended_by,
            detail=detail,
            duration_s=round(now - self.started, 6),
            setup_s=round(self.answered_at - self.started, 6) if answered else None,
            talk_s=round(now - self.answered_at, 6) if answered else None,
            attempts=self._outcomes,
            tags=self.tags,
        )
        self.core.record("call-end", now, self.id, fields, "", self.attempt_number)


def _facts(tx: ServerTransaction, trunk: str) -> dict[str, object]:
    """What the records say of a call at its start, and again at its end."""
    request = tx.request
    return {
        "flow": tx.flow,
        "trunk": trunk,
        "call_id": request.call_id,
        "from": request.from_.uri_text,
        "to": request.to.uri_text,
        "uri": request.uri,
        "twilio_call_sid": request.get("x-twilio-callsid"),
        "user_agent": request.get("user-agent"),
    }


def _limit_s(policy: RetryPolicy, attempt: int, elapsed_s: float) -> float:
    """How long an attempt may go unanswered: the last one until the deadline, others for the policy's time."""
    left = max(policy.deadline_s - elapsed_s, 0.0)
    return min(policy.answer_timeout_s, left) if policy.on_timeout and attempt < policy.max_attempts else left


def _expires_s(request: Request) -> float:
    """How long an INVITE is good, by its Expires; 0 where it does not say."""
    value = (request.get("expires") or "").strip()
    return float(value) if value.isdigit() and value.isascii() and len(value) < 10 else 0.0
