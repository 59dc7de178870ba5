"""`trunkline demo-diagnose`: thousands of simulated calls with hidden causes of failure; does the report name them?

The calls run in simulated time (`proxy.rehearsal`): the real stack, rules and store, no sockets. What is read back is
the store's file, as `trunkline diagnose` reads it.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from proxy.audit.records import Event
from proxy.diagnosis.differences import Finding
from proxy.diagnosis.report import Report, diagnose, report_lines
from proxy.rehearsal import START, WALL_OFFSET, Causes, Rehearsal, RehearsalOptions
from proxy.rulefiles import load_directory_or_files
from proxy.settings.loading import shipped_rules
from proxy.storage.queries import StoreReader
from proxy.storage.sink import StoreSettings, StoreSink

__all__ = ["Judgement", "judge", "rehearse", "run_demo_diagnose"]

_RULES: Final = "twilio-openai"
_WAITING: Final = 2000
_EDGE_S: Final = 240.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which hidden causes were named, and what was named that is none."""

    header: bool
    address: bool
    window: bool
    false: tuple[str, ...]

    @property
    def hits(self) -> int:
        """How many of the three causes were named."""
        return self.header + self.address + self.window


class _PatientSink:
    """Simulated calls come much faster than real ones: wait for the store now and then, so that it drops nothing."""

    def __init__(self, store: StoreSink) -> None:
        self._store = store
        self._count = 0

    def emit(self, event: Event) -> None:
        """Hand on an event."""
        self._store.emit(event)
        self._count += 1
        if self._count % _WAITING == 0:
            self._store.flush(60.0)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def rehearse(options: RehearsalOptions, path: Path) -> Report:
    """Place the calls, store them at `path` (an older file there is removed), and diagnose what the store holds."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    store = StoreSink(StoreSettings(path), wall_offset=WALL_OFFSET)
    rules = load_directory_or_files([shipped_rules()])
    Rehearsal(options, rules, _RULES, [_PatientSink(store)]).run()
    store.flush(60.0)
    store.close()
    with StoreReader(path) as reader:
        return diagnose(list(reader.facts()))


def judge(report: Report, causes: Causes) -> Judgement:
    """Compare the report with what was hidden.

    A window is hit when its ends are within four minutes of the hidden one's. Every other finding or change is false.
    """
    named = {"header": False, "address": False, "window": False}
    false: list[str] = [change.sentence for change in report.changes]
    for finding in report.findings:
        hit = _hit(finding, causes)
        if hit:
            named[hit] = True
        else:
            false.append(finding.sentence)
    return Judgement(named["header"], named["address"], named["window"], tuple(false))


def _hit(finding: Finding, causes: Causes) -> str:
    """Which hidden cause a finding names, or ""."""
    if causes.header and finding.name == f"header:{causes.header.lower()}":
        return "header"
    if causes.address and finding.kind == "address" and f":{causes.address}:" in finding.name:
        return "address"
    if causes.window is not None and finding.kind == "time" and finding.since and finding.until:
        ends = (finding.since - WALL_OFFSET - START, finding.until - WALL_OFFSET - START)
        if all(abs(end - hidden) <= _EDGE_S for end, hidden in zip(ends, causes.window, strict=True)):
            return "window"
    return ""


def run_demo_diagnose(calls: int, seeds: int, first_seed: int, out: Path) -> int:
    """Run, show the first report and the table of all seeds; the exit code is 1 for a missed or a false cause."""
    console = Console(highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    table = Table(title=f"{calls} calls each, with three hidden causes and without any")
    for name in ("seed", "header", "address", "window of slow webhooks", "false alarms", "false alarms without causes"):
        table.add_column(name, justify="left" if name == "header" else "right")
    missed = alarms = 0
    started = time.monotonic()
    for seed in range(first_seed, first_seed + seeds):
        options = RehearsalOptions(calls=calls, seed=seed)
        causes = Causes.draw(random.Random(seed), options.span_s)
        report = rehearse(RehearsalOptions(calls=calls, seed=seed, causes=causes), out / "hidden-causes.db")
        found = judge(report, causes)
        clean = judge(rehearse(options, out / "no-causes.db"), Causes())
        if seed == first_seed:
            console.rule(f"seed {seed}: hidden are {_words(causes)}")
            for line in report_lines(report):
                console.print(line, soft_wrap=True)
        console.print(
            f"seed {seed}: {found.hits} of 3 causes named, {len(found.false) + len(clean.false)} false alarms"
        )
        for sentence in (*found.false, *clean.false):
            console.print(f"[red]seed {seed}, false:[/red] {sentence}", soft_wrap=True)
        missed += 3 - found.hits
        alarms += len(found.false) + len(clean.false)
        marks = [_mark(found.header, causes.header), _mark(found.address, causes.address), _mark(found.window, "")]
        table.add_row(str(seed), *marks, str(len(found.false)), str(len(clean.false)))
    console.print(table)
    console.print(f"{3 * seeds - missed} of {3 * seeds} hidden causes were named; {alarms} false alarms.")
    console.print(
        f"The calls of the last seed: trunkline calls list --store {out / 'hidden-causes.db'}", soft_wrap=True
    )
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
    return 1 if missed or alarms else 0


def _mark(hit: bool, name: str) -> str:
    return f"{'named' if hit else '[red]missed[/red]'}{f' ({name})' if name else ''}"


def _words(causes: Causes) -> str:
    minutes = [int(moment // 60) for moment in causes.window or ()]
    return f"{causes.header}, {causes.address}, and slow webhooks from minute {minutes[0]} to {minutes[1]}"
