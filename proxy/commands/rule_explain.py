"""`trunkline rules explain`: a message before and after rules, and a word on each rule."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.recordings import Recorded, RecordingError, from_text, read_recording
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import RuleSet
from proxy.rewrite.explain import Trace, trace
from proxy.rewrite.snippet import example_context
from proxy.rewrite.snippet import message as complete
from proxy.rulesets import Directions, choose_rule_set
from proxy.settings import SettingsError
from proxy.sip.message import Message, Response
from proxy.sip.parser import MalformedMessage, parse_message

__all__ = ["explain_file"]

_IDLE: Final = ("skipped", "disabled", "not reached")


def explain_file(path: str, rules: str, facts: dict[str, Any], ours: Sequence[str] = ()) -> bool:
    """Explain each message of a recording; whether all could be read. Raises SettingsError."""
    rule_set = choose_rule_set(rules)
    console = Console(highlight=False, soft_wrap=True)
    directions = Directions(ours)
    good, count = True, 0
    try:
        for recorded in read_recording(path):
            count += 1
            try:
                whole = _message(recorded)
            except MalformedMessage as error:
                console.print(Text(f"{recorded.place or path}: no SIP message: {error.reason}", style="red"))
                good = False
                continue
            direction = facts.get("direction") or directions.of(recorded, whole)
            if direction is not None:
                told = {**_facts_of(recorded), **facts, "direction": direction}
                console.print(explanation(rule_set, whole, told, recorded.place))
    except RecordingError as error:
        raise SettingsError([str(error)]) from None
    if not count:
        raise SettingsError([f"{path}: holds no SIP message that can be read (what goes over TLS can't)"])
    return good


def _message(recorded: Recorded) -> Message:
    """The message; a few header lines without start line are completed as in the cases of rules."""
    line = recorded.data.lstrip().partition(b"\n")[0].rstrip()
    if not (line.startswith(b"SIP/2.0 ") or line.endswith(b" SIP/2.0")):
        return complete(recorded.data.decode("utf-8", "surrogateescape").replace("\r\n", "\n"))
    return parse_message(recorded.data if recorded.place else from_text(recorded.data))


def _facts_of(recorded: Recorded) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if recorded.sender:
        facts["source"] = recorded.sender.rpartition(":")[0]
    if recorded.transport:
        facts["transport"] = recorded.transport
    if recorded.attempt:
        facts["attempt"] = recorded.attempt
    if recorded.call:
        facts["call_id"] = recorded.call
    return facts


def explanation(rule_set: RuleSet, whole: Message, facts: dict[str, Any], place: str = "") -> RenderableType:
    """All that is told of one message."""
    draft = Draft(whole)
    context = example_context(isinstance(whole, Response), tags=[], **facts)
    traces = trace(rule_set, draft, context)
    title = f"{place + ': ' if place else ''}{whole.start_line}   ({context.direction}, rules {rule_set.name})"
    parts: list[RenderableType] = [Text(title, style="bold"), _side_by_side(whole, draft), Text()]
    parts += [part for one in traces for part in _fired(one)]
    skipped = [one for one in traces if one.state in _IDLE or (one.state == "fired" and not one.changes)]
    if skipped:
        parts.append(Text("Rules that did nothing", style="bold"))
        parts += [_skipped(one) for one in skipped]
    if context.tags:
        parts.append(Text(f"Tags: {', '.join(context.tags)}"))
    parts += [Text(f"Note of {step.removeprefix('rule:')}: {text}") for step, text in context.notes or ()]
    return Group(*parts, Text())


def _lines(head: list[str], body: bytes) -> list[str]:
    text = body.decode("utf-8", "backslashreplace").replace("\r\n", "\n").rstrip("\n")
    lines = [line.replace("\r\n", "\n") for line in head]
    return [*lines, *(["", *text.split("\n")] if text else [])]


def _side_by_side(whole: Message, draft: Draft) -> Table:
    """The message in and out; what goes is red, what comes green."""
    before = _lines([whole.start_line, *[item.line for item in whole.headers]], whole.body)
    after = _lines([draft.start_line, *[item.line for item in draft.headers]], draft.body)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column("in", ratio=1, overflow="fold")
    table.add_column("out", ratio=1, overflow="fold")
    for old, new in _aligned(before, after):
        same = old == new
        table.add_row(
            Text(_printable(old or ""), style="" if same else "red"),
            Text(_printable(new or ""), style="" if same else "green"),
        )
    return table


def _aligned(before: list[str], after: list[str]) -> list[tuple[str | None, str | None]]:
    rows: list[tuple[str | None, str | None]] = []
    for kind, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            rows += [(line, line) for line in before[i:j]]
        else:
            for at in range(max(j - i, m - k)):
                rows.append((before[i + at] if i + at < j else None, after[k + at] if k + at < m else None))
    return rows


def _fired(one: Trace) -> list[Text]:
    """A rule that fired and did something to the message, or to the call."""
    if one.state not in ("fired", "stopped", "refused") or (one.state == "fired" and not one.changes):
        return []
    rule = one.rule
    name = rule.step.removeprefix("rule:")
    lines = [Text.assemble((name, "bold cyan"), (f"  {one.rule_set.source}:{rule.line}", "dim"))]
    lines.append(Text(f"  {rule.why}", style="italic"))
    for change in one.changes:
        for sign, text, style in (("-", change.before, "red"), ("+", change.after, "green")):
            if text is not None:
                lines += [Text(f"  {sign} {_printable(line)}", style=style) for line in text.splitlines()]
    if one.state == "refused":
        lines.append(Text(f"  refuses the message: {one.reason}", style="bold red"))
    if one.state == "stopped":
        lines.append(Text("  stops here", style="yellow"))
    return [*lines, Text()]


def _skipped(one: Trace) -> Text:
    states = {"skipped": f"does not hold: {one.reason}", "fired": "found nothing to change in the message"}
    why = states.get(one.state, one.state)
    return Text.assemble(f"  {one.rule.step.removeprefix('rule:')} ", (_printable(why), "dim"))


def _printable(text: str) -> str:
    return "".join([char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text])
