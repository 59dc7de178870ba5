"""The guide, docs/rules.md: every example does what it says, and there is one for everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from proxy.rewrite.compiler import ACTIONS
from proxy.rewrite.engine import Context, Decision, RuleReject, RuleSet
from proxy.rewrite.match import HEADER_TESTS, SDP_FACTS, WHEN_KEYS
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.sdp_actions import SDP_OPERATIONS
from proxy.rewrite.templates import VARIABLES
from proxy.rulefiles import RuleFileError, load_directory_or_files, load_text, parse_tree
from proxy.ruletests import run_rule_tests
from tests.rewrite.snippets import apply, context, message, rules, shown

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "rules.md"
TEXT = GUIDE.read_text()
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Example:
    """A rule, a message before and after, and what else is known."""

    def __init__(self, heading: str, rule: str, facts: dict[str, str], before: str, after: str) -> None:
        self.heading = heading
        self.rule = rule
        self.facts = facts
        self.before = before
        self.after = after


def blocks(text: str = TEXT) -> Iterator[tuple[str, str, str, str]]:
    """(heading, language, info, text) of each fenced block."""
    for found in _BLOCK.finditer(text):
        heading = re.findall(r"^#+ (.*)$", text[: found.start()], re.MULTILINE)[-1]
        yield heading, found.group(1), found.group(2).strip(), found.group(3)


def examples(page: str) -> Iterator[Example]:
    """The examples of a page."""
    rule = before = ""
    facts: dict[str, str] = {}
    for heading, language, info, text in blocks(page):
        if language == "yaml" and not info:
            rule = text
        elif info.startswith("before"):
            before = text
            facts = dict(pair.split("=", 1) for pair in info.split()[1:])
        elif info == "after":
            yield Example(heading, rule, facts, before, text)


EXAMPLES = list(examples(TEXT))
HMR = (GUIDE.parent / "rules-from-hmr-kamailio.md").read_text()
COOKBOOK = (GUIDE.parent / "cookbook.md").read_text()
ALL = [*EXAMPLES, *examples(COOKBOOK), *examples(HMR)]


def facts_of(example: Example) -> dict[str, Any]:
    """What is known beside the message, as arguments of a context."""
    facts: dict[str, Any] = {name: text for name, text in example.facts.items() if "." not in name}
    if "attempt" in facts:
        facts["attempt"] = int(facts["attempt"])
    facts["tags"] = facts["tags"].split(",") if "tags" in facts else []
    settings = {name: text for name, text in example.facts.items() if name.startswith("settings.")}
    facts["settings"] = {name.removeprefix("settings."): text for name, text in settings.items()}
    return facts


def rule_set_of(example: Example, folder: Path) -> RuleSet:
    """The example's rules; those that include others are put beside the whole file of the guide."""
    if "include:" not in example.rule:
        return rules(example.rule)
    (whole_file,) = [text for _, language, info, text in blocks() if (language, info) == ("yaml", "file")]
    (folder / "my-trunk.yaml").write_text(whole_file)
    (folder / "test.yaml").write_text(f"version: 1\nname: test\nrules:\n{indent(example.rule, '  ')}")
    return load_directory_or_files([folder])["test"]


def told_of_call(found: Context) -> list[str]:
    """What becomes of the call, in the words of the guide."""
    decision = found.decision
    assert decision is not None
    told = [f"→ route {decision.target}"] if decision.target else []
    if decision.retry is not None:
        plan = decision.retry
        told.append(
            f"→ retry {plan.max_attempts} attempts"
            + (f" in {plan.deadline_s} s" if plan.deadline_s else "")
            + (f" on {', '.join(map(str, sorted(plan.statuses)))}" if plan.statuses else "")
        )
    return [*told, *[f"→ tag {tag}" for tag in found.tags or ()], *[f"→ note {text}" for _, text in found.notes or ()]]


