"""`trunkline rules replay`: what would change for recorded traffic if other rules were used."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import unified_diff
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.recordings import RecordingError, read_recording
from proxy.replay import Difference, Replay, replay_messages
from proxy.rulesets import choose_rule_set
from proxy.settings import SettingsError

__all__ = ["replay_file"]


def replay_file(
    path: str, new: str, old: str, *, facts: dict[str, Any], ours: Sequence[str] = (), examples: int = 5
) -> None:
    """Replay a recording and show the differences. Raises SettingsError."""
    before, after = choose_rule_set(old), choose_rule_set(new)
    try:
        result = replay_messages(read_recording(path), before, after, facts=facts, ours=ours, examples=examples)
    except RecordingError as error:
        raise SettingsError([str(error)]) from None
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(_summary(result), style="bold"))
    if result.changed:
        kinds = ", ".join([f"{count} {kind}" for kind, count in result.kinds.most_common()])
        console.print(f"what comes out differently: {kinds}")
        console.print(f"refused by the new rules alone: {result.refused_now}; by the old ones: {result.passed_now}")
    console.print(_rules(result, before.name, after.name))
    for example in result.examples:
        _show(console, example)


def _summary(result: Replay) -> str:
    unreadable = f" ({result.unreadable} could not be read)" if result.unreadable else ""
    return f"{result.messages} messages{unreadable}: {result.changed} come out differently"


def _rules(result: Replay, old: str, new: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rule")
    table.add_column(f"old ({old})", justify="right")
    table.add_column(f"new ({new})", justify="right")
    for step in sorted({*result.old_rules, *result.new_rules}):
        before, after = result.old_rules[step], result.new_rules[step]
        style = "" if before == after else "yellow"
        table.add_row(Text(step.removeprefix("rule:"), style=style), str(before), str(after))
    return table


def _show(console: Console, example: Difference) -> None:
    console.print(Text(f"\n{example.place + ': ' if example.place else ''}{example.start_line}", style="bold"))
    for line in unified_diff(example.old, example.new, "old rules", "new rules", lineterm="", n=1):
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        console.print(Text("".join([char if char.isprintable() else repr(char)[1:-1] for char in line]), style=style))
