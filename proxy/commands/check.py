"""`trunkline check`: settings and rules, checked and shown as `run` would use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.b2bua.config import Route, StackConfig
from proxy.commands.prepare import prepare
from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import RuleFileError, load_file, rule_files
from proxy.rulesets import choose_rule_set
from proxy.settings import Settings, SettingsError

__all__ = ["check_rule_files", "check_settings"]


def check_rule_files(paths: Sequence[str]) -> None:
    """Check rule files alone and list the sets in them. Raises SettingsError with every mistake."""
    sets: list[RuleSet] = []
    problems: list[str] = []
    for path in paths:
        files, wrong = rule_files(Path(path))
        problems += [str(problem) for problem in wrong]
        for file in files:
            try:
                load_file(file)
                sets.append(choose_rule_set(str(file)))
            except RuleFileError as error:
                problems += [str(problem) for problem in error.problems]
            except SettingsError as error:
                problems += error.problems
    if problems:
        raise SettingsError(list(dict.fromkeys(problems)))
    console = Console(highlight=False)
    console.print(_rules_table(sets, default=None))
    _show_warnings(console, sets)


def check_settings(flags: Mapping[str, Any]) -> None:
    """Check everything and show it. Raises SettingsError with every mistake."""
    prepared = prepare(flags)
    console = Console(highlight=False)
    console.print(_settings_table(prepared.settings, prepared.config))
    console.print(_attempts_table(prepared.config))
    console.print(_rules_table(prepared.rules.values(), prepared.default_rules))
    _show_warnings(console, prepared.rules.values())
    for line in prepared.settings.notes():
        console.print(f"[yellow]note:[/yellow] {line}", soft_wrap=True)


def _show_warnings(console: Console, sets: Iterable[RuleSet]) -> None:
    """What is doubtful in rules: those that are never reached, captures and variables that nobody uses."""
    for rule_set in sets:
        for warning in rule_set.warnings:
            console.print(Text(str(warning), style="yellow"), soft_wrap=True)


def _plain_table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))


def _settings_table(settings: Settings, config: StackConfig) -> Table:
    table = _plain_table("Settings")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    retry = config.retry
    on = sorted(map(str, retry.statuses))
    on += [
        name for name, active in (("transport", retry.on_transport_failure), ("timeout", retry.on_timeout)) if active
    ]
    rows = {
        "file": str(settings.config or "none"),
        "listen": ", ".join(map(str, settings.listeners())),
        "public address": config.public_address,
        "targets": "\n".join(f"{target.name}: {target.uri}" for target in config.targets.values()),
        "allow": f"{', '.join(settings.allow)} ({len(config.allow)} ranges)" if settings.allow else "nobody",
        **_optional_rows(settings, config),
        "others get": "403 Forbidden" if config.refuse_strangers else "no answer",
        "codecs": ", ".join(config.codecs),
        "crypto": ", ".join(config.crypto_suites),
        "retry": f"on {', '.join(on)}; {retry.max_attempts} attempts in {retry.deadline_s:g} s",
        "certificate": str(settings.tls.certificate or "none"),
        "authorities": str(settings.tls.ca_file or "those of the system"),
        "calls at most": str(config.max_calls),
        "log": f"{settings.log_level} on stdout" + (f", all to {settings.events_file}" if settings.events_file else ""),
        "masked": ", ".join(_masked(settings)) or "nothing",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _optional_rows(settings: Settings, config: StackConfig) -> dict[str, str]:
    """What is shown only where it is set."""
    rows: dict[str, str] = {}
    if config.trunks:
        trunks = (f"{name}: {', '.join(trunk.allow)} {trunk.listener}" for name, trunk in settings.trunks.items())
        rows["trunks"] = "\n".join(text.rstrip() for text in trunks)
    if config.routes:
        rows["routes"] = "\n".join(_route_text(route) for route in config.routes)
    if config.users:
        rows["users"] = f"{', '.join(config.users)} (realm {config.realm})"
    return rows


def _route_text(route: Route) -> str:
    header = f"{route.header}: {route.header_value}" if route.header else ""
    conditions = (("trunk", route.trunk), ("dialed", route.dialed), ("header", header))
    given = ", ".join(f"{name} {value}" for name, value in conditions if value) or "every call"
    return f"{given} -> {', '.join(route.targets)}" + (f" with rules {route.rules}" if route.rules else "")


def _masked(settings: Settings) -> list[str]:
    redaction = settings.redaction
    shown = (("phone numbers", redaction.mask_numbers), ("keys and credentials", redaction.mask_secrets))
    return [name for name, masked in shown if masked]


def _attempts_table(config: StackConfig) -> Table:
    table = Table(title="\nAttempts", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("attempt", "rules", "target"):
        table.add_column(column)
    preferred = next(iter(config.targets)) if len(config.targets) == 1 else "the preferred one that is up"
    if config.routes:
        preferred = "by its route"
    plans = config.retry.attempts
    for number in range(1, config.retry.max_attempts + 1):
        plan = plans[min(number, len(plans)) - 1]
        table.add_row(str(number), plan.rules or config.default_rules, plan.target or preferred)
    return table


def _rules_table(sets: Iterable[RuleSet], default: str | None) -> Table:
    table = Table(title="\nRule sets", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("set", "rules", "version", "file"):
        table.add_column(column, overflow="fold")
    for item in sets:
        name = f"{item.name} (default)" if item.name == default else item.name
        table.add_row(name, str(len(item.rules)), item.version, item.source)
    return table
