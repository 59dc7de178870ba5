"""Running the cases of rules: results, mutation check, JUnit report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from proxy.rewrite.cases import run_case
from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import load_directory_or_files
from proxy.settings import shipped_rules

__all__ = ["CaseResult", "Results", "junit_xml", "run_rule_tests"]

_WORTH_PROCESSES: Final = 20_000
"""Runs of cases above which processes of their own cost less than they save: a case takes about 0.2 ms."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How a case came out.

    Attributes:
        rule: the step of its rule, `rule:<set>/<id>`.
        name: its name, or its number among the cases of the rule.
        file, line: where it stands.
        failures: what is wrong, each a few lines; empty when all is well.
        seconds: how long it took.
    """

    rule: str
    name: str
    file: str
    line: int
    failures: tuple[str, ...]
    seconds: float


@dataclass(slots=True)
class Results:
    """How the cases of some rule sets came out.

    Attributes:
        cases: each case.
        without: the enabled rules that have no case, as (step, file, line).
        survivors: the enabled rules that no case misses when they are disabled; only after a mutation check.
        rules: how many enabled rules there are.
    """

    cases: list[CaseResult] = field(default_factory=list)
    without: list[tuple[str, str, int]] = field(default_factory=list)
    survivors: list[tuple[str, str, int]] = field(default_factory=list)
    rules: int = 0

    @property
    def failed(self) -> list[CaseResult]:
        """The cases that failed."""
        return [case for case in self.cases if case.failures]

    def add(self, other: Results) -> None:
        """Take over the results of other sets."""
        self.cases += other.cases
        self.without += other.without
        self.survivors += other.survivors
        self.rules += other.rules


def run_rule_tests(paths: Sequence[Path], mutate: bool = False) -> Results:
    """Run all cases of the rule files and directories. `mutate`: also disable each rule in turn, which some case of the
    same set must notice. Raises RuleFileError."""
    sets = load_directory_or_files(paths, [shipped_rules()])
    runs = sum([len(one.rules) * _cases_of(one) if mutate else _cases_of(one) for one in sets.values()])
    results = Results()
    if runs < _WORTH_PROCESSES or len(sets) < 2:
        for rule_set in sets.values():
            results.add(_run_set(rule_set, mutate))
        return results
    with ProcessPoolExecutor() as pool:
        for part in pool.map(_run_named, [(paths, name, mutate) for name in sets]):
            results.add(part)
    return results


def _cases_of(rule_set: RuleSet) -> int:
    return sum([len(rule.cases) for rule in rule_set.rules])


def _run_named(job: tuple[Sequence[Path], str, bool]) -> Results:
    """One set in a process of its own: compiled rules can't travel, so they are read again there."""
    paths, name, mutate = job
    return _run_set(load_directory_or_files(paths, [shipped_rules()])[name], mutate)


def _run_set(rule_set: RuleSet, mutate: bool) -> Results:
    results = Results(rules=len(rule_set.rules))
    for rule in rule_set.rules:
        for number, case in enumerate(rule.cases, 1):
            began = time.perf_counter()
            failures = tuple(run_case(rule_set, rule, case))
            took = time.perf_counter() - began
            name = case.name or f"case {number}"
            results.cases.append(CaseResult(rule.step, name, rule_set.source, case.line, failures, took))
        if not rule.cases:
            results.without.append((rule.step, rule_set.source, rule.line))
    if mutate:
        for rule in rule_set.rules:
            # Its own cases first: one of them should be the one that misses it.
            others = [other for other in rule_set.rules if other is not rule]
            if not any(
                run_case(rule_set, owner, case, disabled=rule) for owner in (rule, *others) for case in owner.cases
            ):
                results.survivors.append((rule.step, rule_set.source, rule.line))
    return results


def junit_xml(results: Results) -> str:
    """The results as JUnit XML, which build servers read."""
    suites = ElementTree.Element("testsuites")
    for file in dict.fromkeys([case.file for case in results.cases]):
        cases = [case for case in results.cases if case.file == file]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=file,
            tests=str(len(cases)),
            failures=str(len([case for case in cases if case.failures])),
            time=f"{sum([case.seconds for case in cases]):.6f}",
        )
        for case in cases:
            element = ElementTree.SubElement(
                suite, "testcase", classname=case.rule, name=case.name, file=file, line=str(case.line)
            )
            element.set("time", f"{case.seconds:.6f}")
            for failure in case.failures:
                told = ElementTree.SubElement(element, "failure", message=_printable(failure.partition("\n")[0]))
                told.text = _printable(failure)
    for title, found in (("without a case", results.without), ("not missed when disabled", results.survivors)):
        _rule_failures(suites, title, found)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _rule_failures(suites: ElementTree.Element, title: str, found: Iterable[tuple[str, str, int]]) -> None:
    for step, file, line in found:
        suite = ElementTree.SubElement(suites, "testsuite", name=f"{file}: {title}", tests="1", failures="1")
        element = ElementTree.SubElement(suite, "testcase", classname=step, name=title, file=file, line=str(line))
        ElementTree.SubElement(element, "failure", message=title)


def _printable(text: str) -> str:
    """Text that XML can hold."""
    return "".join([char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text])
