"""What features say of an INVITE, and what they never say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.diagnosis.features import Skeletons, answer_shape, describe, invite_shape

INVITE = "\r\n".join(
    [
        "INVITE sip:+15550100001@edge.example.com;transport=tls SIP/2.0",
        "v: SIP/2.0/TLS 192.0.2.10:5061;branch=z9hG4bKa",
        "Via: SIP/2.0/UDP 172.25.75.240:5060;branch=z9hG4bKb",
        "From: <sip:+15550100002@example.net>;tag=1",
        "To: <sip:15550100001@edge.example.com>",
        "Contact: <sip:+15550100002@172.25.75.240:5060;transport=udp;transport=udp>",
        "P-Asserted-Identity: <sip:anonymous@anonymous.invalid>",
        "Diversion: <sip:+15550100001@twilio.example>;reason=unconditional",
        "Supported: timer, 100rel",
        "X-Tenant: 550e8400-e29b-41d4-a716-446655440000",
        "X-Note: a long\r\n story",
        "Content-Type: application/sdp",
        "",
        "v=0\r\no=- 1 1 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 107 0 8 101",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA",
        "a=rtpmap:107 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\na=maxptime:20\r\n",
    ]
)


@pytest.mark.parametrize(
    "feature",
    [
        "header:via",
        "header:x-note",
        "header-count:via:2",
        "form:compact",
        "form:folded",
        "uri-parameter:transport",
        "from-user:E.164",
        "to-user:digits",
        "p-asserted-identity-user:anonymous",
        "diversion-reason:unconditional",
        "contact-parameter:twice",
        "supported:100rel",
        "value:x-tenant:uuid",
        "codec:opus",
        "codecs:opus,PCMU,PCMA,telephone-event",
        "protocol:RTP/SAVP",
        "crypto:AES_CM_128_HMAC_SHA1_80",
        "sdp:a=maxptime",
        "sdp-order:crypto,rtpmap,maxptime",
        "media-address:private",
    ],
)
def test_invite(feature: str) -> None:
    assert feature in invite_shape(INVITE)


def test_it_is_sorted_and_has_no_value_of_the_call() -> None:
    shape = invite_shape(INVITE)
    assert list(shape) == sorted(set(shape))
    assert not any(word in name for name in shape for word in ("5550100", "550e8400", "10.0.0.5", "AAAA", "story"))


def test_without_a_body() -> None:
    assert "no-body" in invite_shape("INVITE sip:a SIP/2.0\r\nTo: <sip:a>\r\n\r\n")
    assert "body:other" in invite_shape("INVITE sip:a SIP/2.0\r\nTo: <sip:a>\r\n\r\n{}")


def test_answer() -> None:
    text = "SIP/2.0 200 OK\r\nServer: x\r\nContent-Length: 9\r\n\r\nv=0\r\nm=audio 1 RTP/AVP 0\r\n"
    assert {"header:server", "server:x", "body", "codec:PCMU"} <= set(answer_shape(text))
    assert "header:content-type" not in answer_shape(text)


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    for shape in (invite_shape(text), answer_shape(text)):
        assert all(describe(name) for name in shape)
        assert len(shape) <= 96


@given(st.integers())
def test_lines_in_any_order_have_the_same_features(seed: int) -> None:
    head, _, body = INVITE.partition("\r\n\r\n")
    first, *lines = head.replace("\r\n ", "\0").split("\r\n")
    random.Random(seed).shuffle(lines)
    mixed = "\r\n".join([first, *lines]).replace("\0", "\r\n ")
    assert invite_shape(f"{mixed}\r\n\r\n{body}") == invite_shape(INVITE)


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ("header:x-tenant", "with `X-Tenant`"),
        ("header-count:via:2", "with 2 `Via` header fields"),
        ("codecs:PCMU,PCMA", "that offer PCMU, PCMA in this order"),
        ("from-user:anonymous", "whose From user part is anonymous"),
        ("value:x-tenant:uuid", "whose `X-Tenant` is uuid"),
        ("sdp:a=maxptime", "with `a=maxptime` in the SDP"),
        ("something:else", "with something else"),
    ],
)
def test_words(feature: str, words: str) -> None:
    assert describe(feature) == words


NAMES = (
    "From to t P-Asserted-Identity Diversion Remote-Party-ID Contact m Via Supported k require Privacy Server Allow "
    "X-Tenant x-note X-Twilio-CallSid User-Agent Content-Type"
).split()
VALUES = (
    "<sip:+15550100002@h;a=b>;tag=1;tag=2",
    "sip:anonymous@x;;c",
    "<SIP:bob@h;user=phone;user=phone>;reason=unconditional;x",
    "<sips:15550100002@h>",
    "tel:+15550100002;ext=1",
    ";reason=sip:bob@h",
    "timer, 100rel;x",
    "550e8400-e29b-41d4-a716-446655440000",
    "0123456",
    "012345678",
    "0123456789abcdef01",
    "caf\u00e9",
    "",
    "x" * 33,
    "y" * 300,
)
SDP = (
    "v=0|o=- 1 1 IN IP4 10.0.0.5|s=-|c=IN IP4 10.0.0.5|c=IN IP4 192.0.2.1|c=IN IP6 ::1|c=|t=0 0"
    "|m=audio 4000 RTP/SAVP 0 8|m=audio 1|m=video 2 RTP/AVP 99 101|a=crypto:1 AES inline:AAAA|a=crypto:1"
    "|a=rtpmap:99 opus/48000/2|a=ptime:20|a=x||b"
).split("|")
LINES = st.builds(
    lambda name, space, value: f"{name}{space}{value}",
    st.sampled_from(NAMES) | st.text("aX-", min_size=1),
    st.sampled_from([":", ": ", " : ", ""]),
    st.sampled_from(VALUES) | st.text(max_size=20).map(lambda text: text.replace("\n", "").replace("\r", "")),
).filter(bool)
BODIES = st.lists(st.sampled_from(SDP), max_size=12) | st.lists(st.sampled_from(SDP), max_size=9).map(
    lambda lines: ["v=0", *lines]
)


@given(st.sampled_from(["INVITE sip:a@h;x;Y=1 SIP/2.0", "INVITE", "SIP/2.0 200 OK;x", ""]), st.lists(LINES), BODIES)
def test_a_skeleton_has_the_features_of_its_message(start: str, headers: list[str], body: list[str]) -> None:
    lines = [start, *headers, "", *(body or [""])]
    bones = Skeletons().of(lines)
    assert bones is not None
    text, bare = "\r\n".join(lines), "\r\n".join(bones)
    assert invite_shape(bare) == invite_shape(text)
    assert answer_shape(bare) == answer_shape(text)


def test_calls_that_differ_in_values_have_one_skeleton() -> None:
    lines = INVITE.replace("a long\r\n story", "a story").split("\r\n")
    other = [
        line.replace("010000", "999999").replace("z9hG4bK", "x").replace("446655440000", "0" * 12) for line in lines
    ]
    assert other != lines
    skeletons = Skeletons()
    assert skeletons.of(other) == skeletons.of(lines)
    assert skeletons.of([*lines[:2], "X: a\r\n b", *lines[2:]]) is None
    assert skeletons.of([*lines[: lines.index("")], "", "v=0\r\n\tx"]) is None
