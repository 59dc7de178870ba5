"""Rule sets: what is decided once at load, and that it decides as the rules say."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, Context, Rule, RuleSet
from proxy.rulefiles import load_text
from proxy.sip.message import Message
from tests.rewrite.snippets import apply, context, message, rules

SET = rules(
    """
- {id: everything, why: x, do: [{set: {header: X-E, value: 1}}]}
- {id: a-to-b, why: x, when: {direction: a-to-b}, do: [{set: {header: X-AB, value: 1}}]}
- {id: b-to-a, why: x, when: {direction: b-to-a}, do: [{set: {header: X-BA, value: 1}}]}
- {id: invite, why: x, when: {method: INVITE}, do: [{set: {header: X-I, value: 1}}]}
- {id: bye-request, why: x, when: {method: BYE, message: request}, do: [{set: {header: X-B, value: 1}}]}
- {id: final, why: x, when: {status: ">=200"}, do: [{set: {header: X-F, value: 1}}]}
- {id: disabled, why: x, enabled: false, do: [{set: {header: X-D, value: 1}}]}
"""
)


def fired(whole: Message, direction: str) -> list[str]:
    return [change.step.partition("/")[2] for change in apply(SET, whole, context(direction)).changes]


def test_direction_kind_and_method() -> None:
    assert fired(message("X: 1"), A_TO_B) == ["everything", "a-to-b", "invite"]
    assert fired(message("X: 1"), B_TO_A) == ["everything", "b-to-a", "invite"]
    assert fired(message("BYE sip:a@h SIP/2.0\nX: 1"), A_TO_B) == ["everything", "a-to-b", "bye-request"]
    assert fired(message("OPTIONS sip:a@h SIP/2.0\nX: 1"), A_TO_B) == ["everything", "a-to-b"]
    assert fired(message("SIP/2.0 180 Ringing"), B_TO_A) == ["everything", "b-to-a", "invite"]
    assert fired(message("SIP/2.0 200 OK"), B_TO_A) == ["everything", "b-to-a", "invite", "final"]
    assert fired(message("SIP/2.0 200 OK", method="BYE"), B_TO_A) == ["everything", "b-to-a", "final"]


def test_rules_are_those_that_are_enabled() -> None:
    assert [rule.id for rule in SET.rules][-1] == "final"
    assert SET.rules[0].step == "rule:test/everything"
    assert [rule.line for rule in SET.rules] == [4, 5, 6, 7, 8, 9]


def test_attributes() -> None:
    head = "version: 1\nname: a-b\ndescription: Two\n  lines.\nrules:\n"
    text = f"{head}  - {{id: r, why: ' a  b ', do: [{{remove: X-A}}]}}\n"
    found = load_text(text, "some.yaml")
    assert (found.name, found.source, found.description) == ("a-b", "some.yaml", "Two lines.")
    assert found.version == sha256(text.encode()).hexdigest()[:12]
    assert load_text(text, "other.yaml").version == found.version
    assert load_text(text + "# more\n", "some.yaml").version != found.version
    assert found.rules[0].why == "a b"


def test_needs_sdp() -> None:
    def needs_sdp(text: str) -> bool:
        return rules(f"- {{id: r, why: w, {text}}}").rules[0].needs_sdp

    assert needs_sdp("do: [{sdp: {codecs: safe}}]")
    assert needs_sdp("when: {has-sdp: true}, do: [{remove: X-A}]")
    assert needs_sdp("when: {sdp: {media: audio}}, do: [{remove: X-A}]")
    assert not needs_sdp("do: [{sdp: {codecs: safe}}, {remove: X-A}]")
    assert not needs_sdp("when: {has-sdp: false}, do: [{remove: X-A}]")
    assert not needs_sdp("when: {not: {has-sdp: true}}, do: [{remove: X-A}]")
    assert not needs_sdp("when: {any: [{has-sdp: true}, {method: BYE}]}, do: [{remove: X-A}]")


def test_sdp_that_an_earlier_rule_makes_known() -> None:
    """Whether there is SDP is asked again after each edit."""
    found = rules(
        """
