"""The one way to write a rule file: order of keys, indentation, empty lines; comments stay."""

from __future__ import annotations

import io
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from proxy.rewrite.nodes import Node, Problem, Report
from proxy.rulefiles import RuleFileError, parse_tree

__all__ = ["format_rules"]

_FILE_KEYS: Final = ("version", "name", "description", "variables", "rules")
_RULE_KEYS: Final = ("id", "why", "enabled", "when", "do", "cases")
_CASE_KEYS: Final = ("name", "with", "alone", "in", "out", "expect")
_WIDTH: Final = 120


def format_rules(text: str, source: str) -> str:
    """The text of a rule file, formatted. It means the same: that is checked. Raises RuleFileError."""
    before = _tree(text, source)
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = _WIDTH
    yaml.preserve_quotes = True
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    try:
        root = yaml.load(text)
    except (YAMLError, ValueError) as error:
        raise RuleFileError([Problem(source, 0, 0, "", f"can't be formatted: {error}")]) from None
    if isinstance(root, CommentedMap):
        _order(root, _FILE_KEYS)
        for rule in root.get("rules") or ():
            if isinstance(rule, CommentedMap):
                _order(rule, _RULE_KEYS)
                for case in rule.get("cases") or ():
                    if isinstance(case, CommentedMap):
                        _order(case, _CASE_KEYS)
    out = io.StringIO()
    yaml.dump(root, out)
    formatted = _spaced(out.getvalue())
    if _plain(_tree(formatted, source)) != _plain(before):
        raise RuleFileError([Problem(source, 0, 0, "", "can't be formatted without changing what it says")])
    return formatted


def _tree(text: str, source: str) -> Node:
    report = Report(source)
    tree = parse_tree(text.encode("utf-8", "surrogatepass"), report)
    if tree is None:
        raise RuleFileError(report.problems)
    return tree


def _order(mapping: CommentedMap, keys: tuple[str, ...]) -> None:
    """Put known keys into their order; those that are not known stay behind them."""
    wanted = [key for key in keys if key in mapping] + [key for key in mapping if key not in keys]
    if list(mapping) != wanted:
        for key in wanted:
            mapping.move_to_end(key)


def _plain(node: Node) -> Any:
    """What a tree says, without where it stands; the order of keys is none of it, but for actions and SDP."""
    if node.kind == "mapping":
        return sorted([(key.text, repr(_plain(value))) for key, value in node.pairs])
    if node.kind == "list":
        return [_plain(item) for item in node.items]
    return node.kind, node.text


def _spaced(text: str) -> str:
    """One empty line between rules, none at the ends of lines or of the file."""
    lines: list[str] = []
    in_rules = False
    block = -1
    for line in [line.rstrip() for line in text.split("\n")]:
        depth = len(line) - len(line.lstrip())
        if block >= 0 and line and depth <= block:
            block = -1
        begins_rule = block < 0 and line.startswith(("  - ", "  # ")) and in_rules
        if begins_rule and lines and lines[-1] and lines[-1] != "rules:" and not lines[-1].startswith("  # "):
            lines.append("")
        if line or block >= 0 or (lines and lines[-1]):
            lines.append(line)
        if line == "rules:":
            in_rules = True
        if block < 0 and line.endswith(("|", ">-", ">", "|-", "|+")):
            block = depth
    return "\n".join(lines).rstrip("\n") + "\n"
