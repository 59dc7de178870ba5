"""Rules that no message reaches, found when a file is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from proxy.rewrite.action import Action
from proxy.rewrite.engine import Rule
from proxy.rewrite.nodes import Node, Report

__all__ = ["Reach", "find_unreachable"]

_NEVER_REFUSED: Final = frozenset(("ACK", "CANCEL"))
_REMEMBERED: Final = 50
"""How many earlier rules are kept in mind for one question, so that a huge file is read in bounded time."""


class Reach:
    """A rule as it was read: what decides whether messages reach it and later ones.

    Attributes:
        rule: the rule. node: where it stands.
        unconditional: whether it has no condition beside direction, message and method.
        actions: its actions.
    """

    __slots__ = ("actions", "node", "rule", "unconditional")

    def __init__(self, rule: Rule, node: Node, unconditional: bool, actions: list[Action]) -> None:
        self.rule = rule
        self.node = node
        self.unconditional = unconditional
        self.actions = actions


class _Gone:
    """What earlier rules have surely taken out of messages."""

    def __init__(self) -> None:
        self._removed: dict[str, list[Rule]] = {}
        self._kept: list[tuple[Rule, Callable[[str], bool], set[str]]] = []

    def take(self, rule: Rule, action: Action) -> None:
        """Note what an action of an unconditional rule takes out."""
        for key in action.removes:
            rules = self._removed.setdefault(key, [])
            if len(rules) < _REMEMBERED:
                rules.append(rule)
        if action.keeps is not None and len(self._kept) < _REMEMBERED:
            self._kept.append((rule, action.keeps, set()))

    def bring(self, keys: Iterable[str]) -> None:
        """Note that header fields may be there again."""
        for key in keys:
            self._removed.pop(key, None)
            for _, _, back in self._kept:
                back.add(key)

    def forget(self) -> None:
        """Anything may be there again."""
        self._removed.clear()
        self._kept.clear()

    def by(self, key: str, rule: Rule) -> Rule | None:
        """The rule that has taken a header field out of every message that reaches `rule`; None when none has."""
        for earlier in self._removed.get(key, ()):
            if _covers(earlier, rule):
                return earlier
        for earlier, keeps, back in self._kept:
            if key not in back and not keeps(key) and _covers(earlier, rule):
                return earlier
        return None


def find_unreachable(found: list[Reach], report: Report) -> None:
    """Warn of rules that come after one that always ends, and of those whose headers an earlier one always removes."""
    enders: list[tuple[Rule, bool]] = []
    gone = _Gone()
    for reach in found:
        rule = reach.rule
        if not rule.enabled:
            continue
        ender = next((one for one, stops in enders if _covers(one, rule) and (stops or _refusable(rule))), None)
        if ender is not None:
            report.warn(_id_of(reach), f"is never reached: the rule {ender.id} on line {ender.line} ends before it")
        elif rule.needs:
            by = [gone.by(key, rule) for key in rule.needs]
            if all(one is not None for one in by) and by[0] is not None:
                names = ", ".join(rule.needs)
                what = f"never finds {names}: the rule {by[0].id} on line {by[0].line} removes it before"
                report.warn(_id_of(reach), what)
        for action in reach.actions:
            gone.bring(action.writes)
            if action.include is not None:
                gone.forget()
            if reach.unconditional:
                gone.take(rule, action)
        if reach.unconditional and len(enders) < _REMEMBERED:
            ending = [action for action in reach.actions if action.ends]
            if ending:
                enders.append((rule, any(action.stops for action in ending)))


def _id_of(reach: Reach) -> Node:
    return reach.node.value("id") or reach.node


def _refusable(rule: Rule) -> bool:
    """Whether all messages that a rule is for can be refused or dropped."""
    return rule.message == "request" and rule.methods is not None and rule.methods.isdisjoint(_NEVER_REFUSED)


def _covers(earlier: Rule, rule: Rule) -> bool:
    """Whether every message that `rule` is for is one that `earlier` is for."""
    if earlier.direction not in (None, rule.direction) or earlier.message not in (None, rule.message):
        return False
    return earlier.methods is None or (rule.methods is not None and rule.methods <= earlier.methods)
