"""The failure report: causes, what differs, what changed, as values and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from proxy.diagnosis.causes import CAUSES
from proxy.diagnosis.changes import Change, changes
from proxy.diagnosis.differences import Finding, differences, first_attempts
from proxy.diagnosis.facts import AttemptFacts

__all__ = ["CauseCount", "Report", "StatisticsMissing", "diagnose", "report_lines"]

_SHOWN: Final = 3


class StatisticsMissing(Exception):
    """The statistics library is not installed."""

    def __init__(self) -> None:
        super().__init__("diagnosis needs SciPy: pip install 'trunkline[diagnose]'")


@dataclass(frozen=True, slots=True)
class CauseCount:
    """How many attempts failed for a cause, with the answers they got and some calls."""

    cause: str
    meaning: str
    attempts: int
    answers: tuple[tuple[str, int], ...]
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What `diagnose` found.

    Attributes:
        since, until: the time of the first and the last attempt, Unix seconds; None without any.
        calls: how many there were. answered: those of them that were, at last.
        attempts, failed: all attempts, and those that failed. first_failed: the calls whose first attempt failed.
        by_attempt: for each attempt number how many there were and how many failed.
    """

    since: float | None
    until: float | None
    calls: int
    answered: int
    attempts: int
    failed: int
    first_failed: int
    by_attempt: tuple[tuple[int, int, int], ...]
    causes: tuple[CauseCount, ...]
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, with the sentences."""
        values = asdict(self)
        for finding, value in zip(self.findings, values["findings"], strict=True):
            value["sentence"] = finding.sentence
        for change, value in zip(self.changes, values["changes"], strict=True):
            value["sentence"] = change.sentence
        return values


def diagnose(facts: Sequence[AttemptFacts]) -> Report:
    """Make the report of some attempts, which are in order of time. Raises StatisticsMissing without SciPy."""
    try:
        import scipy  # noqa: F401
    except ImportError:
        raise StatisticsMissing from None
    done = [fact for fact in facts if fact.outcome is not None and fact.hop == 0]
    bad = [fact for fact in facts if fact.outcome is not None and fact.cause != "answered"]
    failed = [fact for fact in bad if fact.hop == 0]
    outcomes = {fact.call: fact.call_outcome for fact in facts}
    totals, failures = Counter(fact.number for fact in done), Counter(fact.number for fact in failed)
    return Report(
        facts[0].time if facts else None,
        facts[-1].time if facts else None,
        len(outcomes),
        sum(outcome == "answered" for outcome in outcomes.values()),
        len(done),
        len(failed),
        failures[1],
        tuple([(number, totals[number], failures[number]) for number in sorted(totals)]),
        tuple(_causes(bad)),
        tuple(differences(first_attempts(facts))),
        tuple(changes(facts)),
    )


def _causes(bad: Sequence[AttemptFacts]) -> list[CauseCount]:
    by_cause: dict[str, list[AttemptFacts]] = {}
    for fact in bad:
        by_cause.setdefault(fact.cause or "unknown", []).append(fact)
    found: list[CauseCount] = []
    for cause, rows in sorted(by_cause.items(), key=lambda item: -len(item[1])):
        answers = Counter(f"{row.status} {row.reason or ''}".strip() if row.status else "no answer" for row in rows)
        calls = tuple(dict.fromkeys(row.call for row in rows))[:_SHOWN]
        found.append(CauseCount(cause, CAUSES.get(cause, ""), len(rows), tuple(answers.most_common(_SHOWN)), calls))
    return found


def report_lines(report: Report) -> list[str]:
    """The report as lines of text."""
    if not report.calls:
        return ["There are no calls in this time."]
    lines = [
        f"{report.calls} calls, {report.answered} answered; {report.attempts} attempts, {report.failed} failed.",
        f"The first attempt failed in {report.first_failed} calls.",
        "",
        "Causes of failed attempts",
    ]
    for cause in report.causes:
        answers = ", ".join([f"{answer} ({count})" for answer, count in cause.answers])
        lines.append(f"  {cause.attempts:>6}  {cause.cause}: {cause.meaning}")
        lines.append(f"          {answers}; for example {', '.join(cause.calls)}")
    if not report.causes:
        lines.append("  none failed")
    lines += ["", "What differs between failed and good first attempts"]
    if not report.findings:
        lines.append("  No difference found.")
    for number, finding in enumerate(report.findings, 1):
        lines.append(f"  {number}. {finding.sentence}.")
        answers = ", ".join([f"{answer} ({count})" for answer, count in finding.answers])
        causes = ", ".join([f"{cause} ({count})" for cause, count in finding.causes])
        ratio = "all failures are theirs" if finding.ratio is None else f"{finding.ratio:.1f} times as often"
        lines.append(f"     {ratio}; p = {finding.p:.1e} (corrected); answers: {answers}; causes: {causes}")
        if finding.exactness:
            lines.append(f"     {finding.exactness}")
        if finding.also:
            lines.append(f"     the same calls are those {'; '.join(finding.also)}")
        lines.append(f"     for example {', '.join(finding.calls)}")
    lines += ["", "What changed"]
    lines += [f"  {change.sentence}." for change in report.changes] or ["  No change found."]
    return lines