- {id: name-it, why: w, do: [{set: {header: Content-Type, value: application/sdp}}]}
- {id: reduce-it, why: w, do: [{sdp: {codecs: PCMU}}]}
"""
    )
    draft = apply(found, message("Content-Type: text/plain\n\nm=audio 4000 RTP/AVP 0 8"))
    assert draft.body.endswith(b"m=audio 4000 RTP/AVP 0\r\n")


def needs(text: str) -> tuple[str, ...] | None:
    return rules(f"- {{id: r, why: w, {text}}}").rules[0].needs


def test_needs() -> None:
    assert needs("do: [{remove: [X-A, s]}]") == ("subject", "x-a")
    assert needs("do: [{remove: X-A}, {rename: {from: X-B, to: X-C}}]") == ("x-a", "x-b")
    assert needs("do: [{remove: X-A}, {set: {header: X-B, value: 1}}]") is None
    assert needs('do: [{remove: "X-*"}]') is None
    assert needs("do: [{edit-address: {headers: [Diversion, request-uri], port: none}}]") is None
    assert needs("when: {header: {name: X-A, equals: 1}}, do: [{set: {header: X-B, value: 1}}]") == ("x-a",)
    assert needs("when: {header: {name: X-A, absent: true}}, do: [{remove: [X-B]}]") == ("x-b",)
    assert needs("when: {not: {header: {name: X-A, present: true}}}, do: [{set: {header: X-B, value: 1}}]") is None
    assert needs("do: [{reject: {status: 403}}]") is None
    assert needs("do: [{sdp: {codecs: safe}}]") is None


CHOICES = [
    "do: [{remove: [X-A, X-B]}]",
    'do: [{remove: "X-*"}]',
    "do: [{rename: {from: X-A, to: X-B}}]",
    "do: [{set: {header: X-C, value: '{header.X-A}'}}]",
    "do: [{dedupe: [X-A, X-C]}]",
    "do: [{replace: {header: [X-A, X-D], pattern: '^', with: '1'}}]",
    "when: {header: {name: X-B, present: true}}, do: [{add: {header: X-D, value: 1}}]",
    "when: {header: {name: X-B, absent: true}}, do: [{add: {header: X-B, value: 1}}]",
    "when: {any: [{header: {name: X-A, equals: 1}}, {header: {name: X-D, contains: 1}}]}, do: [{remove: X-D}]",
    "when: {all: [{header: {name: X-A, matches: '1'}}, {method: INVITE}]}, do: [{add: {header: X-A, value: 2}}]",
    "do: [{edit-address: {headers: X-D, port: 1}}]",
    "do: [{unfold: X-A}, {keep-only: [X-A, X-C]}]",
    "do: [{hide-private-addresses: {headers: X-B, with: h}}]",
]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(CHOICES), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(["1", "2", "<sip:a@10.0.0.1>"])), max_size=6),
)
def test_skipping_by_needs_changes_nothing(chosen: list[str], headers: list[tuple[str, str]]) -> None:
    """The same rules without `needs` do the very same."""
    rule_set = rules("".join([f"- {{id: r{at}, why: w, {text}}}\n" for at, text in enumerate(chosen)]))
    patient = RuleSet(rule_set.name, "", "", [without_needs(rule) for rule in rule_set.rules])
    whole = message("\n".join([f"X-{name}: {value}" for name, value in headers]))
    quick, slow = apply(rule_set, whole), apply(patient, whole)
    assert [item.line for item in quick.headers] == [item.line for item in slow.headers]
    assert [change.step for change in quick.changes] == [change.step for change in slow.changes]


def without_needs(rule: Rule) -> Rule:
    return Rule(rule.id, rule.why, rule.step, rule.line, tests=rule.tests, actions=rule.actions)


def test_context_has_defaults() -> None:
    draft = Draft(message("X-A: 1"))
    SET.apply(draft, Context(A_TO_B))
    assert draft.find("x-ab") is not None
