"""A rule file's tree of values to a compiled rule set, or to the list of all its mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.rewrite.action import Action, ActionSpec
from proxy.rewrite.actions import HEADER_ACTIONS
from proxy.rewrite.address_actions import ADDRESS_ACTIONS
from proxy.rewrite.call_actions import CALL_ACTIONS, VariableName
from proxy.rewrite.cases import CaseKind
from proxy.rewrite.engine import Rule, RuleSet, Test
from proxy.rewrite.match import When, WhenKind, when_schema
from proxy.rewrite.nodes import Node, Report, Scope, nearest
from proxy.rewrite.reach import Reach, find_unreachable
from proxy.rewrite.replace_actions import REPLACE_ACTIONS
from proxy.rewrite.schema import Field, Flag, IdKind, Keys, Listing, Mapped, Schema, Text, Values, Whole
from proxy.rewrite.sdp_actions import SDP_ACTION

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = ["ACTIONS", "compile_rule_set", "json_schema"]

ACTIONS: Final[dict[str, ActionSpec]] = {
    **HEADER_ACTIONS,
    **REPLACE_ACTIONS,
    **ADDRESS_ACTIONS,
    "sdp": SDP_ACTION,
    **CALL_ACTIONS,
}
"""All actions by the key that names them."""

_MAX_RULES: Final = 20_000


class ActionKind:
    """One action: a mapping with a single key that names it."""

    allowed: str = ", ".join(ACTIONS)

    def read(self, node: Node, report: Report) -> Action | None:
        """Read and compile one action."""
        if node.kind != "mapping":
            hint = nearest(node.text, ACTIONS) if node.is_scalar else ""
            report.add(node, "is not an action with its settings", f"one of {self.allowed}", f"{hint}:" if hint else "")
            return None
        if len(node.pairs) != 1:
            report.add(node, "must have exactly one action; begin each one with a dash of its own", self.allowed)
            return None
        key, value = node.pairs[0]
        spec = ACTIONS.get(key.text) if key.is_scalar else None
        if spec is None:
            report.add(key, "is not an action", self.allowed, nearest(key.text, ACTIONS) if key.is_scalar else "")
            return None
        settings = spec.kind.read(value, report)
        return None if settings is None else spec.compile(settings, value, report)

    def schema(self) -> Schema:
        """As JSON Schema: an object with exactly one of the actions."""
        return {"$ref": "#/$defs/action"}


_RULE: Final = Keys(
    {
        "id": Field(IdKind(), True, "The rule's name, unique in the file."),
        "why": Field(Text(allow_breaks=True), True, "The reason, for whoever reads it in two years."),
        "enabled": Field(Flag(), help="false puts the rule out of work."),
        "when": Field(WhenKind(), help="Conditions that must all hold."),
        "do": Field(Listing(ActionKind(), limit=100), True, "Actions, done in this order."),
        "cases": Field(Listing(CaseKind(), limit=200), help="Messages in, and what must come out."),
    },
    "is not a key of a rule",
)


class RuleKind:
    """One rule."""

    allowed: str = _RULE.allowed

    def __init__(self, set_name: str) -> None:
        self.set_name = set_name
        self.seen: dict[str, int] = {}

    def read(self, node: Node, report: Report) -> Reach | None:
        """Read and compile one rule."""
        id_node = node.value("id") if node.kind == "mapping" else None
        if id_node is not None:
            if id_node.text in self.seen:
                report.add(id_node, f"is the id of the rule on line {self.seen[id_node.text]}", "an id of its own")
            self.seen.setdefault(id_node.text, id_node.line)
        report.captures = Scope()
        values = _RULE.read(node, report)
        _check_captures(report)
        if values is None:
            return None
        when: When = values.get("when") or When()
        actions: list[Action] = values["do"]
        message = _message(when, actions, node, report)
        if message == "":
            return None
        captures = tuple([f"capture.{name}" for name in report.captures.given])
        forgetting = (_forgetting(captures),) if captures else ()
        conditions = when.conditions
        rule = Rule(
            values["id"],
            " ".join(values["why"].split()),
            f"rule:{self.set_name}/{values['id']}",
            node.line,
            direction=when.direction,
            message=message,
            methods=when.methods,
            tests=(*forgetting, *[condition.test for condition in conditions]),
            actions=tuple([action.run for action in actions]),
            needs=_needs(when, actions),
            needs_sdp=when.needs_sdp or all(action.needs_sdp for action in actions),
            decides=any(action.decides for action in actions),
            labels=(*[lambda: "captures" for _ in forgetting], *[condition.label for condition in conditions]),
            cases=tuple(values.get("cases", ())),
            includes=tuple([action.include for action in actions if action.include is not None]),
            enabled=values.get("enabled", True),
        )
        return Reach(rule, node, not conditions and not when.needs_sdp, actions)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return _RULE.schema()


def _forgetting(names: tuple[str, ...]) -> Test:
    """A test that always holds: it forgets what an earlier run captured under these names."""

    def forget(draft: Draft, context: Context) -> bool:
        if context.values is not None:
            for name in names:
                context.values.pop(name, None)
        return True

    return forget


def _check_captures(report: Report) -> None:
    """Captures that no pattern of the rule makes are mistakes; those that nobody uses are doubtful."""
    captures = report.captures
    for name, nodes in captures.used.items():
        if name not in captures.given:
            given = ", ".join([f"{{capture.{known}}}" for known in captures.given]) or "(?P<NAME>...) in a `matches`"
            meant = nearest(name, captures.given)
            for node in nodes:
                report.add(
                    node,
                    f"names a capture that no pattern of this rule makes, {{capture.{name}}}",
                    given,
                    f"{{capture.{meant}}}" if meant else "",
                )
    for name, node in captures.given.items():
        if name not in captures.used:
            report.warn(node, f"captures {name}, which this rule never uses", f"{{capture.{name}}}, or (?:...)")


def _message(when: When, actions: list[Action], node: Node, report: Report) -> str | None:
    """The only kind of message that the rule is for; None for both, "" after a reported contradiction."""
    found = {action.message for action in actions if action.message is not None}
    if when.message is not None:
        found.add(when.message)
    if len(found) > 1:
        do = node.value("do") or node
        report.add(
            do,
            "has an action that never meets a message that `when` lets through",
            "reject for requests, set-status for responses",
        )
        return ""
    return found.pop() if found else None


def _needs(when: When, actions: list[Action]) -> frozenset[str] | None:
    """The header keys of which one must be present for the rule to change anything; None when that can't be told."""
    smallest = min(
        [condition.needs for condition in when.conditions if condition.needs is not None], key=len, default=None
    )
    if smallest is not None:
        return smallest
    needs: set[str] = set()
    for action in actions:
        if action.needs is None:
            return None
        needs |= action.needs
    return frozenset(needs)


