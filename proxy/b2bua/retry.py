"""Whether a failed attempt is worth another one; a pure decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy.b2bua.config import AttemptPlan, RetryPolicy

__all__ = ["Outcome", "Retry", "decide"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt failed.

    Attributes:
        kind: "status" (the target's final response), "timeout" (no answer in time), "transport" (it can't be
            reached) or "own" (we refuse the call ourselves: rules, SDP).
        status: the status for the caller if nothing else follows.
        reason: its reason phrase.
        retry_after_s: the target's Retry-After, or None.
        headers: names and values of header fields for the caller, where we refuse the call ourselves.
    """

    kind: str
    status: int
    reason: str
    retry_after_s: float | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay_s`, with what `plan` names."""

    delay_s: float
    plan: AttemptPlan


NEVER = frozenset((403, 404, 486, 487))
"""Answers that no other attempt can change, whatever the policy lists: policy, number, busy, the caller's CANCEL."""


def plan_for(policy: RetryPolicy, attempt: int) -> AttemptPlan:
    """What attempt number `attempt` (from 1 on) uses."""
    plans = policy.attempts
    return plans[min(attempt, len(plans)) - 1] if plans else AttemptPlan()


def decide(
    policy: RetryPolicy, outcome: Outcome, attempt: int, elapsed_s: float, random: Callable[[], float]
) -> Retry | str:
    """Decide what follows attempt number `attempt`, `elapsed_s` after the caller's INVITE.

    Returns a Retry, or the reason in words why there is none. Retry-After lengthens the wait where it fits into the
    deadline and forbids the retry where it does not.
    """
    if outcome.kind == "status":
        if outcome.status in NEVER or outcome.status >= 600:
            return f"{outcome.status} is final"
        if outcome.status not in policy.statuses:
            return f"{outcome.status} is not in the retry policy"
    elif outcome.kind == "own":
        return "refused here, not by the target"
    elif outcome.kind == "timeout" and not policy.on_timeout:
        return "timeouts are not in the retry policy"
    elif outcome.kind == "transport" and not policy.on_transport_failure:
        return "transport failures are not in the retry policy"
    if attempt >= policy.max_attempts:
        return f"all {policy.max_attempts} attempts are used up"
    delay = min(policy.backoff_initial_s * policy.backoff_factor ** (attempt - 1), policy.backoff_max_s)
    delay *= 1.0 + policy.jitter * (2.0 * random() - 1.0)
    if outcome.retry_after_s is not None:
        delay = max(delay, outcome.retry_after_s)
    if elapsed_s + delay >= policy.deadline_s:
        if outcome.retry_after_s is not None and outcome.retry_after_s >= delay:
            return f"Retry-After {outcome.retry_after_s:g} s does not fit into the deadline"
        return f"the deadline of {policy.deadline_s:g} s leaves no time"
    return Retry(delay, plan_for(policy, attempt + 1))