@pytest.mark.parametrize("example", ALL, ids=[f"{at}-{one.heading}" for at, one in enumerate(ALL)])
def test_example(example: Example, tmp_path: Path) -> None:
    whole = message(example.before)
    facts = facts_of(example)
    direction = facts.pop("direction", "b-to-a" if whole.start_line.startswith("SIP/2.0") else "a-to-b")
    rule_set = rule_set_of(example, tmp_path)
    found = context(direction, **facts)
    found.decision = Decision()
    tags = list(found.tags or ())
    if example.after.startswith(("rejected: ", "dropped")):
        with pytest.raises(RuleReject) as error:
            apply(rule_set, whole, found)
        refused = error.value
        told = "dropped" if refused.silent else f"rejected: {refused.status} {refused.reason}"
        assert [told, *[f"{name}: {value}" for name, value in refused.headers]] == example.after.strip().split("\n")
        return
    draft = apply(rule_set, whole, found)
    found.tags = [tag for tag in found.tags or () if tag not in tags]
    lines = [shown(draft, example.before), *told_of_call(found)]
    assert "\n".join(lines) == example.after.strip("\n")


def test_file_with_cases(tmp_path: Path) -> None:
    (text,) = [text for _, language, info, text in blocks() if (language, info) == ("yaml", "file-with-cases")]
    (tmp_path / "my-trunk.yaml").write_text(text)
    results = run_rule_tests([tmp_path], mutate=True)
    assert (len(results.cases), results.failed, results.survivors) == (2, [], [])


def test_whole_file() -> None:
    (text,) = [text for _, language, info, text in blocks() if (language, info) == ("yaml", "file")]
    rule_set = load_text(text, "my-trunk.yaml")
    assert (rule_set.name, [rule.id for rule in rule_set.rules]) == ("my-trunk", ["drop-subject"])


def test_mistakes() -> None:
    (mistaken,) = [text for _, language, info, text in blocks() if (language, info) == ("yaml", "mistakes")]
    (told,) = [text for _, language, info, text in blocks() if (language, info) == ("text", "mistakes")]
    with pytest.raises(RuleFileError) as error:
        load_text(mistaken, "my-trunk.yaml")
    assert str(error.value) == told.strip()


def keys_of(node: Node) -> set[str]:
    """All keys of a tree."""
    found = {key.text for key, _ in node.pairs}
    for inner in [*node.items, *[value for _, value in node.pairs]]:
        found |= keys_of(inner)
    return found


def test_everything_has_an_example() -> None:
    used: set[str] = set()
    for example in EXAMPLES:
        root = parse_tree(example.rule.encode(), Report("rules.md"))
        assert root is not None
        used |= keys_of(root)
    known = {*WHEN_KEYS, *HEADER_TESTS, *SDP_FACTS, *ACTIONS, *SDP_OPERATIONS}
    assert known - used == set()
    assert {name for name in VARIABLES if f"{{{name}}}" not in TEXT} == set()


def test_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= anchors
    for path in re.findall(r"\]\((\.\./[^)#]*)\)", TEXT):
        assert (GUIDE.parent / path).exists(), path


def test_the_cookbook_has_the_ten_troubles() -> None:
    found = re.findall(r"^## (.*)$", COOKBOOK, re.MULTILINE)
    assert [int(heading.partition(".")[0]) for heading in found] == list(range(1, 11))
    assert {example.heading for example in examples(COOKBOOK)} == set(found)


def test_every_capability_of_hmr_has_its_example() -> None:
    table = HMR.partition("## What HMR can do")[2].partition("###")[0]
    named = [row.rstrip(" |").rpartition("| ")[2].strip("`") for row in table.splitlines() if row.startswith("| ")][1:]
    rules_shown = {
        name for example in examples(HMR) for name in re.findall(r"^- id: (.*)$", example.rule, re.MULTILINE)
    }
    assert len(named) > 15
    assert set(named) - rules_shown == set()


def test_rewritten_kamailio_is_valid() -> None:
    rows = [row.split(" | ") for row in HMR.partition("| you wrote | write |")[2].splitlines() if row.startswith("| `")]
    written = [part for row in rows for part in row[1].rstrip(" |").split(" / ")]
    for text in [part.strip("`") for part in written]:
        rule = f"- id: one\n  why: w\n  {text}\n"
        rules(
            rule + "  do: [{remove: X-A}]\n"
            if text.startswith("when")
            else f"- id: one\n  why: w\n  do:\n    - {text}\n"
        )
