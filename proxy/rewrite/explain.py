"""Why rules did what they did: the same walk as `RuleSet.apply`, rule by rule, with a word on each."""

from __future__ import annotations

from proxy.audit.records import Change
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import Context, Include, Rule, RuleReject, RuleSet, Run, Stop
from proxy.sdp.errors import SdpError

__all__ = ["Trace", "trace"]


class Trace:
    """What became of one rule.

    Attributes:
        rule_set: the set that it stands in. rule: the rule.
        state: `fired` (its conditions hold), `refused` (it refused the message), `stopped` (it fired and ended the
            rules), `skipped` (a condition does not hold), `disabled`, `not reached`.
        reason: for `skipped` the condition that does not hold, for `refused` status and reason phrase.
        changes: the edits that it made, those of sets that it includes not among them.
    """

    __slots__ = ("changes", "reason", "rule", "rule_set", "state")

    def __init__(self, rule_set: RuleSet, rule: Rule, state: str, reason: str = "") -> None:
        self.rule_set = rule_set
        self.rule = rule
        self.state = state
        self.reason = reason
        self.changes: list[Change] = []

    def __repr__(self) -> str:
        return f"<Trace {self.rule.step} {self.state} {self.reason}>"


def trace(rule_set: RuleSet, draft: Draft, context: Context) -> list[Trace]:
    """Apply a rule set as `RuleSet.apply` does, and tell what became of each of its rules, in order.

    Rules of included sets stand behind the rule that includes them. A refusal is no exception here; it is told.
    """
    traces: list[Trace] = []
    try:
        _run(rule_set, draft, context, traces)
    except (Stop, RuleReject):
        pass
    return traces


def _run(rule_set: RuleSet, draft: Draft, context: Context, traces: list[Trace]) -> None:
    """Walk one set. Raises Stop and RuleReject as its rules do, after all its rules were told."""
    if rule_set.variables:
        context.values = {**(context.values or {}), **rule_set.variables}
    ended: Exception | None = None
    for rule in rule_set.all_rules:
        one = Trace(rule_set, rule, "not reached" if rule.enabled else "disabled")
        traces.append(one)
        if not rule.enabled or ended is not None:
            continue
        draft.step = rule.step
        try:
            one.reason = _failed_condition(rule, draft, context)
            one.state = "skipped" if one.reason else "fired"
            if not one.reason:
                _act(one, draft, context, traces)
        except SdpError as error:
            one.state, one.reason = "refused", f"400 Malformed SDP: {error.reason}"
            ended = RuleReject(400, error.reason, rule.step)
        except RuleReject as reject:
            one.state, one.reason = "refused", "dropped" if reject.silent else f"{reject.status} {reject.reason}"
            ended = reject
        except Stop as stop:
            one.state = "stopped"
            ended = stop
    if ended is not None and not (isinstance(ended, Stop) and not ended.all):
        raise ended


def _act(one: Trace, draft: Draft, context: Context, traces: list[Trace]) -> None:
    """Do the actions of a rule; a set that it includes is walked in its place."""
    rule = one.rule
    includes: dict[Run, Include] = {include.run: include for include in rule.includes}
    for action in rule.actions:
        began = len(draft.changes)
        include = includes.get(action)
        try:
            if include is None:
                action(draft, context)
            elif include.rule_set is not None:
                _run(include.rule_set, draft, context, traces)
                draft.step = rule.step
        finally:
            one.changes += [change for change in draft.changes[began:] if change.step == rule.step]


def _failed_condition(rule: Rule, draft: Draft, context: Context) -> str:
    """The first condition of a rule that does not hold, for people; "" when all do."""
    if rule.direction not in (None, context.direction):
        return f"direction: {rule.direction}; this goes {context.direction}"
    kind = "response" if draft.status else "request"
    if rule.message not in (None, kind):
        return f"message: {rule.message}; this is a {kind}"
    if rule.methods is not None and draft.method not in rule.methods:
        return f"method: {', '.join(sorted(rule.methods))}; this is {draft.method}"
    for test, label in zip(rule.tests, rule.labels, strict=True):
        if not test(draft, context):
            return label()
    if rule.needs_sdp and not draft.has_sdp():
        return "has-sdp: true; there is no SDP"
    return ""