_FILE: Final = {
    "version": Field(Whole(1, 1), True, "The version of the language: 1."),
    "name": Field(IdKind(), True, "The set's name."),
    "description": Field(Text(allow_breaks=True), help="What the set is for."),
    "variables": Field(Mapped(VariableName(), Text(allow_empty=True)), help="Values for the rules: {var.NAME}."),
}


def _file(set_name: str) -> Keys:
    """The kind of a whole file."""
    rules = Field(Listing(RuleKind(set_name), _MAX_RULES), True, "The rules, which are tried in this order.")
    return Keys({**_FILE, "rules": rules}, "is not a key of a rule file")


def compile_rule_set(root: Node, version: str, report: Report) -> RuleSet | None:
    """Compile a file's tree. Every mistake goes to the report; None when there is one.

    `version` is the hash of the content that the set carries.
    """
    name_node = root.value("name") if root.kind == "mapping" else None
    variables_node = root.value("variables") if root.kind == "mapping" else None
    if variables_node is not None:
        for key, _ in variables_node.pairs:
            report.variables.give(key.text, key)
    values: Values | None = _file(name_node.text if name_node is not None else "").read(root, report)
    _check_variables(report)
    if values is None or report.problems:
        return None
    found: list[Reach] = values["rules"]
    find_unreachable(found, report)
    description = " ".join(values.get("description", "").split())
    rules = [reach.rule for reach in found]
    rule_set = RuleSet(values["name"], report.source, version, rules, description, values.get("variables", {}))
    rule_set.warnings = tuple(report.warnings)
    rule_set.settings, rule_set.targets, rule_set.sets = (
        {name: report.problem(nodes[0], what) for name, nodes in scope.used.items()}
        for scope, what in (
            (report.settings, "asks for a setting that `rule_settings` does not have"),
            (report.targets, "is not a target"),
            (report.sets, "is not a rule set"),
        )
    )
    return rule_set


def _check_variables(report: Report) -> None:
    """Variables that nothing sets are mistakes; those that nobody uses are doubtful."""
    variables = report.variables
    for name, nodes in variables.used.items():
        if name not in variables.given:
            given = ", ".join([f"{{var.{known}}}" for known in variables.given])
            meant = nearest(name, variables.given)
            for node in nodes:
                report.add(
                    node,
                    f"names a variable that nothing sets, {{var.{name}}}",
                    given or "one that `variables` or a `remember` sets",
                    f"{{var.{meant}}}" if meant else "",
                )
    for name, node in variables.given.items():
        if name not in variables.used:
            report.warn(node, f"sets a variable that no rule uses, {name}", f"{{var.{name}}}")


def json_schema() -> Schema:
    """The language as JSON Schema (draft 2020-12), for editors: completion, and the mistakes that a schema can see."""
    actions: list[Schema] = [
        {
            "type": "object",
            "properties": {name: {**spec.kind.schema(), "description": spec.help}},
            "required": [name],
            "additionalProperties": False,
        }
        for name, spec in ACTIONS.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://trunkline.example/rules.schema.json",
        "title": "Trunkline rules",
        **_file("").schema(),
        "$defs": {"when": when_schema(), "action": {"oneOf": actions}},
    }
