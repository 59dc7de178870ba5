"""`do: sdp`: each operation reaches the SDP's editor with what the rule says."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.rewrite.engine import RuleReject
from tests.rewrite.snippets import apply, context, message, rule_set, shown

AUDIO = "m=audio 4000 RTP/AVP 107 8 0 101\na=rtpmap:107 opus/48000/2\na=rtpmap:101 telephone-event/8000"
KEY_80 = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc"
KEY_32 = "a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:def"
SESSION = "v=0\no=root 1 2 IN IP4 10.0.0.1\ns=Gateway\nc=IN IP4 203.0.113.1\nb=AS:64\nt=0 0\nm=audio 4000 RTP/AVP 0"


def after(operations: str, sdp: str, **facts: Any) -> str:
    """What operations make of an SDP; done twice they make nothing more of it."""
    rules = rule_set(f"sdp: {{{operations}}}")
    draft = apply(rules, message(sdp), context(**facts))
    assert apply(rules, draft.finish(), context(**facts)).changes == []
    return shown(draft, sdp)


@pytest.mark.parametrize(
    ("operations", "before", "expected"),
    [
        ("codecs: safe", AUDIO, "m=audio 4000 RTP/AVP 0 8 101\na=rtpmap:101 telephone-event/8000"),
        ("codecs: PCMA", AUDIO, "m=audio 4000 RTP/AVP 8"),
        ("codecs: [opus/48000/2, pcmu]", AUDIO, "m=audio 4000 RTP/AVP 107 0\na=rtpmap:107 opus/48000/2"),
        ("deny-codecs: [opus, PCMA]", AUDIO, "m=audio 4000 RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000"),
        ("order-codecs: PCMU", AUDIO, AUDIO.replace("107 8 0 101", "0 107 8 101")),
        ("order-codecs: safe", AUDIO, AUDIO.replace("107 8 0 101", "0 8 101 107")),
        ("static-rtpmaps: true", "m=audio 4000 RTP/AVP 9", "m=audio 4000 RTP/AVP 9\na=rtpmap:9 G722/8000"),
        ("drop-dangling: true", "m=audio 4000 RTP/AVP 0\na=fmtp:101 0-16", "m=audio 4000 RTP/AVP 0"),
        (
            "required-lines: true",
            "v=0\nc=IN IP4 203.0.113.1\nm=audio 4000 RTP/AVP 0",
            "v=0\no=- 0 0 IN IP4 203.0.113.1\ns=-\nc=IN IP4 203.0.113.1\nt=0 0\nm=audio 4000 RTP/AVP 0",
        ),
        ("ptime: true", "m=audio 4000 RTP/AVP 0\na=ptime:0", "m=audio 4000 RTP/AVP 0\na=ptime:20"),
        ("ptime: {default-ms: 30}", "m=audio 4000 RTP/AVP 0\na=ptime:0", "m=audio 4000 RTP/AVP 0\na=ptime:30"),
        ("ptime: {allowed-ms: 20}", "m=audio 4000 RTP/AVP 0\na=ptime:30", "m=audio 4000 RTP/AVP 0\na=ptime:20"),
        (
            "ptime: {default-ms: 5, allowed-ms: [10, 30]}",
            "m=audio 4000 RTP/AVP 0\na=ptime:20",
            "m=audio 4000 RTP/AVP 0\na=ptime:5",
        ),
        ("crypto: safe", f"m=audio 4000 RTP/SAVP 0\n{KEY_80}\n{KEY_32}", f"m=audio 4000 RTP/SAVP 0\n{KEY_80}"),
        (
            "crypto: AES_CM_128_HMAC_SHA1_32",
            f"m=audio 4000 RTP/SAVP 0\n{KEY_80}\n{KEY_32}",
            f"m=audio 4000 RTP/SAVP 0\n{KEY_32}",
        ),
        (
            "drop-attributes: webrtc",
            "m=audio 4000 RTP/AVP 0\na=ice-ufrag:x\na=rtcp-mux\na=mid:0\na=ptime:20",
            "m=audio 4000 RTP/AVP 0\na=ptime:20",
        ),
        (
            'drop-attributes: [ptime, "x-*"]',
            "m=audio 4000 RTP/AVP 0\na=x-a:1\na=ptime:20\na=mid:0",
            "m=audio 4000 RTP/AVP 0\na=mid:0",
        ),
        ("keep-attributes: [rtpmap]", f"{AUDIO}\na=ptime:20\na=sendrecv", AUDIO),
        ("keep-media: audio", f"{AUDIO}\nm=video 4002 RTP/AVP 96\na=rtpmap:96 VP8/90000", AUDIO),
        ("drop-bandwidth: true", SESSION, SESSION.replace("b=AS:64\n", "")),
        ("drop-bandwidth: TIAS", SESSION, SESSION),
        ("direction: inactive", "m=audio 4000 RTP/AVP 0\na=sendonly", "m=audio 4000 RTP/AVP 0\na=inactive"),
        ('origin-address: "{local.host}"', SESSION, SESSION.replace("10.0.0.1", "198.51.100.77")),
        ('origin-address: "2001:db8::1"', SESSION, SESSION.replace("IP4 10.0.0.1", "IP6 2001:db8::1")),
        ('origin-address: "{header.X-None}"', SESSION, SESSION),
        ('origin-address: "not an address"', SESSION, SESSION),
        ('origin-user: "{call.id}"', SESSION, SESSION.replace("root", "5f2c9a")),
        ("connection-address: 203.0.113.9", SESSION, SESSION.replace("203.0.113.1", "203.0.113.9")),
        ("session-name: A call", SESSION, SESSION.replace("Gateway", "A call")),
    ],
)
def test_operation(operations: str, before: str, expected: str) -> None:
    assert after(operations, before) == expected


def test_safe_is_what_the_settings_say() -> None:
    assert after("codecs: safe", AUDIO, codecs=("opus",)) == "m=audio 4000 RTP/AVP 107\na=rtpmap:107 opus/48000/2"
    keys = f"m=audio 4000 RTP/SAVP 0\n{KEY_80}\n{KEY_32}"
    suites = ("AES_CM_128_HMAC_SHA1_32",)
    assert after("crypto: safe", keys, crypto_suites=suites) == f"m=audio 4000 RTP/SAVP 0\n{KEY_32}"


def test_operations_go_in_the_order_in_which_they_are_written() -> None:
    before = "m=audio 4000 RTP/AVP 8 0"
    draft = apply(rule_set("sdp: {codecs: PCMU, static-rtpmaps: true}"), message(before))
    assert shown(draft, before) == "m=audio 4000 RTP/AVP 0\na=rtpmap:0 PCMU/8000"
    assert len(draft.changes) == 2


@pytest.mark.parametrize(
    ("operations", "sdp", "status"),
    [
        ("codecs: G729", AUDIO, 488),
        ("codecs: telephone-event", AUDIO, 488),
        ("deny-codecs: [opus, PCMA, PCMU]", AUDIO, 488),
        ("keep-media: video", AUDIO, 488),
        ("crypto: F8_128_HMAC_SHA1_80", f"m=audio 4000 RTP/SAVP 0\n{KEY_80}", 488),
        ("codecs: safe", "v=1", 400),
        ("codecs: safe", "v=0\nm=audio x RTP/AVP 0", 400),
    ],
)
def test_unusable_sdp_is_refused(operations: str, sdp: str, status: int) -> None:
    whole = message(f"Content-Type: application/sdp\n\n{sdp}")
    with pytest.raises(RuleReject) as refused:
        apply(rule_set(f"sdp: {{{operations}}}"), whole)
    assert (refused.value.status, refused.value.rule) == (status, "rule:test/one")
    assert refused.value.reason.isprintable()


def test_other_bodies_are_left_alone() -> None:
    whole = message("Content-Type: text/plain\n\nm=audio 4000 RTP/AVP 0")
    assert apply(rule_set("sdp: {codecs: safe, keep-media: audio}"), whole).changes == []


def test_line_ends_are_repaired_with_the_first_edit_alone() -> None:
    whole = message("")
    whole.body = b"v=0\no=- 1 1 IN IP4 203.0.113.1\ns=-\nt=0 0\nm=audio 4000 RTP/AVP 0 8\n"
    assert apply(rule_set("sdp: {static-rtpmaps: true}"), whole).finish().body.count(b"\r\n") == 7
    assert apply(rule_set("sdp: {keep-media: audio}"), whole).finish().body == whole.body
