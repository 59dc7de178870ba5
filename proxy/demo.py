"""`trunkline demo`: the same calls to the same failing target, straight and through Trunkline, and what came of them.

All on loopback with real TLS. The two neighbours are the simulators; Trunkline is a process of its own, started by its
public flags. What is counted comes from the two ends: the caller's report, and the target's record of every INVITE.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from proxy.b2bua.config import RetryPolicy
from proxy.ladder import Event, call_ladder, calls_in, change_lines, read_events
from proxy.sim.certificates import Certificate, NoCertificate, make_certificate
from proxy.sim.faults import Faults
from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.records import CallRecord
from proxy.sim.report import Percentiles, Report
from proxy.sim.twilio import TwilioConfig, place_calls

__all__ = ["DemoOptions", "Leg", "judge", "run_demo"]

_RATE: Final = 25.0
_HOLD_MS: Final = 200.0
_ANSWER_MS: Final = 50.0
_START_S: Final = 60.0
_STOP_S: Final = 10.0
_PROJECT: Final = "proj_demo"


class DemoError(Exception):
    """The demo could not be carried out."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to place: `calls` each way, shares from 0 to 1, and the directory for logs and certificates."""

    calls: int
    failure_rate: float
    problem_rate: float
    seed: int
    out: Path


@dataclass(slots=True)
class Leg:
    """One way of placing the calls: what the caller saw, and the target's record of each INVITE."""

    report: Report
    records: list[CallRecord]
    target: dict[str, Any] = field(default_factory=dict)

    def attempts(self) -> dict[str, list[CallRecord]]:
        """The target's records by the caller's call."""
        found: dict[str, list[CallRecord]] = {}
        for record in self.records:
            found.setdefault(record.key, []).append(record)
        return found


def run_demo(options: DemoOptions) -> int:
    """Run the demo, show it, and return the exit code."""
    console = Console(highlight=False)
    started = time.monotonic()
    try:
        _make_room(options.out)
        straight, through = uvloop.run(_place(options, console))
    except (DemoError, NoCertificate, OSError) as error:
        console.print(f"[red]The demo could not be carried out:[/red] {escape(str(error))}")
        return 1
    policy = RetryPolicy()
    problems = judge(through, policy)
    calls = calls_in(read_events(options.out / "events.jsonl"))
    console.print(_result_table(options, straight, through))
    lost = through.report.calls - through.report.answered
    if lost and not problems:
        calls_were = "1 call was" if lost == 1 else f"{lost} calls were"
        console.print(f"{calls_were} refused at all {policy.max_attempts} attempts: no retry could save it.")
    _show_call(console, calls, through)
    console.print(f"\nEvery message and change of these calls: {options.out / 'events.jsonl'}", soft_wrap=True)
    store = options.out / "calls.db"
    console.print(f"The same to search and draw: trunkline calls list --store {store}", soft_wrap=True)
    console.print(f"What `trunkline run` wrote to stdout: {options.out / 'trunkline.log'}", soft_wrap=True)
    console.print(f"Done in {time.monotonic() - started:.1f} s.")
    for problem in problems:
        console.print(f"[red]failed:[/red] {problem}", soft_wrap=True)
    if not problems:
        verdict = "Every call that a retry could save was answered, and none was answered twice."
        console.print(f"[green]{verdict}[/green]", soft_wrap=True)
    return 1 if problems else 0


def judge(through: Leg, policy: RetryPolicy) -> list[str]:
    """What went wrong on the way through Trunkline, by the target's own record; nothing is taken from Trunkline's log.

    A call that was not answered is forgiven only when the target refused as many attempts as the policy has.
    """
    problems: list[str] = []
    attempts = through.attempts()
    for result in through.report.results:
        made = attempts.get(result.call_sid, [])
        used_up = len(made) >= policy.max_attempts and all(record.status in policy.statuses for record in made)
        if result.kind != "answered" and not used_up:
            problems.append(f"{result.call_sid} was not answered ({result.outcome}) after {len(made)} attempts")
    for name, text in (
        ("answered_twice", "was answered twice at the target"),
        ("unacked", "was answered at the target and never acknowledged"),
        ("left_alive", "was left alive at the target"),
    ):
        problems += [f"{key} {text}" for key in through.target[name]]
    problems += [f"the caller saw {what} ({count} times)" for what, count in through.report.unexpected.items()]
    if through.report.answers_incomplete:
        problems.append(f"{through.report.answers_incomplete} answers did not fit the caller's offer")
    return problems


