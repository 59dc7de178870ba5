"""Answers checked against offers, and put into the terms of the offer that leg A made."""

import pytest

from proxy.sdp import Editor, NoCommonCodec, SdpError, Session, check_answer, map_answer
from proxy.sdp.offer_answer import fitting_direction
from tests.sdp.samples import (
    ALL,
    IPV6_TWO_AUDIO,
    KEY,
    OPENAI,
    OTHER_KEY,
    T38,
    TWILIO,
    TWILIO_OPUS,
    WEBRTC,
    Edit,
    edited,
    mapped,
    session,
)

HEAD = "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n"
SAFE = ("PCMU", "PCMA", "telephone-event")


def stream(*lines: str, line: str = "m=audio 4000 RTP/AVP 0") -> Session:
    return session("\n".join([HEAD + line, *lines]))


def media_lines(result: Session) -> list[str]:
    return [media.line for media in result.media]


# check_answer


def test_the_openai_answer_fits() -> None:
    assert check_answer(Session.parse(OPENAI), Session.parse(TWILIO_OPUS)) == []


@pytest.mark.parametrize("source", [TWILIO, TWILIO_OPUS, OPENAI])
def test_an_echo_is_an_answer(source: bytes) -> None:
    assert check_answer(Session.parse(source), Session.parse(source)) == []


@pytest.mark.parametrize(
    ("answer", "offer", "problems"),
    [
        (stream(), session(HEAD), ["The answer has 1 m-lines, the offer has 0."]),
        (
            stream(),
            Session.parse(IPV6_TWO_AUDIO),
            [
                "The answer has 1 m-lines, the offer has 2.",
                "The answer's m-line 1 (audio) has direction sendrecv, the offer recvonly.",
            ],
        ),
        (stream(), stream(line="m=video 9 RTP/AVP 34"), ["The answer's m-line 1 (video) is of kind audio."]),
        (
            stream(),
            stream(line="m=audio 9 RTP/SAVP 0"),
            ["The answer's m-line 1 (audio) has protocol RTP/AVP, the offer RTP/SAVP."],
        ),
        (
            stream(),
            stream(line="m=audio 0 RTP/AVP 0"),
            ["The answer accepts m-line 1 (audio), which the offer does not use."],
        ),
        (
            stream(line="m=audio 9 RTP/AVP 8"),
            stream(),
            [
                "The answer's m-line 1 (audio) has payload type 8 (PCMA/8000), which was not offered.",
                "The answer's m-line 1 (audio) has no codec in common with the offer.",
            ],
        ),
        (
            stream("a=rtpmap:96 pcmu/8000", line="m=audio 9 RTP/AVP 96 97 x"),
            stream(),
            [
                "The answer's m-line 1 (audio) has payload type 96 for pcmu/8000, offered as 0.",
                "The answer's m-line 1 (audio) has payload type 97 (no rtpmap), which was not offered.",
                "The answer's m-line 1 (audio) has x, which is no payload type.",
                "The answer's m-line 1 (audio) has no codec in common with the offer.",
            ],
        ),
        (
            stream("a=rtpmap:101 telephone-event/8000", line="m=audio 9 RTP/AVP 101"),
            Session.parse(TWILIO_OPUS),
            ["The answer's m-line 1 (audio) has no codec in common with the offer."],
        ),
        (
            stream(line="m=image 9 udptl t38 x"),
            stream(line="m=image 9 udptl T38"),
            ["The answer's m-line 1 (image) has format x, which was not offered."],
        ),
        (
            stream("a=sendonly"),
            stream("a=sendonly"),
            ["The answer's m-line 1 (audio) has direction sendonly, the offer sendonly."],
        ),
        (
            stream(line="m=audio 9 RTP/SAVP 0"),
            Session.parse(TWILIO),
            ["The answer's m-line 1 (audio) has no a=crypto."],
        ),
        (
            stream(f"a=crypto:1 X inline:{KEY}", line="m=audio 9 RTP/SAVP 0"),
            Session.parse(TWILIO),
            ["The answer's m-line 1 (audio) has a=crypto 1 X, which was not offered."],
        ),
        (
            stream(
                f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
                f"a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
                line="m=audio 9 RTP/SAVP 0",
            ),
            Session.parse(TWILIO),
            ["The answer's m-line 1 (audio) has more than one a=crypto."],
        ),
        (stream(line="m=audio 0 RTP/AVP 99"), stream(), []),
        (stream(line="m=audio 9 rtp/avp 0"), stream(), []),
    ],
)
def test_check_answer(answer: Session, offer: Session, problems: list[str]) -> None:
    assert check_answer(answer, offer) == problems


