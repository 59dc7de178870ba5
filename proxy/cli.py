"""The command line: `trunkline run | check | calls | diagnose | demo | ping | sim | version`.

Only typer is imported here; each command imports what it needs, so that `trunkline --help` is quick.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from proxy import __version__
from proxy.commands.evidence import add_evidence_commands
from proxy.commands.rules import rules_app
from proxy.sim.commands import add_sim_commands

__all__ = ["app", "main"]

BAD_SETTINGS = 2
_HERE = Path()

app = typer.Typer(
    name="trunkline",
    help="A SIP back-to-back user agent between Twilio SIP trunks and the OpenAI Realtime SIP endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and with them keys and numbers
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file with settings.")]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        "--listen", metavar="TRANSPORT:ADDRESS:PORT", help="Where to listen, e.g. udp:0.0.0.0:5060. Repeatable."
    ),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="[NAME=]URI", help="Where calls go; the first one is the default. Repeatable."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="RANGE", help="Who may call: address, range, twilio or openai. Repeatable."),
]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rules", metavar="FILE", help="Rule file; the first one is the default set. Repeatable."),
]
PublicAddress = Annotated[
    str | None, typer.Option("--public-address", metavar="ADDRESS", help="Address that peers reach this host at.")
]
ProjectId = Annotated[
    str | None, typer.Option("--project-id", metavar="ID", help="OpenAI project (proj_…) that calls go to.")
]
Certificate = Annotated[
    Path | None, typer.Option("--tls-certificate", metavar="FILE", help="PEM certificate chain for tls listeners.")
]
Key = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="PEM private key of the certificate.")]
CaFile = Annotated[
    Path | None, typer.Option("--tls-ca", metavar="FILE", help="PEM authorities that targets are verified by.")
]
Events = Annotated[
    Path | None, typer.Option("--events", metavar="FILE", help="File that gets every event as JSON lines.")
]
Store = Annotated[
    Path | None, typer.Option("--store", metavar="FILE", help="The call store. Default: see store.path in the docs.")
]
NoStore = Annotated[bool, typer.Option("--no-store", help="Keep no record of calls.")]
Admin = Annotated[
    str | None,
    typer.Option("--admin", metavar="[ADDRESS:]PORT", help="Serve dashboard, metrics and health there."),
]
Level = Annotated[LogLevel | None, typer.Option("--log-level", help="What the log on stdout holds. Default: info.")]

Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes that share the listeners. Default: one for each core.")
]


def settings_flags(**given: Any) -> dict[str, Any]:
    """The flags that were given, nested like the settings; `tls__key` stands for `tls.key`."""
    flags: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        group, _, inner = name.rpartition("__")
        (flags.setdefault(group, {}) if group else flags)[inner] = value
    return flags


def fail(problems: tuple[str, ...] | list[str]) -> NoReturn:
    """Say what is wrong, one line each, and leave with the exit code for unusable settings."""
    for problem in problems:
        typer.echo(f"trunkline: {problem}", err=True)
    raise typer.Exit(BAD_SETTINGS)


@app.command()
def run(
    config: Config = None,
    listen: Listen = None,
    target: TargetOption = None,
    allow: Allow = None,
    rules: Rules = None,
    public_address: PublicAddress = None,
    project_id: ProjectId = None,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    tls_ca: CaFile = None,
    events: Events = None,
    admin: Admin = None,
    store: Store = None,
    no_store: NoStore = False,
    log_level: Level = None,
    workers: Workers = None,
) -> None:
    """Take calls and pass them on.

    Flags go over environment (TRUNKLINE_LISTEN, TRUNKLINE_RETRY__MAX_ATTEMPTS …), and environment over the YAML file.
    """
    from proxy.commands.run import run_proxy
    from proxy.settings import SettingsError

    flags = settings_flags(
        config=config,
        listen=listen,
        targets=target,
        allow=allow,
        rules=rules,
        public_address=public_address,
        openai_project_id=project_id,
        tls__certificate=tls_certificate,
        tls__key=tls_key,
        tls__ca_file=tls_ca,
        events_file=events,
        admin__listen=admin,
        store__path=store,
        store__enabled=False if no_store else None,
        log_level=log_level and log_level.value,
        workers=workers,
    )
    try:
        run_proxy(flags)
    except SettingsError as error:
        fail(error.problems)


@app.command()
def check(
    rule_files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RULES]...", help="Rule files to check in place of the configured ones."),
    ] = None,
    config: Config = None,
    listen: Listen = None,
    target: TargetOption = None,
    allow: Allow = None,
    rules: Rules = None,
    public_address: PublicAddress = None,
    project_id: ProjectId = None,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    tls_ca: CaFile = None,
    events: Events = None,
    admin: Admin = None,
    store: Store = None,
    no_store: NoStore = False,
    log_level: Level = None,
    workers: Workers = None,
) -> None:
    """Check settings and rules, and show what `run` would use. With RULES only these files are checked.

    Exit code 2 with every mistake: where it is, what is wrong, what is allowed.
    """
    from proxy.commands.check import check_rule_files, check_settings
    from proxy.settings import SettingsError

    try:
        if rule_files:
            check_rule_files(rule_files)
            return
        check_settings(
            settings_flags(
                config=config,
                listen=listen,
                targets=target,
                allow=allow,
                rules=rules,
                public_address=public_address,
                openai_project_id=project_id,
                tls__certificate=tls_certificate,
                tls__key=tls_key,
                tls__ca_file=tls_ca,
                events_file=events,
                admin__listen=admin,
                store__path=store,
                store__enabled=False if no_store else None,
                log_level=log_level and log_level.value,
                workers=workers,
            )
        )
    except SettingsError as error:
        fail(error.problems)


@app.command()
def demo(
    calls: Annotated[int, typer.Option(min=1, max=2000, help="Calls to place each way.")] = 100,
    failure_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of INVITEs that the target refuses.")
    ] = 0.3,
    problem_rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of INVITEs with problem headers.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the random choices.")] = 1,
    out: Annotated[Path, typer.Option(metavar="DIRECTORY", help="Where the JSON logs are written.")] = _HERE
    / "demo-out",
) -> None:
    """Place calls to a failing target, straight and through Trunkline, and compare. All on loopback, with real TLS.

    Exit code 1 if a call that a retry could save was not answered, or if the target answered a call twice.
    """
    from proxy.demo import DemoOptions, run_demo

    raise typer.Exit(run_demo(DemoOptions(calls, failure_rate, problem_rate, seed, out)))


@app.command()
def ping(
    uri: Annotated[str, typer.Argument(help="SIP URI, e.g. sip:127.0.0.1:5060 or 'sip:example.com;transport=tcp'.")],
    timeout: Annotated[
        float, typer.Option(min=0.1, max=60.0, help="How long to wait for the answer, in seconds.")
    ] = 2.0,
    tls_ca: CaFile = None,
) -> None:
    """Send OPTIONS and wait for the answer: exit code 0 for a 2xx, 1 for anything else."""
    from proxy.commands.ping import PingError, send_options

    try:
        answer = send_options(uri, timeout, tls_ca)
    except PingError as error:
        typer.echo(f"trunkline: {uri}: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(str(answer), err=not answer.alive)
    raise typer.Exit(0 if answer.alive else 1)


@app.command()
def version() -> None:
    """Show the version."""
    typer.echo(f"trunkline {__version__}")


@app.command()
def lint(
    file: Annotated[str, typer.Argument(help="A SIP message, a packet capture, events (.jsonl), a call store, or -.")],
) -> None:
    """Say what is wrong with messages by the RFCs, and which known trouble they would cause.

    Exit code 1 when a message breaks a rule of an RFC, 2 when the file can't be read.
    """
    from proxy.commands.lint import lint_file
    from proxy.settings import SettingsError

    try:
        good = lint_file(file)
    except SettingsError as error:
        fail(error.problems)
    raise typer.Exit(0 if good else 1)


add_sim_commands(app)
add_evidence_commands(app)
app.add_typer(rules_app, name="rules")


def main() -> None:
    """Entry point of the `trunkline` command."""
    app()
