"""Cases beside rules: those of the shipped sets hold and are needed, and a case that fails says why."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from proxy.cli import app
from proxy.ruletests import junit_xml, run_rule_tests
from proxy.settings import shipped_rules

HEAD = "version: 1\nname: mine\nrules:\n"


def file_of(tmp_path: Path, rules: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD + indent(dedent(rules).strip("\n"), "  ") + "\n")
    return path


def failures(tmp_path: Path, rules: str) -> list[str]:
    """The failures of all cases."""
    return [failure for case in run_rule_tests([file_of(tmp_path, rules)]).cases for failure in case.failures]


def one_case(tmp_path: Path, case: str, do: str = "remove: X-A") -> list[str]:
    text = f"- id: one\n  why: w\n  do: [{{{do}}}]\n  cases:\n    - in: |\n        X-A: 1\n        X-B: 2\n"
    return failures(tmp_path, text + indent(dedent(case).strip("\n"), "      "))


def test_every_shipped_rule_is_tested_and_needed() -> None:
    results = run_rule_tests([shipped_rules()], mutate=True)
    assert [(case.rule, case.name, case.failures) for case in results.failed] == []
    assert results.without == []
    assert results.survivors == []
    assert len(results.cases) >= results.rules > 30


@pytest.mark.parametrize(
    "case",
    [
        "out: 'X-B: 2'",
        "expect: {header: {name: X-A, absent: true}}",
        "expect: [{header: {name: X-A, absent: true}}, {method: INVITE, not: {header: {name: X-C, present: true}}}]",
    ],
)
def test_case_that_holds(tmp_path: Path, case: str) -> None:
    assert one_case(tmp_path, case) == []


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("out: 'X-B: 3'", "--- expected\n+++ found\n@@ -1 +1 @@\n-X-B: 3\n+X-B: 2"),
        ("unchanged: true", "changed, though it should not be:\nrule:mine/one: - X-A: 1"),
        ("expect: {header: {name: X-A, present: true}}", "does not hold: header: {name: X-A, present: true}"),
        ("expect: {method: BYE}", "does not hold: method: BYE"),
        ("expect: {has-sdp: true}", "does not hold: has-sdp: true"),
        ("rejected: {status: 403}", "not refused"),
        ("dropped: true", "not dropped"),
        ("tags: vip", "tags: expected vip; found none"),
        ("route: eu", "route: expected eu; found none"),
        ("notes: hello", "notes: expected hello; found none"),
        ("codecs: PCMU", "codecs: expected PCMU; found none"),
    ],
)
def test_case_that_fails(tmp_path: Path, case: str, told: str) -> None:
    assert one_case(tmp_path, case) == [told]


def test_refusals(tmp_path: Path) -> None:
    reject = "reject: {status: 403, reason: No}"
    assert one_case(tmp_path, "rejected: {status: 403, reason: 'No'}", reject) == []
    assert one_case(tmp_path, "rejected: {status: 4xx}", reject) == []
    assert one_case(tmp_path, "rejected: {status: 488}", reject) == ["refused otherwise: 403 No by rule:mine/one"]
    assert one_case(tmp_path, "dropped: true", reject) == ["not dropped, but refused: 403 No by rule:mine/one"]
    assert one_case(tmp_path, "out: x", reject) == ["refused with 403 No by rule:mine/one"]
    assert one_case(tmp_path, "dropped: true", "drop: true") == []


def test_call_decisions(tmp_path: Path) -> None:
    rules = """
    - id: one
      why: w
      do:
        - route: eu
        - tag: ["vip", "t-{header.X-A}"]
        - note: "a call of {header.X-A}"
      cases:
        - in: |
            X-A: 1
          with: {tags: [old]}
          tags: [old, vip, t-1]
          route: eu
          notes: a call of 1
    """
    assert failures(tmp_path, rules) == []


def test_alone_or_with_the_set(tmp_path: Path) -> None:
    rules = """
    - id: one
      why: w
      do: [{rename: {from: X-A, to: X-B}}]
      cases:
        - in: |
            X-A: 1
          out: |
            X-C: 1
        - alone: true
          in: |
            X-A: 1
          out: |
            X-B: 1
    - id: two
      why: w
      do: [{rename: {from: X-B, to: X-C}}]
    """
    results = run_rule_tests([file_of(tmp_path, rules)], mutate=True)
    assert results.failed == []
    assert [step for step, _, _ in results.without] == ["rule:mine/two"]
    assert results.survivors == []


def test_rule_that_no_case_misses(tmp_path: Path) -> None:
    rules = """
    - id: one
      why: w
      do: [{remove: X-A}]
      cases: [{in: "X-B: 1", unchanged: true}]
    """
    path = file_of(tmp_path, rules)
    assert run_rule_tests([path], mutate=True).survivors == [("rule:mine/one", str(path), 4)]


def test_command(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["rules", "test"]).exit_code == 0
    path = file_of(tmp_path, "- {id: one, why: w, do: [{remove: X-A}], cases: [{in: 'X-A: 1', unchanged: true}]}")
    report = tmp_path / "report.xml"
    result = run(app, ["rules", "test", str(path), "--junit", str(report)])
    assert result.exit_code == 1
    assert "FAIL mine/one: case 1" in result.output
    assert f"{path}:4" in result.output
    assert "1 cases of 1 rules: 0 passed; 1 failed" in result.output
    suite = ElementTree.parse(report).getroot()[0]  # noqa: S314
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    path.write_text("nonsense")
    result = run(app, ["rules", "test", str(path)])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_junit_holds_any_text(tmp_path: Path) -> None:
    rules = '- {id: one, why: w, do: [{set: {header: X-A, value: "1"}}], cases: [{in: "X-A: \\u0001\\u00e9", out: x}]}'
    xml = junit_xml(run_rule_tests([file_of(tmp_path, rules)]))
    assert ElementTree.fromstring(xml)[0].get("failures") == "1"  # noqa: S314


def test_mistakes_in_cases(tmp_path: Path) -> None:
    rules = """
    - id: one
      why: w
      do: [{remove: X-A}]
      cases:
        - {in: "X-A: 1"}
        - {in: "INVITE x SIP/2.0 SIP/2.0", unchanged: true}
        - {in: "X-A: 1", expct: {method: INVITE}, with: {atempt: 1}}
    """
    path = file_of(tmp_path, rules)
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 2
    assert [line.partition("mine.yaml:")[2].partition(";")[0] for line in result.stderr.splitlines()] == [
        "8:9: a mapping expects nothing",
        '9:14: "INVITE x SIP/2.0 SIP/2.0" is no message: Malformed request line',
        '10:24: "expct" is not a key of a case',
        '10:56: "atempt" is not a fact of a case',
    ]
