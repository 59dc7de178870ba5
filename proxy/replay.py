"""What other rules would have done to real traffic: recorded messages through two rule sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.recordings import Recorded
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import RuleReject, RuleSet
from proxy.rewrite.snippet import example_context
from proxy.rulesets import Directions
from proxy.sip.message import Message
from proxy.sip.parser import MalformedMessage, parse_message

__all__ = ["Difference", "Replay", "replay_messages"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A message that comes out differently.

    Attributes:
        place: where it stands in the recording. start_line: its first line, as it came in.
        old, new: what came out, line by line; a refusal is one line.
    """

    place: str
    start_line: str
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(slots=True)
class Replay:
    """What a replay came to.

    Attributes:
        messages: how many messages went through both sets. unreadable: how many could not be read.
        changed: how many come out differently. refused_now: how many only the new set refuses. passed_now: how many
            only the old one refused.
        old_rules, new_rules: how many messages each rule has changed or refused.
        kinds: how many messages come out differently, by method or status.
        examples: some differences.
    """

    messages: int = 0
    unreadable: int = 0
    changed: int = 0
    refused_now: int = 0
    passed_now: int = 0
    old_rules: Counter[str] = field(default_factory=Counter)
    new_rules: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    examples: list[Difference] = field(default_factory=list)


def replay_messages(
    recorded: Iterable[Recorded],
    old: RuleSet,
    new: RuleSet,
    *,
    facts: dict[str, Any],
    ours: Sequence[str] = (),
    examples: int = 5,
) -> Replay:
    """Put every message that came in through both sets. `facts`: arguments of `Context` that the recording lacks."""
    result = Replay()
    directions = Directions(ours)
    for one in recorded:
        try:
            whole = parse_message(one.data)
        except MalformedMessage:
            result.unreadable += 1
            continue
        direction = directions.of(one, whole)
        if direction is None or whole.start_line == "":
            continue
        known = {
            **facts,
            "direction": direction,
            "attempt": one.attempt or 1,
            "call_id": one.call or "replayed",
            "source": one.sender.rpartition(":")[0],
            "transport": one.transport,
        }
        before, before_refused = _through(old, whole, known, result.old_rules)
        after, after_refused = _through(new, whole, known, result.new_rules)
        result.messages += 1
        if before == after:
            continue
        result.changed += 1
        result.refused_now += after_refused and not before_refused
        result.passed_now += before_refused and not after_refused
        result.kinds[_kind(whole)] += 1
        if len(result.examples) < examples:
            result.examples.append(Difference(one.place, whole.start_line, before, after))
    return result


def _kind(whole: Message) -> str:
    line = whole.start_line
    return " ".join(line.split()[1:2]) if line.startswith("SIP/2.0") else line.partition(" ")[0]


def _through(
    rule_set: RuleSet, whole: Message, facts: dict[str, Any], hits: Counter[str]
) -> tuple[tuple[str, ...], bool]:
    """The lines that come out, and whether the message is refused; each rule that did something is counted."""
    draft = Draft(whole)
    try:
        rule_set.apply(draft, example_context(draft.status != 0, tags=[], **facts))
    except RuleReject as reject:
        hits[reject.rule] += 1
        return ("dropped" if reject.silent else f"refused: {reject.status} {reject.reason}",), True
    hits.update({change.step for change in draft.changes})
    body = draft.body.decode("utf-8", "surrogateescape").split("\r\n")
    return (draft.start_line, *[item.line for item in draft.headers], "", *body), False
