"""The commands that read the call store. Only typer is imported here; what they do is in modules of their own."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

__all__ = ["add_evidence_commands"]

_BAD = 2
_HERE = Path()

StoreFile = Annotated[
    Path | None,
    typer.Option("--store", metavar="FILE", help="The call store. Default: the one that `trunkline run` would use."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file with settings.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From when on: 30m, 24h, 7d, or 2026-11-23T14:00.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Until when, as --since.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Ident = Annotated[
    str, typer.Argument(metavar="CALL", help="Id of the call (its beginning), Call-ID, CallSid, or phone number.")
]


class Form(StrEnum):
    """What `calls export` writes."""

    PCAP = "pcap"
    SIP = "sip"
    MERMAID = "mermaid"
    JSON = "json"


class Outcome(StrEnum):
    """What `calls list` may be asked for."""

    ANSWERED = "answered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    OPEN = "open"


def _fail(text: str) -> NoReturn:
    typer.echo(f"trunkline: {text}", err=True)
    raise typer.Exit(_BAD)


calls_app = typer.Typer(help="Calls in the store: list, show, draw, compare, export.", no_args_is_help=True)
experiment_app = typer.Typer(help="Experiments with rules.", no_args_is_help=True)


@calls_app.command("list")
def list_calls(
    text: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Our id, a Call-ID of either leg, or X-Twilio-CallSid.")
    ] = None,
    number: Annotated[
        str | None, typer.Option("--number", help="A whole phone number, of the caller or the one called.")
    ] = None,
    outcome: Annotated[
        Outcome | None, typer.Option("--outcome", help="What became of it; open: it is in progress.")
    ] = None,
    status: Annotated[int | None, typer.Option("--status", help="Final status that the caller got.")] = None,
    cause: Annotated[str | None, typer.Option("--cause", help="Cause of the failure, e.g. target-slow.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Name of the target.")] = None,
    rules: Annotated[str | None, typer.Option("--rules", help="Name of the rule set.")] = None,
    rule: Annotated[str | None, typer.Option("--rule", help="<set>/<rule> that changed something.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="A tag of the call.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Address that the call came from.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many, newest first.")] = 50,
    as_json: Json = False,
    store: StoreFile = None,
    config: ConfigFile = None,
) -> None:
    """List calls, the newest first."""
    from proxy.commands.calls import CallsError, open_store, print_list, when
    from proxy.storage.queries import CallFilter

    try:
        wanted = CallFilter(
            since=when(since),
            until=when(until),
            number=number,
            text=text,
            outcome=None if outcome is None else outcome.value,
            status=status,
            cause=cause,
            target=target,
            rules=rules,
            rule=rule,
            tag=tag,
            source=source,
        )
        with open_store(store, config) as reader:
            print_list(reader, wanted, limit, as_json=as_json)
    except CallsError as error:
        _fail(str(error))


@calls_app.command()
def show(call: Ident, as_json: Json = False, store: StoreFile = None, config: ConfigFile = None) -> None:
    """Show one call: outcome, times, attempts with their causes."""
    from proxy.commands.calls import CallsError, open_store, print_call

    try:
        with open_store(store, config) as reader:
            print_call(reader, call, as_json=as_json)
    except CallsError as error:
        _fail(str(error))


@calls_app.command()
def ladder(
    call: Ident,
    changes: Annotated[bool, typer.Option("--changes", help="Show what rules changed under each message.")] = False,
    store: StoreFile = None,
    config: ConfigFile = None,
) -> None:
    """Draw one call: both legs on one axis of time, with retries."""
    from proxy.commands.calls import CallsError, open_store, print_ladder

    try:
        with open_store(store, config) as reader:
            print_ladder(reader, call, changes=changes)
    except CallsError as error:
        _fail(str(error))


@calls_app.command()
def diff(
    call: Ident,
    attempt: Annotated[int | None, typer.Option("--attempt", help="Only this attempt.")] = None,
    store: StoreFile = None,
    config: ConfigFile = None,
) -> None:
    """Show how the INVITE of each attempt differs from the caller's, line by line, with who changed it."""
    from proxy.commands.calls import CallsError, open_store, print_diff

    try:
        with open_store(store, config) as reader:
            print_diff(reader, call, attempt)
    except CallsError as error:
        _fail(str(error))


