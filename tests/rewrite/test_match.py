"""`when`: each condition holds where it should, and only there."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.rewrite.engine import A_TO_B, B_TO_A, RuleReject, RuleSet
from tests.rewrite.snippets import apply, context, message, rule_set, rules

OPUS = "m=audio 4000 RTP/AVP 107 0\na=rtpmap:107 opus/48000/2"
SAVP = "m=audio 4000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:abc"
TWO = "m=audio 0 RTP/AVP 8\nm=video 4002 RTP/AVP 96\na=recvonly"


def fires(found: RuleSet, snippet: str, **facts: Any) -> bool:
    whole = message(snippet)
    direction = B_TO_A if whole.start_line.startswith("SIP/2.0") else A_TO_B
    return bool(apply(found, whole, context(str(facts.pop("direction", direction)), **facts)).changes)


def marks(when: str) -> RuleSet:
    return rule_set("set: {header: X-Fired, value: yes}", when)


@pytest.mark.parametrize(
    ("when", "snippet", "expected"),
    [
        ("{}", "X-A: 1", True),
        ("{direction: a-to-b}", "X-A: 1", True),
        ("{direction: b-to-a}", "X-A: 1", False),
        ("{direction: b-to-a}", "SIP/2.0 200 OK\nX-A: 1", True),
        ("{message: request}", "SIP/2.0 200 OK", False),
        ("{message: response}", "SIP/2.0 200 OK", True),
        ("{message: response}", "X-A: 1", False),
        ("{method: INVITE}", "X-A: 1", True),
        ("{method: BYE}", "X-A: 1", False),
        ("{method: [BYE, INVITE]}", "X-A: 1", True),
        ("{method: INVITE}", "SIP/2.0 180 Ringing", True),
        ("{method: INVITE}", "FOO sip:a@example.com SIP/2.0", False),
        ("{}", "FOO sip:a@example.com SIP/2.0", True),
        ("{status: 200}", "SIP/2.0 200 OK", True),
        ("{status: 200}", "SIP/2.0 202 Accepted", False),
        ("{status: 2xx}", "SIP/2.0 202 Accepted", True),
        ("{status: 2XX}", "SIP/2.0 300 Multiple Choices", False),
        ('{status: "180-183"}', "SIP/2.0 183 Session Progress", True),
        ('{status: "180-183"}', "SIP/2.0 199 Early", False),
        ('{status: ">=400"}', "SIP/2.0 400 Bad Request", True),
        ('{status: ">400"}', "SIP/2.0 400 Bad Request", False),
        ('{status: "<=180"}', "SIP/2.0 180 Ringing", True),
        ('{status: "<180"}', "SIP/2.0 180 Ringing", False),
        ("{status: [486, 6xx]}", "SIP/2.0 603 Decline", True),
        ("{status: [486, 6xx]}", "SIP/2.0 487 Request Terminated", False),
        ("{status: 200}", "X-A: 1", False),
        ("{has-sdp: true}", OPUS, True),
        ("{has-sdp: true}", "X-A: 1", False),
        ("{has-sdp: true}", f"Content-Type: text/plain\n\n{OPUS}", False),
        ("{has-sdp: true}", f"c: Application/SDP; charset=utf-8\n\n{OPUS}", True),
        ("{has-sdp: false}", "X-A: 1", True),
        ("{has-sdp: false}", OPUS, False),
        ("{sdp: {has-codec: opus}}", OPUS, True),
        ("{sdp: {has-codec: OPUS/48000/2}}", OPUS, True),
        ("{sdp: {has-codec: [G722, PCMU]}}", OPUS, True),
        ("{sdp: {has-codec: PCMA}}", OPUS, False),
        ("{sdp: {has-codec: PCMA}}", TWO, False),
        ("{sdp: {has-codec: PCMA}}", "X-A: 1", False),
        ("{sdp: {media: video}}", TWO, True),
        ("{sdp: {media: audio}}", TWO, False),
        ("{sdp: {protocol: RTP/SAVP}}", SAVP, True),
        ("{sdp: {protocol: [RTP/SAVP, RTP/SAVPF]}}", OPUS, False),
        ("{sdp: {crypto: AES_CM_128_HMAC_SHA1_32}}", SAVP, True),
        ("{sdp: {crypto: AES_CM_128_HMAC_SHA1_80}}", SAVP, False),
        ("{sdp: {direction: recvonly}}", TWO, True),
        ("{sdp: {direction: sendonly}}", TWO, False),
        ("{sdp: {attribute: crypto}}", SAVP, True),
        ('{sdp: {attribute: "cry*"}}', SAVP, True),
        ('{sdp: {attribute: "*pto"}}', SAVP, True),
        ('{sdp: {attribute: "ice-*"}}', SAVP, False),
        ("{sdp: {private-address: rtcp}}", f"{SAVP}\na=rtcp:4001 IN IP4 10.0.0.1", True),
        ("{sdp: {private-address: rtcp}}", f"{SAVP}\na=rtcp:4001", False),
        ("{sdp: {private-address: [origin, connection]}}", SAVP, False),
        ("{sdp: {private-address: connection}}", f"{SAVP}\nc=IN IP4 192.168.0.1", True),
        ("{sdp: {private-address: origin}}", "v=0\no=- 1 1 IN IP4 172.18.165.214\ns=-\nt=0 0", True),
        ("{sdp: {has-codec: opus, crypto: AES_CM_128_HMAC_SHA1_32}}", OPUS, False),
        ("{all: [{method: INVITE}, {has-sdp: false}]}", "X-A: 1", True),
        ("{all: [{method: INVITE}, {has-sdp: true}]}", "X-A: 1", False),
        ("{any: [{method: BYE}, {message: request}]}", "X-A: 1", True),
        ("{any: [{method: BYE}, {direction: b-to-a}]}", "X-A: 1", False),
        ("{any: [{header: {name: X-A, present: true}}, {header: {name: X-B, present: true}}]}", "X-B: 1", True),
        ("{any: [{header: {name: X-A, present: true}}, {header: {name: X-B, present: true}}]}", "X-C: 1", False),
        ("{any: [{header: {name: X-A, present: true}}, {method: INVITE}]}", "X-C: 1", True),
        ("{not: {method: BYE}}", "X-A: 1", True),
        ("{not: {method: INVITE}}", "X-A: 1", False),
        ("{not: {header: {name: X-A, present: true}}}", "X-B: 1", True),
        ("{not: {all: [{method: INVITE}, {not: {message: response}}]}}", "X-A: 1", False),
        ("{not: {status: 200}}", "X-A: 1", True),
    ],
)
def test_condition(when: str, snippet: str, expected: bool) -> None:
    assert fires(marks(when), snippet) is expected


@pytest.mark.parametrize(
    ("test", "snippet", "expected"),
    [
        ("name: X-A, present: true", "X-A: 1", True),
        ("name: x-a, present: true", "X-A:", True),
        ("name: X-A, present: true", "X-B: 1", False),
        ("name: X-A, present: false", "X-B: 1", True),
        ("name: X-A, absent: false", "X-A: 1", True),
        ("name: X-A, absent: true", "X-A: 1", False),
        ("name: X-A, absent: true", "X-B: 1", True),
        ('name: "X-*", present: true', "x-b: 1", True),
        ('name: "X-*", absent: true', "X-B: 1", False),
        ('name: "X-*", absent: true', "Y-B: 1", True),
        ('name: "*-B*", present: true', "Y-Bar: 1", True),
        ("name: Via, present: true", "X-A: 1", True),
        ("name: s, equals: hello", "Subject: hello", True),
        ("name: Subject, equals: hello", "s: hello", True),
        ("name: X-A, equals: a", "X-A: a", True),
        ("name: X-A, equals: a", "X-A: A", False),
        ("name: X-A, equals: [b, a]", "X-A: a", True),
        ("name: X-A, equals: 17", "X-A: 17", True),
        ("name: X-A, equals: true", "X-A: true", True),
        ("name: X-A, equals: a", "X-A: b\nX-A: a", True),
        ('name: X-A, equals: "{call.id}"', "X-A: 5f2c9a", True),
        ('name: X-A, equals: "{header.X-None}"', "X-A: ", False),
        ("name: X-A, contains: ell", "X-A: hello", True),
        ("name: X-A, contains: [x, y]", "X-A: hello", False),
        ("name: X-A, matches: '^h.l+o$'", "X-A: hello", True),
        ("name: X-A, matches: '^h.l$'", "X-A: hello", False),
        ("name: X-A, matches: ['^x', 'lo$']", "X-A: hello", True),
        ("name: X-A, matches: '(?i)HELLO'", "X-A: hello", True),
        ("name: X-A, matches: 'é'", "X-A: café", True),
        ("name: X-A, matches: '^caf..$'", "X-A: café", True),
        ("name: X-A, matches: '^a.b$'", "X-A: a\udcffb", True),
        ("name: X-A, matches: 'a b'", "X-A: a\n b", True),
    ],
)
def test_header(test: str, snippet: str, expected: bool) -> None:
    assert fires(marks(f"{{header: {{{test}}}}}"), snippet) is expected


@pytest.mark.parametrize(
    ("test", "numbers"),
    [
        ("2", {2}),
        ('"2-3"', {2, 3}),
        ('">=3"', {3, 4}),
        ('">3"', {4}),
        ('"<=2"', {1, 2}),
        ('"<2"', {1}),
        ("[1, 4]", {1, 4}),
    ],
)
def test_attempt(test: str, numbers: set[int]) -> None:
    rules = marks(f"{{attempt: {test}}}")
    assert {number for number in range(1, 5) if fires(rules, "X-A: 1", attempt=number)} == numbers


def test_transport() -> None:
    rules = marks("{transport: [udp, tcp]}")
    assert [fires(rules, "X-A: 1", transport=name) for name in ("udp", "tcp", "tls")] == [True, True, False]


def test_several_headers_must_all_hold() -> None:
    rules = marks("{header: [{name: X-A, present: true}, {name: X-B, equals: 1}]}")
    assert fires(rules, "X-A: 1\nX-B: 1")
    assert not fires(rules, "X-A: 1\nX-B: 2")
    assert not fires(rules, "X-B: 1")


def test_a_later_rule_sees_what_an_earlier_one_did() -> None:
    chain = rules(
        """
- {id: first, why: x, do: [{set: {header: X-A, value: 1}}]}
- {id: second, why: x, when: {header: {name: X-A, equals: 1}}, do: [{rename: {from: X-A, to: X-B}}]}
- {id: third, why: x, do: [{remove: X-B}]}
"""
    )
    draft = apply(chain, message("X-C: 1"))
    assert [change.step for change in draft.changes] == ["rule:test/first", "rule:test/second", "rule:test/third"]


@pytest.mark.parametrize("when", ["{sdp: {has-codec: PCMU}}", "{not: {sdp: {media: video}}}"])
def test_sdp_that_can_not_be_understood(when: str) -> None:
    whole = message("Content-Type: application/sdp\n\nhello")
    with pytest.raises(RuleReject) as refused:
        apply(marks(when), whole)
    assert (refused.value.status, refused.value.rule) == (400, "rule:test/one")
    assert refused.value.reason.startswith("Malformed SDP: ")


def test_unusable_sdp_without_a_rule_for_it_crosses() -> None:
    assert fires(marks("{has-sdp: true}"), "Content-Type: application/sdp\n\nhello")
