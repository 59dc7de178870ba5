"""`trunkline rules test`: the cases that stand beside rules, with readable differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from proxy.rulefiles import RuleFileError
from proxy.ruletests import CaseResult, Results, junit_xml, run_rule_tests
from proxy.settings import SettingsError, shipped_rules

__all__ = ["run_cases"]


def run_cases(paths: Sequence[Path], *, mutate: bool = False, junit: Path | None = None, verbose: bool = False) -> bool:
    """Run the cases and show them; whether all is well. Raises SettingsError with the mistakes of the files."""
    try:
        results = run_rule_tests(paths or [shipped_rules()], mutate)
    except RuleFileError as error:
        raise SettingsError([str(problem) for problem in error.problems]) from None
    if junit is not None:
        junit.write_text(junit_xml(results), encoding="utf-8")
    console = Console(highlight=False, soft_wrap=True)
    for case in results.cases:
        if case.failures or verbose:
            _show(console, case)
    _show_rules(console, "has no case", results.without, "yellow")
    _show_rules(console, "is missed by no case when it is disabled", results.survivors, "red")
    good = not results.failed and not results.survivors
    console.print(Text(_summary(results, mutate), style="green" if good else "red"))
    return good


def _show(console: Console, case: CaseResult) -> None:
    mark, style = ("FAIL", "bold red") if case.failures else ("ok", "green")
    console.print(Text.assemble((f"{mark:4} ", style), f"{case.rule.removeprefix('rule:')}: {case.name}"))
    if not case.failures:
        return
    console.print(Text(f"     {case.file}:{case.line}", style="dim"))
    for failure in case.failures:
        for line in failure.split("\n"):
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
            console.print(Text(f"     {line}", style=colour))


def _show_rules(console: Console, what: str, rules: Iterable[tuple[str, str, int]], style: str) -> None:
    for step, file, line in rules:
        console.print(Text(f"{file}:{line}: {step.removeprefix('rule:')} {what}", style=style))


def _summary(results: Results, mutate: bool) -> str:
    failed = len(results.failed)
    parts = [f"{len(results.cases)} cases of {results.rules} rules: {len(results.cases) - failed} passed"]
    if failed:
        parts.append(f"{failed} failed")
    if results.without:
        parts.append(f"{len(results.without)} rules without a case")
    if mutate:
        killed = results.rules - len(results.survivors)
        parts.append(f"mutation check: {killed} of {results.rules} disabled rules were noticed")
    return "; ".join(parts)
