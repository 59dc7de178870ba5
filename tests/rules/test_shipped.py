"""The shipped rule sets against the troubles of the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import Context, RuleReject, RuleSet
from proxy.rulefiles import load_directory_or_files
from proxy.sip.message import SINGLETONS, Message
from proxy.sip.parser import MalformedMessage, parse_message
from tests.rewrite.snippets import apply, context
from tests.rules.field import CANDIDATES, INVITE, OK, RUBBISH_LINES, SDP, whole

RULES = Path(__file__).resolve().parents[2] / "rules"
EVERY = load_directory_or_files([RULES])
SETS = {name: EVERY[name] for name in ("minimal", "twilio-openai")}
DEFAULT, MINIMAL = SETS["twilio-openai"], SETS["minimal"]
IDENTITY = frozenset("via from to call-id cseq contact max-forwards record-route route content-length".split())


def invite(rule_set: RuleSet, head: str = INVITE, sdp: str = SDP, **facts: Any) -> Draft:
    return apply(rule_set, parse_message(whole(head, sdp)), context(**facts))


def lines(draft: Draft) -> list[str]:
    """The header lines that are no identity."""
    return [item.line for item in draft.headers if item.key not in IDENTITY]


def edits(draft: Draft) -> list[tuple[str, str | None, str | None]]:
    return [(change.step.partition("/")[2], change.before, change.after) for change in draft.changes]


def test_names() -> None:
    assert set(EVERY) == {path.stem for path in RULES.glob("*.yaml")}


@pytest.mark.parametrize("rule", [rule for one in EVERY.values() for rule in one.rules], ids=lambda rule: rule.step)
def test_every_rule_says_why(rule: object) -> None:
    assert len(getattr(rule, "why", "")) > 40


def test_default_set_on_twilios_invite() -> None:
    assert edits(invite(DEFAULT)) == [
        (
            "private-origin",
            "o=root 1311022221 1311022221 IN IP4 172.18.165.214",
            "o=root 1311022221 1311022221 IN IP4 198.51.100.77",
        ),
        (
            "identity-hosts",
            "Diversion: <sip:+15550100001@twilio.example>;reason=unconditional",
            "Diversion: <sip:+15550100001@198.51.100.77>;reason=unconditional",
        ),
        (
            "identity-hosts",
            "P-Asserted-Identity: <sip:+15550100002@198.51.100.12:5060>",
            "P-Asserted-Identity: <sip:+15550100002@198.51.100.77>",
        ),
        ("call-id-header", None, "X-Trunkline-Call-ID: 5f2c9a"),
        ("attempt-header", None, "X-Trunkline-Attempt: 1"),
    ]


def test_minimal_set_on_twilios_invite() -> None:
    draft = invite(MINIMAL, attempt=3)
    assert lines(draft) == [
        "X-Twilio-AccountSid: AC00000000000000000000000000000000",
        "Content-Type: application/sdp",
        "X-Twilio-CallSid: CA00000000000000000000000000000000",
        "X-Trunkline-Call-ID: 5f2c9a",
        "X-Trunkline-Attempt: 3",
    ]
    assert draft.body.decode().split("\r\n") == [
        "v=0",
        "o=- 1311022221 1311022221 IN IP4 198.51.100.77",
        "s=-",
        "c=IN IP4 203.0.113.121",
        "t=0 0",
        "m=audio 12692 RTP/SAVP 0 101",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=sendrecv",
        "",
    ]


@pytest.mark.parametrize("rule_set", SETS.values(), ids=SETS)
def test_openais_200_gets_its_content_type_and_nothing_else(rule_set: RuleSet) -> None:
    draft = apply(rule_set, parse_message(whole(*OK.split("\n\n"))), context("b-to-a"))
    assert edits(draft) == [("content-type-of-sdp", None, "Content-Type: application/sdp")]


@pytest.mark.parametrize("rule_set", SETS.values(), ids=SETS)
def test_what_is_right_is_left_alone(rule_set: RuleSet) -> None:
    """Messages within a call cross as they are, Reason and custom headers among them."""
    bye = INVITE.replace("INVITE", "BYE").replace("Content-Type: application/sdp\n", "")
    bye = bye.replace("Diversion: <sip:+15550100001@twilio.example>;reason=unconditional\n", "")
    bye = bye.replace("P-Asserted-Identity: <sip:+15550100002@198.51.100.12:5060>\n", "")
    bye += '\nReason: Q.850;cause=16;text="Normal call clearing"'
    for direction in ("a-to-b", "b-to-a"):
        assert apply(rule_set, parse_message(whole(bye)), context(direction)).changes == []


@pytest.mark.parametrize("rule_set", SETS.values(), ids=SETS)
@pytest.mark.parametrize(
    ("extra", "gone", "there"),
    [
        ("Content-Type: application/sdp", ["sdp\nContent-Type"], ["Content-Type: application/sdp"]),
        ("X-Folded: one\n two", ["one\n"], ["X-Folded: one two"]),
        ("X-Trunkline-Attempt: 9\nx-trunkline-call-id: forged", ["Attempt: 9", "forged"], ["X-Trunkline-Attempt: 1"]),
        ("X-Signature: 10.0.0.1;a;a", [], ["X-Signature: 10.0.0.1;a;a"]),
        ("P-Charging-Vector: icid-value=1;orig-ioi=a", ["P-Charging-Vector"], []),
        ('Warning: 399 10.0.0.1 "x"', ["10.0.0.1"], []),
        ("Referred-By: <sip:a@h;x=1;x=2>", ["x=2"], []),
        ("Diversion: <sip:broken", ["broken"], []),
        ("History-Info: <sip:a@10.0.0.9:5060>;index=1", ["10.0.0.9", "5060>;index"], []),
    ],
)
def test_troubled_header(rule_set: RuleSet, extra: str, gone: list[str], there: list[str]) -> None:
    head = INVITE.replace("User-Agent: Twilio Gateway", extra)
    text = "\n".join(lines(invite(rule_set, head)))
    assert [word for word in gone if word in text] == []
    assert [word for word in there if word not in text] == []


@pytest.mark.parametrize("rule_set", SETS.values(), ids=SETS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Referred-By: <sip:a@h;x=1;x=2>", "Referred-By: <sip:a@h;x=1>"),
        ("Call-Info: <http://10.0.0.1/x>", "Call-Info: <http://198.51.100.77/x>"),
        ("Refer-To: <sip:a@10.0.0.1>", "Refer-To: <sip:a@10.0.0.1>"),
        ("Reason: SIP;cause=486", "Reason: SIP;cause=486"),
    ],
)
@pytest.mark.parametrize("method", ["BYE", "REFER", "INFO"])
def test_request_within_a_call(rule_set: RuleSet, before: str, after: str, method: str) -> None:
    head = INVITE.replace("INVITE", method).replace("Content-Type: application/sdp", before)
    assert after in lines(invite(rule_set, head, ""))


@pytest.mark.parametrize("rule_set", SETS.values(), ids=SETS)
def test_answer_with_a_private_origin(rule_set: RuleSet) -> None:
    ok = OK.replace("IN IP4 203.0.113.219\ns=OAI", "IN IP4 10.0.0.1\ns=OAI")
    draft = apply(rule_set, parse_message(whole(*ok.split("\n\n"))), context("b-to-a"))
    assert b"o=- 2113971860 2113971862 IN IP4 198.51.100.77\r\n" in draft.body
    assert b"c=IN IP4 203.0.113.219\r\n" in draft.body


def test_identity_keeps_the_user() -> None:
    head = INVITE.replace(
        "<sip:+15550100002@198.51.100.12:5060>",
        '"Jo" <sip:+15550100002@10.1.2.3:5060;transport=udp;user=phone>, <tel:+15550100002>',
    )
    assert lines(invite(DEFAULT, head))[0] == (
        'P-Asserted-Identity: "Jo" <sip:+15550100002@198.51.100.77;user=phone>, <tel:+15550100002>'
    )


RICH = """v=0
o=root 1 1 IN IP4 203.0.113.121
s=-
c=IN IP4 203.0.113.121
t=0 0
a=group:BUNDLE 0 1
m=audio 12692 RTP/AVP 107 9 8 0 13 101 110
a=maxptime:20
a=rtcp:12693 IN IP4 172.18.165.214
a=rtpmap:107 opus/48000/2
a=fmtp:107 useinbandfec=1
a=rtpmap:101 telephone-event/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=rtpmap:110 telephone-event/48000
a=fmtp:96 x=1
a=ptime:20.5
a=ice-ufrag:8hhY
a=candidate:1 1 UDP 1 10.0.0.1 9 typ host
a=mid:0
m=video 12694 RTP/AVP 96
a=rtpmap:96 VP8/90000
a=mid:1"""


def test_default_offer() -> None:
    assert invite(DEFAULT, sdp=RICH).body.decode().split("\r\n")[5:] == [
        "m=audio 12692 RTP/AVP 0 8 101",
        "a=maxptime:20",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "",
    ]


def test_minimal_offer() -> None:
    assert invite(MINIMAL, sdp=RICH).body.decode().split("\r\n")[5:] == [
        "m=audio 12692 RTP/AVP 0 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "",
    ]


def test_minimal_offer_without_pcmu() -> None:
    assert "m=audio 12692 RTP/SAVP 8 101\r\n" in invite(MINIMAL, sdp=SDP.replace("SAVP 0 8", "SAVP 8")).body.decode()


@pytest.mark.parametrize("rule_set", SETS.values(), ids=SETS)
@pytest.mark.parametrize(
    ("sdp", "status", "reason"),
    [
        (SDP.replace("0 8 101", "18 101"), 488, "no common audio codec: offered G729, telephone-event"),
        (SDP.replace("0 8 101", "101"), 488, "no common audio codec"),
        (SDP.replace("HMAC_SHA1_80", "HMAC_SHA1_32"), 488, "no common SRTP crypto suite"),
        (SDP.replace("m=audio", "m=video"), 488, "no usable media: offered video"),
        (SDP.replace("RTP/SAVP", "UDP/TLS/RTP/SAVPF"), 488, "Only RTP/AVP and RTP/SAVP"),
        ("v=0\nm=audio", 400, "Malformed SDP"),
        ("hello", 400, "Malformed SDP"),
    ],
    ids=["no codec", "telephone-event alone", "suite", "video", "dtls", "broken", "no sdp"],
)
def test_hopeless_offer_is_refused(rule_set: RuleSet, sdp: str, status: int, reason: str) -> None:
    with pytest.raises(RuleReject) as refused:
        invite(rule_set, sdp=sdp)
    assert (refused.value.status, refused.value.reason[: len(reason)]) == (status, reason)


@pytest.mark.parametrize("rule_set", SETS.values(), ids=SETS)
def test_late_offer_crosses(rule_set: RuleSet) -> None:
    draft = invite(rule_set, INVITE.replace("Content-Type: application/sdp\n", ""), "")
    assert draft.body == b""
    assert draft.find("x-twilio-callsid") is not None


def as_seen(message: Message) -> list[tuple[str, str]]:
    return [(item.key, item.value) for item in message.headers if item.key in IDENTITY]


def tried(rule_set: RuleSet, message: Message, facts: Context) -> tuple[Draft | None, int]:
    """The draft after the rules, or None and the status of the refusal."""
    try:
        return apply(rule_set, message, facts), 0
    except RuleReject as refused:
        return None, refused.status


HEADERS = st.lists(st.sampled_from([*CANDIDATES, *RUBBISH_LINES]), max_size=8)
SDPS = st.lists(st.sampled_from(RICH.split("\n") + SDP.split("\n")), max_size=14).map(
    lambda more: "\n".join([*RICH.split("\n")[:5], "m=audio 4000 RTP/AVP 0", *more])
)


@settings(deadline=None)
@given(st.sampled_from([DEFAULT, MINIMAL]), HEADERS, SDPS | st.sampled_from(["", SDP, RICH]), st.booleans())
def test_any_message(rule_set: RuleSet, extra: list[str], sdp: str, is_request: bool) -> None:
    """Records say exactly what was done, the result parses, identity is untouched, singletons stand once.

    And a set has nothing to repair in what it made itself.
    """
    head = "\n".join([INVITE if is_request else OK.partition("\n\n")[0], *extra])
    try:
        message = parse_message(whole(head, sdp))
    except MalformedMessage:
        return
    facts = context("a-to-b" if is_request else "b-to-a")
    draft, refused = tried(rule_set, message, facts)
    if draft is None:
        assert refused in (400, 488)
        assert sdp
        return
    after = draft.finish()
    assert as_seen(after) == as_seen(message)
    once = [item.key for item in after.headers if item.key in SINGLETONS - IDENTITY]
    assert len(set(once)) == len(once)
    kept = [item.value for item in message.headers if item.key.startswith("x-") and not item.key.startswith("x-trunk")]
    assert [
        item.value for item in after.headers if item.key.startswith("x-") and not item.key.startswith("x-trunk")
    ] == kept
    assert apply(rule_set, after, facts).changes == []
