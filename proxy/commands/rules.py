"""The commands `trunkline rules …`. Only typer is imported here; each command imports what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["rules_app"]

rules_app = typer.Typer(
    help="Test, explain, replay and format rules.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

BAD_SETTINGS = 2

Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[PATH]...", help="Rule files or directories. Default: the shipped ones."),
]
RuleFiles = Annotated[
    list[Path] | None,
    typer.Option("--rules", metavar="PATH", help="Rule file or directory beside the shipped ones. Repeatable."),
]


def _complain(problems: tuple[str, ...] | list[str]) -> None:
    for problem in problems:
        typer.echo(f"trunkline: {problem}", err=True)
    raise typer.Exit(BAD_SETTINGS)


@rules_app.command("test")
def run_tests(
    paths: Paths = None,
    mutate: Annotated[
        bool, typer.Option("--mutate", help="Also disable each rule in turn: some case must notice.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the results as JUnit XML.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the cases that pass, too.")] = False,
) -> None:
    """Run the cases that stand beside rules. Exit code 1 when one fails, 2 when a file has mistakes."""
    from proxy.commands.rule_cases import run_cases
    from proxy.settings import SettingsError

    try:
        good = run_cases(paths or [], mutate=mutate, junit=junit, verbose=verbose)
    except SettingsError as error:
        _complain(error.problems)
        return
    raise typer.Exit(0 if good else 1)


RuleSetName = Annotated[str, typer.Option("--rules", metavar="SET", help="A rule file, or the name of a shipped set.")]
Ours = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDRESS", help="Address of Trunkline in a packet capture; what it sent is left out."),
]


@rules_app.command("explain")
def explain(
    file: Annotated[str, typer.Argument(help="A SIP message, a packet capture, events (.jsonl), a call store, or -.")],
    rules: RuleSetName = "twilio-openai",
    direction: Annotated[
        str, typer.Option(metavar="a-to-b|b-to-a", help="Default: as the recording says; requests go a-to-b.")
    ] = "",
    attempt: Annotated[int, typer.Option(min=1, help="The number of the attempt.")] = 1,
    trunk: Annotated[str, typer.Option(help="The trunk that the call came from.")] = "",
    target: Annotated[str, typer.Option(help="The name of the target.")] = "",
    ours: Ours = None,
) -> None:
    """Show each message before and after the rules, which rule did what and why, and why the others did nothing."""
    from proxy.commands.rule_explain import explain_file
    from proxy.settings import SettingsError

    if direction not in ("", "a-to-b", "b-to-a"):
        _complain([f"--direction {direction}: allowed are a-to-b and b-to-a"])
    facts: dict[str, object] = {"trunk": trunk, "target": target}
    facts.update(
        {name: value for name, value in (("direction", direction), ("attempt", attempt)) if value not in ("", 1)}
    )
    try:
        good = explain_file(file, rules, facts, ours or [])
    except SettingsError as error:
        _complain(error.problems)
        return
    raise typer.Exit(0 if good else 1)


@rules_app.command("replay")
def replay(
    file: Annotated[str, typer.Argument(metavar="PCAP|EVENTS|CALLSTORE", help="Recorded traffic.")],
    rules: Annotated[str, typer.Option("--rules", metavar="NEW", help="The rules that might be used: file or set.")],
    against: Annotated[
        str, typer.Option("--against", metavar="OLD", help="The rules to compare with: file or set.")
    ] = "twilio-openai",
    ours: Ours = None,
    examples: Annotated[int, typer.Option(min=0, max=1000, help="How many differences to show.")] = 5,
) -> None:
    """Put recorded messages through two rule sets, and show what would come out differently."""
    from proxy.commands.rule_replay import replay_file
    from proxy.settings import SettingsError

    try:
        replay_file(file, rules, against, facts={}, ours=ours or [], examples=examples)
    except SettingsError as error:
        _complain(error.problems)


@rules_app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of rule files, for editors."""
    import json

    from proxy.rewrite.compiler import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@rules_app.command("fmt")
def format_files(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Rule files.")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 when a file would change.")
    ] = False,
) -> None:
    """Write rule files the one way: order of keys, indentation, empty lines. Comments stay."""
    from proxy.rulefiles import RuleFileError
    from proxy.ruleformat import format_rules

    changed = 0
    for path in paths:
        try:
            before = path.read_text(encoding="utf-8")
            after = format_rules(before, str(path))
        except RuleFileError as error:
            _complain([str(problem) for problem in error.problems])
            return
        except (OSError, UnicodeDecodeError) as error:
            _complain([f"{path}: can't be read: {error}"])
            return
        if after != before:
            changed += 1
            typer.echo(f"{path}: {'would be' if check else ''}{' ' if check else ''}formatted")
            if not check:
                path.write_text(after, encoding="utf-8")
    raise typer.Exit(1 if check and changed else 0)