def _make_room(out: Path) -> None:
    """Take away what an earlier run left behind, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("events.jsonl", "trunkline.log"):
        (out / name).unlink(missing_ok=True)
    for path in out.glob("calls.db*"):
        path.unlink()
    shutil.rmtree(out / "tls", ignore_errors=True)


def _faults(options: DemoOptions) -> Faults:
    """Half of the failing INVITEs get 400, a third 400 for the SDP, a sixth 503; and the target is picky besides.

    The target draws one fault after the other, so that each share is one of what the earlier ones let pass.
    """
    rate = options.failure_rate
    bad_request, invalid_sdp, unavailable = rate / 2, rate / 3, rate / 6
    return Faults(
        seed=options.seed,
        bad_request=bad_request,
        invalid_sdp=invalid_sdp / (1 - bad_request),
        unavailable=unavailable / (1 - bad_request - invalid_sdp),
        retry_after_s=1,
    ).strict()


async def _place(options: DemoOptions, console: Console) -> tuple[Leg, Leg]:
    """Place the calls both ways."""
    certificate = make_certificate(options.out / "tls", ("localhost", "127.0.0.1"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        first = bars.add_task("straight to the target  ", total=options.calls)
        second = bars.add_task("through Trunkline       ", total=options.calls, start=False)
        async with _target(options, certificate) as target:
            uri = f"sip:{_PROJECT}@localhost:{target.listeners[0].port};transport=tls"
            straight = await _call(options, certificate, target, uri, _mover(bars, first))
        async with _target(options, certificate) as target:
            bars.start_task(second)
            trunkline = await _start_trunkline(options, certificate, target.listeners[0].port)
            try:
                uri = f"sip:localhost:{await _port(options.out, trunkline)};transport=tls"
                through = await _call(options, certificate, target, uri, _mover(bars, second))
            finally:
                await _stop_trunkline(trunkline)
    return straight, through


def _target(options: DemoOptions, certificate: Certificate) -> OpenAiSim:
    return OpenAiSim(
        OpenAiConfig(
            listen=("tls:127.0.0.1:0",),
            certificate=certificate.certificate,
            key=certificate.key,
            answer_after_ms=_ANSWER_MS,
            faults=_faults(options),
        )
    )


def _mover(bars: Progress, task: Any) -> Callable[[Any], None]:
    def move(progress: Any) -> None:
        bars.update(task, completed=progress.answered + progress.cancelled + progress.failed)

    return move


async def _call(
    options: DemoOptions, certificate: Certificate, target: OpenAiSim, uri: str, move: Callable[[Any], None]
) -> Leg:
    config = TwilioConfig(
        target=uri,
        calls=options.calls,
        rate=_RATE,
        hold_ms=_HOLD_MS,
        problem_share=options.problem_rate,
        seed=options.seed,
        ca_file=str(certificate.ca_file),
    )
    report = await place_calls(config, move)
    await _settle(target)
    return Leg(report, list(target.records), target.report())


async def _settle(target: OpenAiSim) -> None:
    """Let the last BYEs cross; whoever is alive after that was forgotten."""
    for _ in range(100):
        if not target.calls_in_progress:
            return
        await asyncio.sleep(0.05)


async def _start_trunkline(
    options: DemoOptions, certificate: Certificate, target_port: int
) -> asyncio.subprocess.Process:
    """Start `trunkline run` with its public flags; settings in the environment are none of the demo's."""
    command = [
        *(sys.executable, "-m", "proxy", "run"),
        *("--workers", "1", "--listen", "tls:127.0.0.1:0"),
        *("--target", f"sip:{_PROJECT}@localhost:{target_port};transport=tls"),
        *("--allow", "127.0.0.0/8"),
        *("--tls-certificate", str(certificate.certificate)),
        *("--tls-key", str(certificate.key)),
        *("--tls-ca", str(certificate.ca_file)),
        *("--events", str(options.out / "events.jsonl")),
        *("--store", str(options.out / "calls.db")),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    with (options.out / "trunkline.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=environment)


async def _port(out: Path, trunkline: asyncio.subprocess.Process) -> int:
    """The port that Trunkline took, from the first lines of its log. Raises DemoError when it does not start."""
    log = out / "trunkline.log"
    deadline = time.monotonic() + _START_S
    while trunkline.returncode is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if '"event":"started"' in line:
                return int(json.loads(line)["listeners"][0].rpartition(":")[2])
        await asyncio.sleep(0.02)
    raise DemoError(f"trunkline run did not start; see {log}")


async def _stop_trunkline(trunkline: asyncio.subprocess.Process) -> None:
    """SIGTERM, and wait for it to have written everything."""
    if trunkline.returncode is None:
        trunkline.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(trunkline.wait(), _STOP_S)
        except TimeoutError:
            trunkline.kill()
            await trunkline.wait()


def _result_table(options: DemoOptions, straight: Leg, through: Leg) -> Table:
    title = (
        f"\n{options.calls} calls each way. The target refuses {options.failure_rate:.0%} of INVITEs at random (seed "
        f"{options.seed}); {options.problem_rate:.0%} of the callers' INVITEs have problem headers or SDP."
    )
    table = Table(title=title, title_justify="left", title_style="")
    for name in ("", "straight", "through Trunkline"):
        table.add_column(name, justify="right" if name else "left")
    legs = (straight, through)
    table.add_row("[bold]answered", *(f"[bold]{leg.report.answered} of {leg.report.calls}" for leg in legs))
    failures = [_failures(leg.report) for leg in legs]
    for outcome in sorted({*failures[0], *failures[1]}):
        table.add_row(f"failed: {outcome}", *(_count(count[outcome]) for count in failures))
    table.add_section()
    table.add_row("INVITEs that the target got", *(str(len(leg.records)) for leg in legs))
    answered_at = [Counter(record.attempt + 1 for record in leg.records if record.answered) for leg in legs]
    for number in sorted({*answered_at[0], *answered_at[1]}):
        table.add_row(f"answered at attempt {number}", *(_count(count[number]) for count in answered_at))
    table.add_row("answered twice", *(_count(len(leg.target["answered_twice"])) for leg in legs))
    table.add_row("answers without Content-Type", *(_count(leg.report.answers_without_content_type) for leg in legs))
    table.add_section()
    times = [leg.report.setup_ms for leg in legs]
    table.add_row("set-up time p50 / p95", *(f"{time.p50:.0f} / {time.p95:.0f} ms" for time in times))
    added = _added_ms(straight.report, through.report)
    table.add_row("added where no retry was needed p50 / p95", "", f"{added.p50:.1f} / {added.p95:.1f} ms")
    return table


def _count(number: int) -> str:
    return str(number) if number else "-"


def _failures(report: Report) -> Counter[str]:
    return Counter(result.outcome for result in report.results if result.kind != "answered")


def _added_ms(straight: Report, through: Report) -> Percentiles:
    """By how much Trunkline lengthened set-up, call by call, for those that were answered both ways.

    The target draws its faults by call and attempt, so these are the calls that were answered at the first attempt.
    """
    before = {result.call_sid: result.setup_ms for result in straight.results if result.kind == "answered"}
    both = (result for result in through.results if result.kind == "answered" and result.call_sid in before)
    return Percentiles.of(max(result.setup_ms - before[result.call_sid], 0.0) for result in both)


def _show_call(console: Console, calls: dict[str, list[Event]], through: Leg) -> None:
    """One call that was saved by a retry, best one whose INVITE had a problem: its ladder, and what was changed."""
    problems = {result.call_sid for result in through.report.results if result.problem}

    def rank(events: list[Event]) -> tuple[bool, bool, int]:
        end = next((event for event in events if event["event"] == "call-end"), {})
        tries = len(end.get("attempts", ()))
        return tries > 1 and end.get("outcome") == "answered", end.get("twilio_call_sid") in problems, -abs(tries - 3)

    events = max(calls.values(), key=rank, default=None)
    if not events:
        return
    console.rule(f"one call, from the log: {events[0]['call']}")
    for line in call_ladder(events):
        console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    made = [event for event in events if event.get("changes")]
    for title, message in (
        ("What was changed in the INVITE of attempt 1", next((item for item in made if item["leg"] == "b"), None)),
        ("What was changed in the answer to the caller", next((item for item in made if item["leg"] == "a"), None)),
    ):
        if message is not None:
            console.print(f"\n[bold underline]{title}[/bold underline]")
            for line in change_lines(message):
                console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
