"""What rules know of a call, and what they decide of it before its first attempt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from proxy.b2bua.config import AttemptPlan, RetryPolicy, Target
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, Context, RetryPlan, RuleSet
from proxy.sip.flow import Flow

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["apply_rules", "decide_call", "rule_context"]


def rule_context(call: Call, direction: str, attempt: int, target: Target, flow: Flow) -> Context:
    """What rules may know beside the message; `flow` is where it came in."""
    config = call.core.config
    return Context(
        direction,
        call_id=call.id,
        attempt=attempt,
        local_host=config.public_address,
        target_host=target.uri.host,
        codecs=config.codecs,
        crypto_suites=config.crypto_suites,
        transport=flow.transport,
        source=flow.remote[0],
        trunk=call.trunk,
        target=target.name,
        settings=config.rule_settings,
        tags=call.tags,
    )


def apply_rules(call: Call, rules: RuleSet, draft: Draft, context: Context, now: float) -> None:
    """Apply a rule set, and record what its rules want to be logged. Raises RuleReject."""
    try:
        rules.apply(draft, context)
    finally:
        for step, text in context.notes or ():
            fields: dict[str, object] = {"rule": step, "note": text, "direction": context.direction}
            call.core.record("rule-note", now, call.id, fields, attempt=context.attempt)


def decide_call(
    call: Call, rules: RuleSet, targets: list[Target], policy: RetryPolicy
) -> tuple[list[Target], RetryPolicy]:
    """The targets in order and the retry policy, as rules want them for this call. Raises RuleReject.

    The rules are tried on the caller's INVITE, and the outcome is thrown away: each attempt applies them anew. A target
    that there is not is overlooked.
    """
    context = rule_context(call, A_TO_B, 1, targets[0], call.leg_a.flow)
    decision = rules.decide(Draft(call.original), context)
    target = call.core.config.targets.get(decision.target)
    if target is not None:
        targets = [target, *[other for other in targets if other is not target]]
    return targets, policy if decision.retry is None else _planned(policy, decision.retry)


def _planned(policy: RetryPolicy, plan: RetryPlan) -> RetryPolicy:
    attempts = policy.attempts
    if plan.attempts is not None:
        attempts = tuple([AttemptPlan(rules or None, target or None) for rules, target in plan.attempts])
    return replace(
        policy,
        statuses=policy.statuses if plan.statuses is None else plan.statuses,
        max_attempts=plan.max_attempts or policy.max_attempts,
        deadline_s=plan.deadline_s or policy.deadline_s,
        attempts=attempts,
    )