@pytest.mark.parametrize(
    ("answered", "offered", "expected"),
    [
        ("sendrecv", "sendrecv", "sendrecv"),
        ("inactive", "sendrecv", "inactive"),
        ("sendrecv", "sendonly", "recvonly"),
        ("recvonly", "sendonly", "recvonly"),
        ("sendonly", "sendonly", "inactive"),
        ("sendrecv", "recvonly", "sendonly"),
        ("recvonly", "recvonly", "inactive"),
        ("sendrecv", "inactive", "inactive"),
        ("sendonly", "inactive", "inactive"),
    ],
)
def test_directions_of_an_answer(answered: str, offered: str, expected: str) -> None:
    assert fitting_direction(answered, offered) == expected


# map_answer


def test_an_answer_that_fits_is_left_alone() -> None:
    offer = Session.parse(TWILIO_OPUS)
    sent, _ = edited(offer, lambda editor: editor.keep_codecs(SAFE))
    answer = Session.parse(OPENAI)
    result, edits = mapped(answer, sent, offer)
    assert edits == []
    assert result.serialize() == OPENAI
    assert result is not answer


@pytest.mark.parametrize("source", [TWILIO, TWILIO_OPUS, OPENAI, T38])
def test_an_echo_is_left_alone(source: bytes) -> None:
    offer = Session.parse(source)
    result, edits = mapped(offer, offer, offer)
    assert edits == []
    assert result.serialize() == source


def test_removed_streams_come_back_refused() -> None:
    offer = Session.parse(WEBRTC)

    def operate(editor: Editor) -> None:
        editor.keep_media(["audio"])
        editor.keep_codecs(SAFE)
        editor.set_media(0, protocol="UDP/TLS/RTP/SAVP")

    sent, _ = edited(offer, operate)
    answer = stream("a=rtpmap:126 telephone-event/8000", line="m=audio 9000 UDP/TLS/RTP/SAVP 8 126")
    result, edits = mapped(answer, sent, offer)
    assert media_lines(result) == [
        "m=audio 9000 UDP/TLS/RTP/SAVPF 8 126",
        "m=video 0 UDP/TLS/RTP/SAVPF 96 97",
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
    ]
    assert check_answer(result, offer) == []
    assert len(edits) == 3


def test_streams_before_the_kept_one_come_back_before_it() -> None:
    offer = session(HEAD + "m=video 6000/2 RTP/AVP 34\nm=audio 4000 RTP/AVP 0\nm=text 6002 RTP/AVP 98")
    sent, _ = edited(offer, lambda editor: editor.keep_media(["audio"]))
    answer = session("v=0\ns=-\nt=0 0\nm=audio 7000 RTP/AVP 0\nc=IN IP4 192.0.2.3\na=ptime:20")
    result, _ = mapped(answer, sent, offer)
    assert result.lines == [
        "v=0",
        "s=-",
        "t=0 0",
        "m=video 0 RTP/AVP 34",
        "c=IN IP4 192.0.2.3",
        "m=audio 7000 RTP/AVP 0",
        "c=IN IP4 192.0.2.3",
        "a=ptime:20",
        "m=text 0 RTP/AVP 98",
        "c=IN IP4 192.0.2.3",
    ]


