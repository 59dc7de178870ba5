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

__all__ = ["place_twilio", "serve_openai", "write_report"]

_STATUS_INTERVAL_S: Final = 0.5
_LISTED: Final = 10


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
    """Place calls with a progress bar on stderr. SIGINT stops placing, and waits for the calls in progress."""
    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=config.calls)
        sim = TwilioSim(config, lambda progress: _advance(bar, task, progress))
        loop = asyncio.get_running_loop()

        def stop() -> None:
            sim.stop_placing()
            loop.remove_signal_handler(signal.SIGINT)

        loop.add_signal_handler(signal.SIGINT, stop)
        with _steady_memory():
            return await sim.run()


def write_report(report: Mapping[str, Any], file: Path | None, *, as_json: bool, title: str) -> None:
    """Write a report as JSON to a file, and as JSON or as a table to stdout. Raises OSError."""
    data = orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if file is not None:
        file.write_bytes(data)
    if as_json:
        sys.stdout.write(data.decode())
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
    text = f"{progress.in_progress} in progress, {progress.answered} answered, {progress.failed} failed"
    bar.update(task, completed=over, total=progress.calls, description=text)


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
