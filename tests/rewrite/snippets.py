"""Messages written as the few lines that matter, and rules applied to them with every edit checked."""

from __future__ import annotations

from textwrap import indent
from typing import Any

from proxy.audit.records import replay
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, Context, RuleSet
from proxy.rewrite.snippet import IDENTITY_LINES, example_context, message, shown
from proxy.rulefiles import load_text
from proxy.sip.message import Message
from proxy.sip.parser import parse_message

__all__ = ["IDENTITY_LINES", "apply", "context", "message", "rule_set", "rules", "shown"]


def rules(text: str) -> RuleSet:
    """A rule set of the rules in `text`, a YAML list."""
    return load_text(f"version: 1\nname: test\nrules:\n{indent(text.strip(chr(10)), '  ')}\n", "test.yaml")


def rule_set(do: str, when: str = "{}") -> RuleSet:
    """A rule set of one rule, `do` being one action in flow style and `when` its conditions."""
    return rules(f"- id: one\n  why: For the test.\n  when: {when}\n  do:\n    - {do}")


def context(direction: str = A_TO_B, **facts: Any) -> Context:
    """A context with values that the tests know."""
    return example_context(False, direction=direction, **facts)


def apply(rule_set: RuleSet, whole: Message, facts: Context | None = None) -> Draft:
    """Apply a rule set, and check that the records say exactly what was done and that the result parses."""
    draft = Draft(whole)
    rule_set.apply(draft, facts or context(B_TO_A if draft.status else A_TO_B))
    after = draft.finish()
    start_line, lines, body = replay(whole.start_line, [item.line for item in whole.headers], whole.body, draft.changes)
    assert start_line == after.start_line
    assert lines == [item.line for item in after.headers]
    assert body == after.body
    names = {rule_set.name, *[include.name for include in rule_set.includes]}
    assert {change.step.partition("/")[0].removeprefix("rule:") for change in draft.changes} <= names
    head_and_body = after.serialize()
    again = parse_message(head_and_body)
    assert [item.line for item in again.headers] == lines
    return draft
