"""`do`: actions on the status of a response and on the call, compiled to functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.rewrite.action import Action, ActionSpec, without_breaks
from proxy.rewrite.engine import Context, Include, RetryPlan, RuleReject, Stop
from proxy.rewrite.names import HeaderName
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.schema import (
    Field,
    Flag,
    IdKind,
    Keys,
    Listing,
    Many,
    Mapped,
    Schema,
    Switch,
    Text,
    Values,
    Whole,
    WordOr,
)
from proxy.rewrite.templates import Render, Template, TemplateKind
from proxy.sip.message import canonical_key
from proxy.sip.respond import REASON_PHRASES

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft

__all__ = ["CALL_ACTIONS", "MAX_TAGS"]

MAX_TAGS: Final = 32
"""How many tags a call can have."""

_TAG_LIMIT: Final = 80
_NOTE_LIMIT: Final = 500
_OWN_METHODS: Final = ("ACK", "CANCEL")
"""Requests that can't be refused: they get no answer (ACK), or belong to one that does (CANCEL)."""


def _set_status(values: Values, node: Node, report: Report) -> Action | None:
    status: int = values["status"]
    if 200 <= status <= 299 or status == 100:
        report.add(node.value("status") or node, "is not a status that a rule can set", "101 to 199, 300 to 699")
        return None
    reason: str = values.get("reason") or REASON_PHRASES.get(status) or "Unknown"

    def run(draft: Draft, context: Context) -> None:
        may_change = 100 < draft.status < 200 if status < 200 else draft.status >= 300
        if may_change:
            draft.set_status(status, reason)

    return Action(run, message="response")


def _reject(values: Values, node: Node, report: Report) -> Action | None:
    status: int = values["status"]
    reason: str = values.get("reason") or REASON_PHRASES.get(status) or "Rejected"
    silent: bool = values.get("silent", False)
    given: dict[str, Template] = values.get("headers", {})
    if any(canonical_key(name) in ("from", "to", "content-type") for name in given):
        report.add(node.value("headers") or node, "has a header that a refusal can't carry")
        return None
    headers: tuple[tuple[str, Render], ...] = tuple([(name, value.render()) for name, value in given.items()])

    def run(draft: Draft, context: Context) -> None:
        if draft.method in _OWN_METHODS:
            return
        filled: list[tuple[str, str]] = []
        for name, render in headers:
            text = render(draft, context)
            if text is not None:
                filled.append((name, without_breaks(text)))
        raise RuleReject(status, reason, draft.step, silent, tuple(filled))

    return Action(run, message="request", ends=True)


def _drop(given: bool, node: Node, report: Report) -> Action:
    def run(draft: Draft, context: Context) -> None:
        if (draft.status == 0 and draft.method not in _OWN_METHODS) or 100 < draft.status < 200:
            raise RuleReject(403, "Forbidden", draft.step, True)

    return Action(run, ends=True, decides=True)


def _route(template: Template, node: Node, report: Report) -> Action:
    if template.constant is not None:
        report.targets.use(template.constant, node)
    render = template.render()

    def run(draft: Draft, context: Context) -> None:
        decision = context.decision
        if decision is not None:
            decision.target = render(draft, context) or decision.target
            decision.step = draft.step

    return Action(run, message="request", decides=True)


def _retry(values: str | Values, node: Node, report: Report) -> Action | None:
    if isinstance(values, str):
        plan = RetryPlan(max_attempts=1)
    else:
        if not values:
            report.add(node, "changes nothing", ", ".join(_RETRY.known))
            return None
        attempts: list[Values] | None = values.get("attempts")
        plan = RetryPlan(
            values.get("max-attempts"),
            values.get("deadline-s"),
            frozenset(values["on"]) if "on" in values else None,
            None if attempts is None else tuple([(one.get("rules", ""), one.get("target", "")) for one in attempts]),
        )
        for rules, target in plan.attempts or ():
            if rules:
                report.sets.use(rules, node)
            if target:
                report.targets.use(target, node)

    def run(draft: Draft, context: Context) -> None:
        if context.decision is not None:
            context.decision.retry = plan

    return Action(run, message="request", decides=True)


def _tag(templates: list[Template], node: Node, report: Report) -> Action:
    renders = tuple([template.render() for template in templates])

    def run(draft: Draft, context: Context) -> None:
        tags = context.tags
        if tags is None:
            return
        for render in renders:
            text = render(draft, context)
            if text:
                tag = "".join([char if char.isprintable() else " " for char in text[:_TAG_LIMIT]]).strip()
                if tag and tag not in tags and len(tags) < MAX_TAGS:
                    tags.append(tag)

    return Action(run)