def test_two_streams_of_a_kind_of_which_one_was_removed() -> None:
    offer = session(HEAD + "m=audio 4000 RTP/AVP 0\nm=audio 4002 RTP/AVP 8\nm=audio 4004 RTP/AVP 18")
    sent, _ = edited(offer, lambda editor: editor.remove_media(0))
    answer = session(HEAD + "m=audio 5002 RTP/AVP 8\nm=audio 5004 RTP/AVP 18")
    result, _ = mapped(answer, sent, offer)
    assert media_lines(result) == ["m=audio 0 RTP/AVP 0", "m=audio 5002 RTP/AVP 8", "m=audio 5004 RTP/AVP 18"]


def test_streams_of_a_kind_go_together_in_order_whatever_their_ports() -> None:
    offer = session(HEAD + "m=audio 4000 RTP/AVP 0\nm=video 9 RTP/AVP 34\nm=audio 4002 RTP/AVP 8")
    sent = session(HEAD + "m=audio 4002 RTP/AVP 0\nm=audio 4004 RTP/AVP 8")
    answer = session(HEAD + "m=audio 5000 RTP/AVP 0\nm=audio 5002 RTP/AVP 8")
    result, _ = mapped(answer, sent, offer)
    assert media_lines(result) == ["m=audio 5000 RTP/AVP 0", "m=video 0 RTP/AVP 34", "m=audio 5002 RTP/AVP 8"]


def test_an_answer_with_too_few_or_too_many_streams() -> None:
    offer = session(HEAD + "m=audio 4000 RTP/AVP 0\nm=video 4002 RTP/AVP 34")
    result, _ = mapped(session(HEAD + "m=audio 5000 RTP/AVP 0"), offer, offer)
    assert media_lines(result) == ["m=audio 5000 RTP/AVP 0", "m=video 0 RTP/AVP 34"]
    result, _ = mapped(session(HEAD + "m=text 1 RTP/AVP 98\nm=audio 5000 RTP/AVP 0\nm=audio 2 RTP/AVP 0"), offer, offer)
    assert media_lines(result) == ["m=audio 5000 RTP/AVP 0", "m=video 0 RTP/AVP 34"]
    result, _ = mapped(session(HEAD), offer, offer)
    assert media_lines(result) == ["m=audio 0 RTP/AVP 0", "m=video 0 RTP/AVP 34"]


def test_payload_numbers_of_leg_a() -> None:
    offer = stream(
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111",
        "a=rtpmap:100 telephone-event/8000",
        line="m=audio 4000 RTP/AVP 111 63 100 0",
    )
    sent = stream(
        "a=rtpmap:96 opus/48000/2",
        "a=rtpmap:97 red/48000/2",
        "a=rtpmap:111 telephone-event/8000",
        line="m=audio 4000 RTP/AVP 96 97 111 0",
    )
    answer = stream(
        "a=rtpmap:96 OPUS/48000/2",
        "a=rtcp-fb:96 nack",
        "a=fmtp:96 useinbandfec=1",
        "a=rtpmap:97 red/48000/2",
        "a=fmtp:97 96/96",
        "a=rtpmap: 111 telephone-event/8000",
        "a=fmtp:111 0-16",
        "a=rtpmap:100 X/8000",
        "a=rtcp-fb:* nack",
        line="m=audio 5000 RTP/AVP 0 96 97 111",
    )
    result, _ = mapped(answer, sent, offer)
    assert result.lines[5:] == [
        "m=audio 5000 RTP/AVP 0 111 63 100",
        "a=rtpmap:111 OPUS/48000/2",
        "a=rtcp-fb:111 nack",
        "a=fmtp:111 useinbandfec=1",
        "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111",
        "a=rtpmap:100 telephone-event/8000",
        "a=fmtp:100 0-16",
        "a=rtcp-fb:* nack",
    ]
    assert check_answer(result, offer) == []


