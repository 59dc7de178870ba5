"""Cases of rules: a message in, and what must come out. They stand beside the rule that they are about."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import unified_diff
from typing import Final

from proxy.audit.records import Change, replay
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import Context, Decision, Rule, RuleReject, RuleSet
from proxy.rewrite.match import MethodName, When, WhenKind
from proxy.rewrite.names import OUT_OF_REACH
from proxy.rewrite.nodes import Node, Report, Scope
from proxy.rewrite.schema import Field, Flag, Keys, Many, Mapped, Schema, StatusTest, Switch, Text, Values, Whole, Word
from proxy.rewrite.sdp_facts import CodecName
from proxy.rewrite.snippet import example_context, message, shown
from proxy.sdp.codecs import Codec
from proxy.sdp.errors import SdpError
from proxy.sip.message import Message
from proxy.sip.parser import MalformedMessage, parse_message

__all__ = ["Case", "CaseKind", "run_case"]

_OUTCOMES: Final = ("out", "expect", "codecs", "unchanged", "rejected", "dropped", "tags", "route", "notes")


class Case:
    """One case.

    Attributes:
        name: what it shows; "" for none.
        line: where it begins in its file.
        text: the message, as a snippet (`proxy.rewrite.snippet`).
        method: the method of a response whose snippet has no CSeq.
        facts: what is known beside the message, as arguments of `Context`.
        alone: whether its rule is applied alone instead of the whole set.
        expected: what must come out, by the keys of a case.
    """

    __slots__ = ("alone", "expected", "facts", "line", "method", "name", "text")

    def __init__(
        self, name: str, line: int, text: str, method: str, facts: Values, alone: bool, expected: Values
    ) -> None:
        self.name = name
        self.line = line
        self.text = text
        self.method = method
        self.facts = facts
        self.alone = alone
        self.expected = expected


_WORD: Final = Text(limit=200)
_MESSAGE: Final = Text(limit=65_536, allow_breaks=True)
_FACTS: Final = Keys(
    {
        "direction": Field(Word(("a-to-b", "b-to-a")), help="Default: a-to-b for requests, b-to-a for responses."),
        "method": Field(MethodName(), help="The method of a response without CSeq. Default: INVITE."),
        "attempt": Field(Whole(1, 100)),
        "transport": Field(Word(("udp", "tcp", "tls"))),
        "source": Field(_WORD),
        "trunk": Field(_WORD),
        "target": Field(_WORD),
        "call-id": Field(_WORD),
        "local-host": Field(_WORD),
        "target-host": Field(_WORD),
        "codecs": Field(Many(CodecName())),
        "crypto-suites": Field(Many(_WORD)),
        "settings": Field(Mapped(_WORD, Text(allow_empty=True))),
        "tags": Field(Many(_WORD)),
        "media-anchored": Field(Flag()),
    },
    "is not a fact of a case",
)
_CASE: Final = Keys(
    {
        "name": Field(Text(limit=200), help="What the case shows."),
        "with": Field(_FACTS, help="What is known beside the message."),
        "alone": Field(Switch(), help="Apply this rule alone, not the whole set."),
        "in": Field(_MESSAGE, True, "The message: the lines that matter; after an empty line the SDP."),
        "out": Field(_MESSAGE, help="The lines that matter of what must come out."),
        "expect": Field(Many(WhenKind()), help="Conditions, as in `when`, that must hold for what comes out."),
        "codecs": Field(Many(CodecName()), help="The audio codecs that must come out, in this order."),
        "unchanged": Field(Switch(), help="The message must come out as it went in."),
        "rejected": Field(
            Keys({"status": Field(StatusTest(), True), "reason": Field(Text(limit=200))}),
            help="The message must be refused.",
        ),
        "dropped": Field(Switch(), help="The message must be dropped."),
        "tags": Field(Many(_WORD), help="The tags that the call must have."),
        "route": Field(_WORD, help="The target that must be chosen."),
        "notes": Field(Many(_WORD), help="The lines that must be logged."),
    },
    "is not a key of a case",
)


class CaseKind:
    """A case of a rule."""

    allowed: str = f"a message (in) and what must come of it ({', '.join(_OUTCOMES)})"

    def read(self, node: Node, report: Report) -> Case | None:
        """Read a case."""
        captures, report.captures = report.captures, Scope()  # a case has none that the rule could use
        values = _CASE.read(node, report)
        report.captures = captures
        if values is None:
            return None
        expected: Values = {key: values[key] for key in _OUTCOMES if key in values}
        if not expected:
            report.add(node, "expects nothing", ", ".join(_OUTCOMES))
            return None
        given: Values = values.get("with", {})
        facts: Values = {key.replace("-", "_"): given[key] for key in given if key != "method"}
        facts.update({key: tuple(value) for key, value in facts.items() if isinstance(value, list)})
        method: str = given.get("method", "INVITE")
        try:
            message(values["in"], method)
        except MalformedMessage as error:
            report.add(node.value("in") or node, f"is no message: {error.reason}", CaseKind.allowed)
            return None
        alone = values.get("alone", False)
        return Case(values.get("name", ""), node.line, values["in"], method, facts, alone, expected)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {**_CASE.schema(), "anyOf": [{"required": [key]} for key in _OUTCOMES]}


def run_case(rule_set: RuleSet, rule: Rule, case: Case, *, disabled: Rule | None = None) -> list[str]:
    """Run a case of a rule of this set; the failures, each a few lines for people. None when all is well.

    `disabled`: as if this rule were not there, to see whether the case needs it.
    """
    if case.alone:
        rule_set = rule_set.with_rules(() if disabled is rule else (rule,))
    elif disabled is not None:
        rule_set = rule_set.with_rules([other for other in rule_set.all_rules if other is not disabled])
    whole = message(case.text, case.method)
    draft = Draft(whole)
    facts = dict(case.facts)
    tags = list(facts.pop("tags", ()))
    context = example_context(draft.status != 0, tags=tags, **facts)
    context.decision = decision = Decision()
    refused: RuleReject | None = None
    try:
        rule_set.apply(draft, context)
    except RuleReject as reject:
        refused = reject
    expected = case.expected
    failures: list[str] = []
    if refused is not None and "rejected" not in expected and "dropped" not in expected:
        return [f"refused with {refused.status} {refused.reason} by {refused.rule}"]
    if refused is None:
        failures += _broken_laws(whole, draft)
        failures += _compare_message(case, draft, context)
    failures += _compare_outcome(expected, refused, decision, context)
    return failures


def _broken_laws(whole: Message, draft: Draft) -> list[str]:
    """What holds whatever the rules are: the records say what was done, identity is untouched, the result parses."""
    after = draft.finish()
    lines = [item.line for item in after.headers]
    replayed = replay(whole.start_line, [item.line for item in whole.headers], whole.body, draft.changes)
    failures: list[str] = []
    if replayed != (after.start_line, lines, after.body):
        failures.append("the change records do not say what was done")
    if _identity(whole) != _identity(after):
        failures.append("the message's identity was touched")
    # Content-Length is written after the rules.
    after.headers[:] = [item for item in after.headers if item.key != "content-length"]
    try:
        parse_message(after.serialize())
    except MalformedMessage as error:
        failures.append(f"what comes out is no message: {error.reason}")
    return failures


def _identity(whole: Message) -> list[tuple[str, str]]:
    """What no rule may touch: the identity of the leg, and the tags."""
    found: list[tuple[str, str]] = []
    for item in whole.headers:
        if item.key in ("from", "to"):
            found.append((item.key, item.value.rpartition(">")[2].partition(";tag=")[2].partition(";")[0]))
        elif item.key in OUT_OF_REACH:
            found.append((item.key, item.value))
    return found


def _compare_message(case: Case, draft: Draft, context: Context) -> Iterable[str]:
    expected = case.expected
    if "out" in expected:
        wanted, found = expected["out"].strip("\n").split("\n"), shown(draft, case.text).split("\n")
        if wanted != found:
            yield "\n".join(unified_diff(wanted, found, "expected", "found", lineterm="", n=99))
    if "unchanged" in expected and draft.changes:
        yield "changed, though it should not be:\n" + "\n".join([_told(change) for change in draft.changes])
    whens: list[When] = expected.get("expect", [])
    for when in whens:
        yield from _unmet(when, draft, context)
    if "codecs" in expected:
        names: list[str] = expected["codecs"]
        session = draft.session
        media = [] if session is None else [one for one in session.media if one.kind == "audio" and one.port]
        codecs = [codec for one in media for codec in one.codecs]
        if len(codecs) != len(names) or not all(map(Codec.matches, codecs, names)):
            found_names = ", ".join([codec.rtpmap for codec in codecs]) or "none"
            yield f"codecs: expected {', '.join(names)}; found {found_names}"


def _told(change: Change) -> str:
    before, after = change.before, change.after
    lines = ([f"- {before}"] if before is not None else []) + ([f"+ {after}"] if after is not None else [])
    return f"{change.step}: " + " ".join(lines)


def _unmet(when: When, draft: Draft, context: Context) -> Iterable[str]:
    """The conditions that do not hold for what came out."""
    for condition in when.static_conditions():
        if not condition.test(draft, context):
            yield f"does not hold: {condition.label()}"
    for condition in when.conditions:
        try:
            holds = condition.test(draft, context)
        except SdpError as error:
            yield f"does not hold: {condition.label()} ({error.reason})"
            continue
        if not holds:
            yield f"does not hold: {condition.label()}"


def _compare_outcome(
    expected: Values, refused: RuleReject | None, decision: Decision, context: Context
) -> Iterable[str]:
    told = "" if refused is None else f"{refused.status} {refused.reason} by {refused.rule}"
    if "rejected" in expected:
        low, high = expected["rejected"]["status"]
        reason = expected["rejected"].get("reason")
        if refused is None or refused.silent:
            yield "not refused" + (f", but dropped: {told}" if told else "")
        elif not low <= refused.status <= high or reason not in (None, refused.reason):
            yield f"refused otherwise: {told}"
    if "dropped" in expected and (refused is None or not refused.silent):
        yield "not dropped" + (f", but refused: {told}" if told else "")
    if "tags" in expected and context.tags != expected["tags"]:
        yield f"tags: expected {', '.join(expected['tags'])}; found {', '.join(context.tags or ()) or 'none'}"
    if "route" in expected and decision.target != expected["route"]:
        yield f"route: expected {expected['route']}; found {decision.target or 'none'}"
    if "notes" in expected:
        notes = [text for _, text in context.notes or ()]
        if notes != expected["notes"]:
            yield f"notes: expected {'; '.join(expected['notes'])}; found {'; '.join(notes) or 'none'}"
