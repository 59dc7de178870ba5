"""What the simulators' commands do once their settings are known: run, show progress, report."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.report import Progress, Report
from proxy.sim.twilio import TwilioConfig, TwilioSim

__all__ = ["place_twilio", "serve_openai", "show_placed", "write_report"]

_STATUS_INTERVAL_S: Final = 0.5
_LISTED: Final = 10
_LISTED_LIVE: Final = 3
_LINE_INTERVAL_S: Final = 5.0
_SILENCE_S: Final = 2.0
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


async def serve_openai(config: OpenAiConfig, duration_s: float | None) -> dict[str, Any]:
    """Answer calls until SIGINT, SIGTERM or the time is over, and return the report.

    Where it listens is printed to stderr, one line a listener, then `ready`. Raises OSError for an address in use.
    """
    console = Console(stderr=True, highlight=False)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with OpenAiSim(config) as sim:
        for listen in sim.listeners:
            console.print(f"listening on {listen}", soft_wrap=True)
        if sim.ca_file is not None:
            console.print(f"certificate authority: {sim.ca_file}", soft_wrap=True)
        if sim.http_url:
            console.print(f"HTTP API: {sim.http_url}", soft_wrap=True)
        console.print("ready")
        show = asyncio.create_task(_show_calls(sim, console)) if console.is_terminal else None
        try:
            with _steady_memory():
                async with asyncio.timeout(duration_s):
                    await stop.wait()
        except TimeoutError:
            pass
        finally:
            if show is not None:
                show.cancel()
                await asyncio.gather(show, return_exceptions=True)
        return sim.report()


async def place_twilio(config: TwilioConfig) -> Report:
    """Place calls, and show on stderr how far they are: a bar on a terminal, else a line every few seconds.

    The first SIGINT or SIGTERM ends the calls in progress and places no more; the second one ends the run at once.
    """
    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=config.calls)
        lines = _ProgressLines(console)
        sim = TwilioSim(config, (lambda at: _advance(bar, task, at)) if console.is_terminal else lines.show)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            console.print("stopping: calls in progress are ended; once more to stop at once")
            for number in _STOPPING:
                loop.add_signal_handler(number, sim.give_up)
            sim.hang_up()

        for number in _STOPPING:
            loop.add_signal_handler(number, stop)
        with _steady_memory():
            return await sim.run()


class _ProgressLines:
    """Progress for logs: a line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = _LINE_INTERVAL_S

    def show(self, progress: Progress) -> None:
        """Print a line, if it is time for one."""
        if progress.elapsed_s >= self._next_s:
            self._next_s = progress.elapsed_s + _LINE_INTERVAL_S
            text = f"{progress.elapsed_s:.0f} s: {progress.placed} of {progress.calls} placed, {_counts(progress)}"
            self._console.print(text, soft_wrap=True)


def show_placed(report: Report) -> None:
    """Print what became of the calls to stdout."""
    console = Console(highlight=False)
    console.print(f"{report.calls} calls in {report.duration_s:.1f} s, {report.rate:g} calls a second")
    table = Table(show_edge=False, pad_edge=False)
    for head in ("", "calls", "p50 ms", "p95 ms", "p99 ms", "longest ms"):
        table.add_column(head, justify="right" if head else "left")
    for name, times in (("INVITE to ringing", report.ringing_ms), ("INVITE to answer", report.setup_ms)):
        marks = (times.p50, times.p95, times.p99, times.max)
        table.add_row(name, str(times.count), *(f"{mark:.1f}" if times.count else "-" for mark in marks))
    console.print(table)
    for title, counts in (
        ("outcomes", report.outcomes),
        *((f"with {problem}", outcomes) for problem, outcomes in sorted(report.problems.items())),
        ("unexpected", report.unexpected),
        ("answers that do not fit", report.incomplete_because),
    ):
        if counts:
            text = ", ".join(f"{count} {name}" for name, count in counts.most_common(_LISTED))
            console.print(f"{title}: {text}", soft_wrap=True)
    again = report.traffic.get("retransmissions_sent", 0), report.traffic.get("retransmissions_received", 0)
    if any(again):
        console.print(f"sent again: {again[0]} of our messages, {again[1]} of theirs")
    for text, good in report.verdicts():
        console.print(text, style="green" if good else "bold red", soft_wrap=True)


def write_report(report: Mapping[str, Any], file: Path | None, *, as_json: bool, title: str = "") -> None:
    """Write a report as JSON to a file, and as JSON, or with a title as a table, to stdout. Raises OSError."""
    data = orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if file is not None:
        file.write_bytes(data)
    if as_json:
        sys.stdout.write(data.decode())
        return
    if not title:
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in _flat(report):
        table.add_row(name, value)
    Console(highlight=False).print(table)


@contextmanager
def _steady_memory() -> Iterator[None]:
    """Spare the calls the pauses of the garbage collector: its rounds are rare, and leave out what was there."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def _advance(bar: Bar, task: TaskID, progress: Progress) -> None:
    over = progress.answered + progress.cancelled + progress.failed
    bar.update(task, completed=over, total=progress.calls, description=_counts(progress))


def _counts(progress: Progress) -> str:
    """The live counts in words, with what failed calls ended with."""
    text = f"{progress.in_progress} in progress ({progress.talking} talking), {progress.answered} answered and over"
    if progress.cancelled:
        text += f", {progress.cancelled} cancelled"
    text += f", {progress.failed} failed"
    if progress.failures:
        text += f" ({', '.join(f'{count} {name}' for name, count in progress.failures[:_LISTED_LIVE])})"
    if not progress.heard and progress.elapsed_s > _SILENCE_S:
        text += ", nothing has come back yet"
    return text


async def _show_calls(sim: OpenAiSim, console: Console) -> None:
    with console.status("") as status:
        while True:
            status.update(f"{sim.invites} INVITEs, {sim.calls_in_progress} calls in progress")
            await asyncio.sleep(_STATUS_INTERVAL_S)


def _flat(report: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Rows of a nested report: `outcomes / 200 OK`. Empty parts are left out, long lists are cut."""
    for key, value in report.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} / ")
        elif isinstance(value, list):
            if value:
                listed = [str(item) for item in value[:_LISTED]]
                more = f" and {len(value) - _LISTED} more" if len(value) > _LISTED else ""
                yield name, "\n".join(listed) + more
        else:
            yield name, str(value)
