"""The descriptions of the simulated OpenAI side."""

import random

import pytest

from proxy.sdp.errors import SdpError
from proxy.sdp.offer_answer import check_answer
from proxy.sdp.session import Session
from proxy.sim.media import Origin, is_srtp, make_answer, make_offer, sdes_key

ORIGIN = Origin(2113971860, 2113971862, "203.0.113.219", 43955, "c2VjcmV0")
CODECS = ("PCMU", "PCMA", "opus")


def offer(*media: str) -> Session:
    lines = ["v=0", "o=root 1 1 IN IP4 172.18.165.214", "s=x", "c=IN IP4 203.0.113.121", "t=0 0", *media]
    return Session.parse("".join(f"{line}\r\n" for line in lines).encode())


def lines(body: bytes) -> list[str]:
    return body.decode().split("\r\n")[:-1]


def test_answer_is_written_like_the_real_one() -> None:
    asked = offer(
        "m=audio 12692 RTP/AVP 0 8 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
    )
    body = make_answer(asked, ORIGIN, CODECS)
    assert lines(body) == [
        "v=0",
        "o=- 2113971860 2113971862 IN IP4 203.0.113.219",
        "s=OAI",
        "c=IN IP4 203.0.113.219",
        "t=0 0",
        "m=audio 43955 RTP/AVP 0 101",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=rtpmap:0 PCMU/8000",
    ]
    assert check_answer(Session.parse(body), asked) == []


def test_srtp_is_answered_in_kind_with_the_offered_tag() -> None:
    asked = offer(
        "m=audio 12692 RTP/SAVP 8",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:YWJj",
        "a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:YWJj",
    )
    body = make_answer(asked, ORIGIN, CODECS)
    assert lines(body)[5:] == [
        "m=audio 43955 RTP/SAVP 8",
        "a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0",
        "a=ptime:20",
        "a=rtpmap:8 PCMA/8000",
    ]
    assert is_srtp(asked)
    assert check_answer(Session.parse(body), asked) == []


def test_other_sections_are_refused_in_their_place() -> None:
    asked = offer(
        "m=video 5000 RTP/AVP 96",
        "a=rtpmap:96 VP8/90000",
        "m=audio 5002 RTP/AVP 107",
        "a=rtpmap:107 opus/48000/2",
        "m=audio 5004 RTP/AVP 0",
    )
    body = make_answer(asked, ORIGIN, CODECS)
    assert [line for line in lines(body) if line.startswith("m=")] == [
        "m=video 0 RTP/AVP 96",
        "m=audio 43955 RTP/AVP 107",
        "m=audio 0 RTP/AVP 0",
    ]
    assert check_answer(Session.parse(body), asked) == []


@pytest.mark.parametrize(
    "media",
    [
        ["m=audio 5000 RTP/AVP 18"],
        ["m=audio 5000 RTP/AVP 101", "a=rtpmap:101 telephone-event/8000"],
        ["m=audio 0 RTP/AVP 0"],
        ["m=video 5000 RTP/AVP 0"],
        ["m=audio 5000 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:YWJj"],
        ["m=audio 5000 UDP/TLS/RTP/SAVPF 0"],
        [],
    ],
)
def test_an_offer_that_nothing_can_be_taken_from_has_no_answer(media: list[str]) -> None:
    with pytest.raises(SdpError):
        make_answer(offer(*media), ORIGIN, CODECS)


def test_own_offer_can_be_answered() -> None:
    asked = Session.parse(make_offer(ORIGIN, srtp=True))
    body = make_answer(asked, ORIGIN.next_version(), CODECS)
    assert check_answer(Session.parse(body), asked) == []
    assert " 2113971863 " in lines(body)[1]


def test_key_has_the_length_that_the_suite_needs() -> None:
    assert len(sdes_key(random.Random(1))) == 40
