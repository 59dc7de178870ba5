"""`trunkline demo-diagnose`: thousands of simulated calls with hidden causes of failure; does the report name them?

The calls run in simulated time (`proxy.rehearsal`): the real stack, rules and store, no sockets. What is read back is
the store's file, as `trunkline diagnose` reads it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from proxy.audit.records import Event
from proxy.commands.calls import print_report
from proxy.diagnosis.differences import Finding
from proxy.diagnosis.report import Report, diagnose, report_lines
from proxy.rehearsal import START, WALL_OFFSET, Causes, Rehearsal, RehearsalOptions
from proxy.rulefiles import load_directory_or_files
from proxy.settings.loading import shipped_rules
from proxy.storage.queries import StoreReader
from proxy.storage.sink import StoreSettings, StoreSink

__all__ = ["DemoOptions", "Judgement", "judge", "rehearse", "run_demo_diagnose"]

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

    A window is hit when each of its ends is within four minutes of the hidden one's, or is hidden where the report says
    that it may be, and the two overlap by more than half. Every other finding or change is false.
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
        return "address" if causes.broken_in is None or _is_near(finding, causes.broken_in) else ""
    if causes.window is not None and finding.kind == "time" and _is_near(finding, causes.window):
        return "window"
    return ""


def _is_near(finding: Finding, window: tuple[float, float]) -> bool:
    """Whether a finding names a window of time: more than half of both is common, and both ends are right."""
    if finding.since is None or finding.until is None or finding.began is None or finding.ended is None:
        return False
    first, last = (moment + START + WALL_OFFSET for moment in window)
    both = min(finding.until, last) - max(finding.since, first)
    either = max(finding.until, last) - min(finding.since, first)
    return (
        both > either / 2
        and min(finding.since - _EDGE_S, finding.began[0]) <= first <= max(finding.since + _EDGE_S, finding.began[1])
        and min(finding.until - _EDGE_S, finding.ended[0]) <= last <= max(finding.until + _EDGE_S, finding.ended[1])
    )


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to run.

    Attributes:
        calls: of each run. seeds: how many runs with and without causes. seed: of the first. jobs: runs at a time.
        out: where the store of the first seed is left.
        noise: the share of INVITEs that fails for no reason.
        header, refused, broken, slow: as those of `Causes`; without them what the seed draws.
        broken_for, window: the share of the time that the address is broken for, and that webhooks are slow in.
    """

    calls: int = 2000
    seeds: int = 1
    seed: int = 1
    jobs: int = 1
    out: Path = Path("demo-out")
    noise: float = 0.03
    header: str | None = None
    refused: float | None = None
    broken: float | None = None
    broken_for: float | None = None
    window: float | None = None
    slow: float | None = None

    def causes(self, seed: int, span_s: float) -> Causes:
        """What is hidden in the run of a seed."""
        source = random.Random(seed)
        drawn = Causes.draw(source, span_s)
        given: dict[str, Any] = {
            "header": self.header,
            "refused": self.refused,
            "broken": self.broken,
            "slow": self.slow,
        }
        causes = replace(drawn, **{name: value for name, value in given.items() if value is not None})
        if self.window is not None and causes.window is not None:
            start = min(causes.window[0], (1 - self.window) * span_s)
            causes = replace(causes, window=(start, start + self.window * span_s))
        if self.broken_for is not None:
            start = source.uniform(0.0, 1 - self.broken_for) * span_s
            causes = replace(causes, broken_in=(start, start + self.broken_for * span_s))
        return causes


@dataclass(frozen=True, slots=True)
class _Run:
    """What came of one seed."""

    seed: int
    causes: Causes
    found: Judgement
    clean: Judgement
    lines: tuple[str, ...]


def _run_seed(options: DemoOptions, seed: int) -> _Run:
    """Place the calls of one seed, with hidden causes and without."""
    plain = RehearsalOptions(calls=options.calls, seed=seed, noise=options.noise)
    causes = options.causes(seed, plain.span_s)
    with TemporaryDirectory(dir=options.out, prefix=f"seed-{seed}-") as directory:
        path = Path(directory) / "hidden-causes.db"
        report = rehearse(replace(plain, causes=causes), path)
        clean = rehearse(plain, Path(directory) / "no-causes.db")
        if seed == options.seed:
            for file in path.parent.glob(f"{path.name}*"):
                file.replace(options.out / file.name)
    return _Run(seed, causes, judge(report, causes), judge(clean, Causes()), tuple(report_lines(report)))


def _runs(options: DemoOptions) -> Iterator[_Run]:
    """All seeds, in order; several at a time where there are processors."""
    seeds = range(options.seed, options.seed + options.seeds)
    if options.jobs == 1 or options.seeds == 1:
        yield from (_run_seed(options, seed) for seed in seeds)
        return
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        yield from pool.map(_run_seed, repeat(options), seeds)


def run_demo_diagnose(options: DemoOptions) -> int:
    """Run, show the first report and the table of all seeds; the exit code is 1 for a missed or a false cause."""
    console = Console(highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    table = Table(title=f"{options.calls} calls each, with three hidden causes and without any", box=SIMPLE_HEAD)
    for name in ("seed", "header", "address", "slow webhooks", "false alarms", "without causes"):
        table.add_column(name, justify="right" if name in ("seed", "false alarms", "without causes") else "left")
    missed = alarms = 0
    started = time.monotonic()
    for run in _runs(options):
        if run.seed == options.seed:
            console.print(f"Seed {run.seed}, hidden: {_words(run.causes)}", style="bold", soft_wrap=True)
            print_report(("", *run.lines, ""))
        found, false = run.found, (*run.found.false, *run.clean.false)
        console.print(f"seed {run.seed}: {found.hits} of 3 causes named, {len(false)} false alarms")
        for sentence in false:
            console.print(f"[red]seed {run.seed}, false:[/red] {sentence}", soft_wrap=True)
        missed += 3 - found.hits
        alarms += len(false)
        marks = [_mark(found.header), _mark(found.address), _mark(found.window)]
        table.add_row(str(run.seed), *marks, str(len(found.false)), str(len(run.clean.false)))
    console.print(table)
    whole = 3 * options.seeds
    console.print(f"{whole - missed} of {whole} hidden causes were named; {alarms} false alarms.")
    store = options.out / "hidden-causes.db"
    console.print(f"The calls of seed {options.seed}: trunkline calls list --store {store}", soft_wrap=True)
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
    return 1 if missed or alarms else 0


def _mark(hit: bool) -> str:
    return "named" if hit else "[red]missed[/red]"


def _words(causes: Causes) -> str:
    """What is hidden, in a sentence."""
    share = f"{100 * causes.refused:.0f} % of INVITEs with `{causes.header}` refused"
    when = "" if causes.broken_in is None else f" {_times(causes.broken_in)}"
    broken = f"{causes.address} broken{when}" + ("" if causes.broken >= 1 else f" for {100 * causes.broken:.0f} %")
    slow = "" if causes.window is None else f"; webhooks slow {_times(causes.window)} for {100 * causes.slow:.0f} %"
    return f"{share}; {broken}{slow}"


def _times(window: tuple[float, float]) -> str:
    first, last = [datetime.fromtimestamp(moment + START + WALL_OFFSET, UTC).strftime("%H:%M") for moment in window]
    return f"from {first} to {last}"
