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


@rules_app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of rule files, for editors."""
    import json

    from proxy.rewrite.compiler import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