def _note(template: Template, node: Node, report: Report) -> Action:
    render = template.render()

    def run(draft: Draft, context: Context) -> None:
        text = render(draft, context)
        if text is not None:
            if context.notes is None:
                context.notes = []
            context.notes.append((draft.step, without_breaks(text[:_NOTE_LIMIT])))

    return Action(run)


def _remember(templates: dict[str, Template], node: Node, report: Report) -> Action:
    for key, _ in node.pairs:
        report.variables.give(key.text, key)
    renders = tuple([(f"var.{name}", template.render()) for name, template in templates.items()])

    def run(draft: Draft, context: Context) -> None:
        for name, render in renders:
            text = render(draft, context)
            if text is not None:
                context.keep(name, text)

    return Action(run)


def _stop(given: str | bool, node: Node, report: Report) -> Action:
    all = given is True

    def run(draft: Draft, context: Context) -> None:
        raise Stop(all)

    return Action(run, ends=True, stops=True)


def _include(name: str, node: Node, report: Report) -> Action:
    include = Include(name, node.line, node.column)
    return Action(include.run, include=include)


class StopKind:
    """`true` for all rules, `set` for the rest of this set."""

    allowed: str = "true (no further rule), or set (no further rule of this set)"

    def read(self, node: Node, report: Report) -> str | bool | None:
        """Read what is stopped."""
        if node.is_scalar and node.text == "set":
            return "set"
        return Switch().read(node, report)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"enum": [True, "set"]}


class VariableName:
    """The name of a variable."""

    allowed: str = "a name of letters, digits, hyphens and underscores"

    def read(self, node: Node, report: Report) -> str | None:
        """Read a name."""
        text = node.text
        if node.is_scalar and len(text) <= 80 and text.isascii() and text.replace("-", "").replace("_", "").isalnum():
            return text
        report.add(node, "is not a name", self.allowed)
        return None

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}


class RetriedStatus(Whole):
    """A status that is worth another attempt."""

    def __init__(self) -> None:
        super().__init__(400, 599)

    def read(self, node: Node, report: Report) -> int | None:
        """Read a status; those that no other attempt can change are refused."""
        status = super().read(node, report)
        if status in (403, 404, 486, 487):
            report.add(node, "is a final answer and is never retried", self.allowed)
            return None
        return status


_RETRY: Final = Keys(
    {
        "max-attempts": Field(Whole(1, 20), help="Attempts in all, the first one included."),
        "deadline-s": Field(Whole(1, 180), help="How long after the INVITE no attempt starts any more, in seconds."),
        "on": Field(Many(RetriedStatus()), help="The final statuses that are worth another attempt."),
        "attempts": Field(
            Listing(Keys({"rules": Field(IdKind()), "target": Field(Text(limit=200))}), limit=20),
            help="Per attempt a rule set and a target; the last entry stands for all that follow.",
        ),
    }
)


CALL_ACTIONS: Final[dict[str, ActionSpec]] = {
    "set-status": ActionSpec(
        Keys({"status": Field(Whole(101, 699), True), "reason": Field(Text(limit=160))}),
        _set_status,
        "Gives a response another status and reason phrase.",
    ),
    "reject": ActionSpec(
        Keys(
            {
                "status": Field(Whole(400, 699), True),
                "reason": Field(Text(limit=160)),
                "headers": Field(Mapped(HeaderName(writes=True), TemplateKind(), 20)),
                "silent": Field(Flag()),
            }
        ),
        _reject,
        "Refuses a request.",
    ),
    "drop": ActionSpec(Switch(), _drop, "Leaves a call without any answer, or a provisional response behind."),
    "route": ActionSpec(TemplateKind(), _route, "Sends the call to the target of this name first."),
    "retry": ActionSpec(WordOr("never", _RETRY), _retry, "Says how often and with what this call is tried again."),
    "tag": ActionSpec(Many(TemplateKind()), _tag, "Gives the call tags, for search and metrics."),
    "note": ActionSpec(TemplateKind(), _note, "Writes a line into the log."),
    "remember": ActionSpec(
        Mapped(VariableName(), TemplateKind(allow_empty=True)), _remember, "Keeps values for later rules: {var.NAME}."
    ),
    "stop": ActionSpec(StopKind(), _stop, "No later rule is looked at for this message."),
    "include": ActionSpec(IdKind(), _include, "Applies the rules of another rule set here."),
}
"""The actions on status and call, by the key that names them."""