def test_two_payload_numbers_that_change_places() -> None:
    offer = stream("a=rtpmap:96 PCMU/16000", "a=rtpmap:97 PCMA/16000", line="m=audio 4000 RTP/AVP 96 97")
    answer = stream("a=rtpmap:97 PCMU/16000", "a=rtpmap:96 PCMA/16000", line="m=audio 5000 RTP/AVP 97 96")
    result, _ = mapped(answer, answer, offer)
    assert result.lines[5:] == [
        "m=audio 5000 RTP/AVP 96 97",
        "a=rtpmap:96 PCMU/16000",
        "a=rtpmap:97 PCMA/16000",
    ]


def test_of_several_equal_codecs_number_and_then_parameters_decide() -> None:
    lines = ["a=rtpmap:96 H264/90000", "a=fmtp:96 p=1", "a=rtpmap:97 H264/90000", "a=fmtp:97 p=2"]
    offer = stream(*lines, line="m=video 4000 RTP/AVP 96 97")
    result, edits = mapped(stream(*lines[2:], line="m=video 5000 RTP/AVP 97"), offer, offer)
    assert edits == []
    answer = stream("a=rtpmap:99 H264/90000", "a=fmtp:99 p=2", line="m=video 5000 RTP/AVP 99")
    result, _ = mapped(answer, offer, offer)
    assert result.media[0].formats == ["97"]


def test_missing_rtpmap_of_a_dynamic_payload() -> None:
    offer = Session.parse(TWILIO_OPUS)
    answer = stream("a=fmtp:101 0-16", line="m=audio 5000 RTP/AVP 0 101")
    result, edits = mapped(answer, offer, offer)
    assert edits == [(6, None, "a=rtpmap:101 telephone-event/8000")]
    answer = stream("a=rtpmap:101 telephone-event", line="m=audio 5000 RTP/AVP 107 101")
    result, _ = mapped(answer, offer, offer)
    assert result.lines[6:] == ["a=rtpmap:107 opus/48000/2", "a=rtpmap:101 telephone-event/8000"]


def test_missing_rtpmap_of_a_number_that_was_changed_on_the_way() -> None:
    offer = stream("a=rtpmap:96 telephone-event/8000", line="m=audio 4000 RTP/AVP 0 96")
    sent = stream("a=rtpmap:101 telephone-event/8000", line="m=audio 4000 RTP/AVP 0 101")
    result, _ = mapped(stream(line="m=audio 5000 RTP/AVP 0 101"), sent, offer)
    assert result.lines[5:] == ["m=audio 5000 RTP/AVP 0 96", "a=rtpmap:96 telephone-event/8000"]


def test_a_static_payload_that_leg_a_numbered_otherwise() -> None:
    offer = stream("a=rtpmap:96 PCMU/8000", "a=rtpmap:8 PCMU/8000", line="m=audio 4000 RTP/AVP 8 96")
    result, _ = mapped(stream(), offer, offer)
    assert result.lines[5:] == ["m=audio 4000 RTP/AVP 8", "a=rtpmap:8 PCMU/8000"]


def test_an_rtpmap_of_the_offer_alone_names_the_codec() -> None:
    offer = stream("a=rtpmap:18 G729A/8000", line="m=audio 4000 RTP/AVP 18")
    result, _ = mapped(stream(line="m=audio 5000 RTP/AVP 18"), offer, offer)
    assert result.lines[5:] == ["m=audio 5000 RTP/AVP 18", "a=rtpmap:18 G729A/8000"]
    unnamed = stream(line="m=audio 4000 RTP/AVP 97 0")
    result, edits = mapped(stream(line="m=audio 5000 RTP/AVP 0 97"), unnamed, unnamed)
    assert edits == []


