"""A rule file's tree of values to a compiled rule set, or to the list of all its mistakes."""

from __future__ import annotations

import re
from typing import Final

from proxy.rewrite.actions import HEADER_ACTIONS, Action, ActionSpec
from proxy.rewrite.address_actions import ADDRESS_ACTIONS
from proxy.rewrite.engine import Rule, RuleSet
from proxy.rewrite.match import When, WhenKind
from proxy.rewrite.nodes import Node, Report, nearest
from proxy.rewrite.schema import Field, Flag, Keys, Listing, Text, Values, Whole
from proxy.rewrite.sdp_actions import SDP_ACTION

__all__ = ["ACTIONS", "compile_rule_set"]

ACTIONS: Final[dict[str, ActionSpec]] = {**HEADER_ACTIONS, **ADDRESS_ACTIONS, "sdp": SDP_ACTION}
"""All actions by the key that names them."""

_ID: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MAX_RULES: Final = 20_000


class IdKind:
    """An id: words of lower-case letters and digits, joined by hyphens."""

    allowed: str = 'lower-case words joined by hyphens, such as "drop-record-route"'

    def read(self, node: Node, report: Report) -> str | None:
        """Read an id."""
        text = node.text
        if node.is_scalar and len(text) <= 80 and _ID.fullmatch(text):
            return text
        words = re.findall(r"[A-Za-z0-9]+", text) if node.is_scalar and len(text) <= 80 else []
        report.add(node, "is not an id", self.allowed, "-".join(words).lower())
        return None


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


_RULE: Final = Keys(
    {
        "id": Field(IdKind(), required=True),
        "why": Field(Text(allow_breaks=True), required=True),
        "enabled": Field(Flag()),
        "when": Field(WhenKind()),
        "do": Field(Listing(ActionKind(), limit=100), required=True),
    },
    "is not a key of a rule",
)


class RuleKind:
    """One rule."""

    allowed: str = _RULE.allowed

    def __init__(self, set_name: str) -> None:
        self.set_name = set_name
        self.seen: dict[str, int] = {}

    def read(self, node: Node, report: Report) -> _Read | None:
        """Read and compile one rule."""
        id_node = node.value("id") if node.kind == "mapping" else None
        if id_node is not None:
            if id_node.text in self.seen:
                report.add(id_node, f"is the id of the rule on line {self.seen[id_node.text]}", "an id of its own")
            self.seen.setdefault(id_node.text, id_node.line)
        values = _RULE.read(node, report)
        if values is None:
            return None
        when: When = values.get("when") or When()
        actions: list[Action] = values["do"]
        message = _message(when, actions, node, report)
        if message == "":
            return None
        rule = Rule(
            values["id"],
            " ".join(values["why"].split()),
            f"rule:{self.set_name}/{values['id']}",
            node.line,
            direction=when.direction,
            message=message,
            methods=when.methods,
            tests=tuple([condition.test for condition in when.conditions]),
            actions=tuple([action.run for action in actions]),
            needs=_needs(when, actions),
            needs_sdp=when.needs_sdp or all(action.needs_sdp for action in actions),
        )
        return _Read(rule, values.get("enabled", True))


class _Read:
    """A rule, and whether it is enabled (a disabled one is checked all the same)."""

    __slots__ = ("enabled", "rule")

    def __init__(self, rule: Rule, enabled: bool) -> None:
        self.rule = rule
        self.enabled = enabled


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


def compile_rule_set(root: Node, version: str, report: Report) -> RuleSet | None:
    """Compile a file's tree. Every mistake goes to the report; None when there is one.

    `version` is the hash of the content that the set carries.
    """
    name_node = root.value("name") if root.kind == "mapping" else None
    set_name = name_node.text if name_node is not None else ""
    rule_set = Keys(
        {
            "version": Field(Whole(1, 1), required=True),
            "name": Field(IdKind(), required=True),
            "description": Field(Text(allow_breaks=True)),
            "rules": Field(Listing(RuleKind(set_name), _MAX_RULES), required=True),
        },
        "is not a key of a rule file",
    )
    values: Values | None = rule_set.read(root, report)
    if values is None or report.problems:
        return None
    rules = [read.rule for read in values["rules"] if read.enabled]
    description = " ".join(values.get("description", "").split())
    return RuleSet(values["name"], report.source, version, rules, description)