@calls_app.command()
def export(
    calls: Annotated[list[str], typer.Argument(metavar="CALL...", help="Calls, as for `show`.")],
    form: Annotated[Form, typer.Option("--format", "-f", help="What to write.")] = Form.PCAP,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to. Default: standard output.")
    ] = None,
    store: StoreFile = None,
    config: ConfigFile = None,
) -> None:
    """Export calls: a capture for Wireshark and sngrep (TLS legs readable), SIP text, Mermaid, or JSON."""
    from proxy.commands.calls import CallsError, export_calls, open_store

    try:
        with open_store(store, config) as reader:
            export_calls(reader, calls, form.value, out)
    except CallsError as error:
        _fail(str(error))


def diagnose(
    since: Since = "24h",
    until: Until = None,
    as_json: Json = False,
    store: StoreFile = None,
    config: ConfigFile = None,
) -> None:
    """Report why calls fail: causes, what differs between failed and good calls, what changed when."""
    from proxy.commands.calls import CallsError, open_store, when
    from proxy.commands.diagnose import print_diagnosis

    try:
        with open_store(store, config) as reader:
            print_diagnosis(reader, when(since), when(until), as_json=as_json)
    except CallsError as error:
        _fail(str(error))


def bundle(
    calls: Annotated[list[str], typer.Argument(metavar="CALL...", help="Calls, as for `calls show`.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to. Default: standard output.")
    ] = None,
    store: StoreFile = None,
    config: ConfigFile = None,
) -> None:
    """Write the evidence of calls for Twilio's or OpenAI's support, in Markdown; always masked."""
    from proxy.commands.bundle import write_bundle
    from proxy.commands.calls import CallsError, open_store

    try:
        with open_store(store, config) as reader:
            write_bundle(reader, calls, out)
    except CallsError as error:
        _fail(str(error))


@experiment_app.command("report")
def experiment_report(
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
    store: StoreFile = None,
    config: ConfigFile = None,
) -> None:
    """Compare the arms of experiments (tags `experiment:NAME=ARM`, and rule sets), and say when to stop."""
    from proxy.commands.calls import CallsError, open_store, when
    from proxy.commands.experiment import print_experiments

    try:
        with open_store(store, config) as reader:
            print_experiments(reader, when(since), when(until), as_json=as_json)
    except CallsError as error:
        _fail(str(error))


def demo_diagnose(
    calls: Annotated[int, typer.Option(min=200, max=100_000, help="Calls to place in each run.")] = 2000,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many runs, each with causes of its own.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the first run.")] = 1,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time. Default: as many as processors.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIRECTORY", help="Where the store is written.")] = _HERE / "demo-out",
    noise: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of INVITEs that fail for no reason.")] = 0.03,
    header: Annotated[str | None, typer.Option(metavar="NAME", help="The header field. Default: drawn.")] = None,
    refused: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of INVITEs with it that are refused. [default: 2/3]")
    ] = None,
    broken: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of INVITEs that the address fails. [default: 1]")
    ] = None,
    broken_for: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="Share of the time that it is broken. [default: 1]")
    ] = None,
    window: Annotated[
        float | None, typer.Option(min=0.01, max=0.9, help="Share of the time with slow webhooks. [default: 1/7]")
    ] = None,
    slow: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of webhooks that are slow then. [default: 5/6]")
    ] = None,
) -> None:
    """Place simulated calls with three hidden causes of failure, and see whether the diagnosis names them.

    The causes are a header field that INVITEs are refused for, a broken address of the target, and a window of time
    with slow webhooks. Each seed is run without causes too. Exit code 1 for a cause that was not named, or something
    that was named and is none.
    """
    from proxy.commands.demo_diagnose import DemoOptions, run_demo_diagnose

    jobs = jobs or len(os.sched_getaffinity(0))
    options = DemoOptions(
        calls, seeds, seed, jobs, out, noise, header, refused, broken, broken_for, window, slow
    )  # fmt: skip
    raise typer.Exit(run_demo_diagnose(options))


def add_evidence_commands(app: typer.Typer) -> None:
    """Add `calls`, `diagnose`, `bundle`, `experiment` and `demo-diagnose`."""
    app.add_typer(calls_app, name="calls")
    app.command()(diagnose)
    app.command()(bundle)
    app.add_typer(experiment_app, name="experiment")
    app.command("demo-diagnose")(demo_diagnose)