def test_formats_that_leg_a_did_not_offer_go() -> None:
    answer = stream(
        "a=rtpmap:96 opus/48000/2",
        "a=fmtp:96 x",
        "a=rtcp-fb:96 nack",
        "a=ptime:20",
        line="m=audio 5000 RTP/AVP 96 0 8 x",
    )
    result, _ = mapped(answer, answer, stream())
    assert result.lines[5:] == ["m=audio 5000 RTP/AVP 0", "a=ptime:20"]


@pytest.mark.parametrize(
    "answer",
    [
        stream(line="m=audio 5000 RTP/AVP 8"),
        stream("a=rtpmap:101 telephone-event/8000", line="m=audio 5000 RTP/AVP 101"),
        stream(line="m=audio 5000 RTP/AVP 99 x"),
    ],
)
def test_no_codec_of_leg_a_is_left(answer: Session) -> None:
    offer = stream("a=rtpmap:101 telephone-event/8000", line="m=audio 4000 RTP/AVP 0 101")
    edits: list[Edit] = []
    before = list(answer.lines)
    with pytest.raises(NoCommonCodec) as caught:
        map_answer(answer, offer, offer, lambda index, old, new: edits.append((index, old, new)))
    assert caught.value.reason.startswith("m-line 1 (audio): the answer has no codec that was offered: ")
    assert edits == []
    assert answer.lines == before


def test_a_stream_of_events_alone_is_one() -> None:
    offer = stream("a=rtpmap:101 telephone-event/8000", line="m=audio 4000 RTP/AVP 101")
    assert mapped(offer, offer, offer)[1] == []
    assert check_answer(offer, offer) == []


def test_other_formats() -> None:
    offer = stream(line="m=image 4000 udptl t38")
    result, _ = mapped(stream(line="m=image 5000 udptl T38 x"), offer, offer)
    assert media_lines(result) == ["m=image 5000 udptl T38"]
    with pytest.raises(SdpError) as caught:
        mapped(stream(line="m=image 5000 udptl x"), offer, offer)
    assert caught.value.reason == "m-line 1 (image): the answer has none of the formats that were offered"


def test_refused_streams_speak_of_leg_a() -> None:
    offer = session(HEAD + "m=audio 4000 RTP/AVP 0\nm=video 4002 RTP/SAVP 96\nm=text 0 RTP/AVP\nm=audio 0 RTP/AVP 8 0")
    answer = session(HEAD + "m=audio 5000 RTP/AVP 0\nm=video 0 RTP/AVP 34\nm=text 0 RTP/AVP\nm=audio 5004/2 RTP/AVP 0")
    result, _ = mapped(answer, offer, offer)
    assert media_lines(result) == [
        "m=audio 5000 RTP/AVP 0",
        "m=video 0 RTP/SAVP 96",
        "m=text 0 RTP/AVP 0",
        "m=audio 0 RTP/AVP 0",
    ]
    assert check_answer(result, offer) == []


@pytest.mark.parametrize(
    ("answered", "offered"),
    [
        ("RTP/AVP", "RTP/SAVP"),
        ("RTP/SAVP", "RTP/AVP"),
        ("UDP/TLS/RTP/SAVPF", "RTP/SAVPF"),
        ("udptl", "RTP/AVP"),
        ("udptl", "TCP"),
    ],
)
def test_protocols_that_leg_a_cannot_use(answered: str, offered: str) -> None:
    offer = stream(f"a=crypto:1 S inline:{KEY}", line=f"m=audio 4000 {offered} 0")
    answer = stream(f"a=crypto:1 S inline:{KEY}", line=f"m=audio 4000 {answered} 0")
    with pytest.raises(SdpError) as caught:
        mapped(answer, offer, offer)
    assert caught.value.reason == f"m-line 1 (audio): answered as {answered}, offered as {offered}"


def test_protocol_variants() -> None:
    offer = stream(line="m=audio 4000 RTP/AVP 0")
    result, _ = mapped(stream(line="m=audio 5000 RTP/AVPF 0"), offer, offer)
    assert media_lines(result) == ["m=audio 5000 RTP/AVP 0"]
    assert mapped(stream(line="m=audio 5000 rtp/avp 0"), offer, offer)[1] == []


SUITE = "AES_CM_128_HMAC_SHA1_80"
SECURE = "m=audio 5000 RTP/SAVP 0"


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ([f"a=crypto:3 {SUITE} inline:{KEY}"], [f"a=crypto:3 {SUITE} inline:{KEY}"]),
        ([f"a=crypto:1 {SUITE} inline:{KEY}"], [f"a=crypto:3 {SUITE} inline:{KEY}"]),
        ([f"a=crypto:9 {SUITE} inline:{KEY}|2^20 KDR=9"], [f"a=crypto:3 {SUITE} inline:{KEY}|2^20 KDR=9"]),
        ([f"a=crypto:4 {SUITE} inline:{KEY}"], [f"a=crypto:4 {SUITE} inline:{KEY}"]),
        (
            [
                "a=ptime:20",
                "a=crypto:1 X inline:abc",
                f"a=crypto:4 {SUITE} inline:{KEY}",
                f"a=crypto:3 {SUITE} inline:abc",
            ],
            ["a=ptime:20", f"a=crypto:4 {SUITE} inline:{KEY}"],
        ),
        ([f"a=crypto:3 {SUITE} inline:{KEY}", "a=crypto:junk"], [f"a=crypto:3 {SUITE} inline:{KEY}"]),
    ],
)
def test_crypto_tag_of_leg_a(answered: list[str], expected: list[str]) -> None:
    offer = stream(
        f"a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:{KEY}",
        f"a=crypto:3 {SUITE} inline:{KEY}",
        f"a=crypto:4 {SUITE} inline:{OTHER_KEY}",
        line="m=audio 4000 RTP/SAVP 0",
    )
    result, _ = mapped(stream(*answered, line=SECURE), offer, offer)
    assert result.lines[6:] == expected
    assert check_answer(result, offer) == []


@pytest.mark.parametrize(
    ("lines", "answered"), [([], "none"), ([f"a=crypto:1 X inline:{KEY}"], "X"), (["a=crypto:1"], "none")]
)
def test_no_key_that_leg_a_can_use(lines: list[str], answered: str) -> None:
    offer = stream(f"a=crypto:1 {SUITE} inline:{KEY}", line="m=audio 4000 RTP/SAVP 0")
    with pytest.raises(SdpError) as caught:
        mapped(stream(*lines, line=SECURE), offer, offer)
    assert (
        caught.value.reason == f"m-line 1 (audio): the answer has no a=crypto of a suite that was offered: {answered}"
    )


def test_keys_on_a_plain_stream() -> None:
    plain = stream()
    answer = stream(f"a=crypto:1 {SUITE} inline:{KEY}")
    assert mapped(answer, plain, plain)[0].lines == plain.lines
    assert mapped(answer, answer, answer)[1] == []


def test_direction_that_fits() -> None:
    hold = stream("a=sendonly")
    result, edits = mapped(stream("a=sendrecv"), hold, hold)
    assert edits == [(6, "a=sendrecv", "a=recvonly")]
    result, edits = mapped(stream(), hold, hold)
    assert edits == [(6, None, "a=recvonly")]
    assert check_answer(result, hold) == []


@pytest.mark.parametrize("source", ALL)
def test_every_answer_to_a_sample_fits_it(source: bytes) -> None:
    offer = Session.parse(source)
    answer = offer.copy()
    for media in answer.media:
        if media.kind == "video":
            Editor(answer, lambda *_: None).set_direction("recvonly", media.index)
    if source is IPV6_TWO_AUDIO:
        Editor(answer, lambda *_: None).set_direction("inactive")
    result, edits = mapped(answer, offer, offer)
    assert edits == []
    assert check_answer(result, offer) == []
