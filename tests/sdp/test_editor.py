"""The operations of the Editor on real descriptions: what changes, and that nothing else does."""

from collections.abc import Callable

import pytest

from proxy.sdp import WEBRTC_ATTRIBUTES, Editor, NoCommonCodec, SdpError, Session
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
    session,
)

HEAD = "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n"
SAFE = ("PCMU", "PCMA", "telephone-event")


def audio(*lines: str, formats: str = "0", protocol: str = "RTP/AVP") -> Session:
    """A session of one audio stream with `lines` in its section."""
    return session(HEAD + "\n".join([f"m=audio 4000 {protocol} {formats}", *lines]))


def section(result: Session, index: int = 0) -> list[str]:
    """The lines of a media section behind the m= line."""
    media = result.media[index]
    return result.lines[media.start + 1 : media.end]


def formats(result: Session, index: int = 0) -> str:
    return " ".join(result.media[index].formats)


# Primitives


def test_primitives_record_one_edit_each() -> None:
    def operate(editor: Editor) -> None:
        editor.replace(2, "s=x")
        editor.insert(len(editor.session.lines), "a=last")
        editor.remove(4)
        editor.replace(2, "s=x")

    result, edits = edited(TWILIO, operate)
    assert edits == [(2, "s=Twilio Media Gateway", "s=x"), (14, None, "a=last"), (4, "t=0 0", None)]
    assert result.serialize().endswith(b"a=sendrecv\r\na=last\r\n")


@pytest.mark.parametrize(
    "operate",
    [
        lambda editor: editor.replace(14, "a=x"),
        lambda editor: editor.replace(-1, "a=x"),
        lambda editor: editor.remove(14),
        lambda editor: editor.remove(0),
        lambda editor: editor.insert(15, "a=x"),
        lambda editor: editor.insert(0, "a=x"),
        lambda editor: editor.insert(3, "a=x\r\na=y"),
        lambda editor: editor.replace(5, "m=audio nine RTP/AVP 0"),
        lambda editor: editor.set_session_name("x\r\na=evil"),
        lambda editor: editor.set_session_name("x\ny"),
        lambda editor: editor.set_session_name("x\0y"),
        lambda editor: editor.set_origin_address("192.0.2.1\r\na=evil"),
        lambda editor: editor.set_origin_address("192.0.2.1 x"),
        lambda editor: editor.set_origin_address(""),
        lambda editor: editor.set_origin("a b", "192.0.2.1"),
        lambda editor: editor.set_origin("", "192.0.2.1"),
        lambda editor: editor.set_origin("a\n", "192.0.2.1"),
        lambda editor: editor.set_connection_address("192.0.2.1\n"),
        lambda editor: editor.set_attribute("x", "y\nz"),
        lambda editor: editor.set_attribute("x\r", "y"),
        lambda editor: editor.set_attribute("", "y"),
        lambda editor: editor.set_attribute("x:y"),
        lambda editor: editor.set_attribute("ptime", "20\r\n", media=0),
        lambda editor: editor.set_direction("both"),
        lambda editor: editor.fix_ptime(25),
    ],
)
def test_bad_values_change_nothing(operate: Callable[[Editor], None]) -> None:
    source = Session.parse(TWILIO)
    edits: list[Edit] = []
    editor = Editor(source, lambda index, before, after: edits.append((index, before, after)))
    with pytest.raises(ValueError, match=r"\w"):
        operate(editor)
    assert edits == []
    assert not editor.edited
    assert source.serialize() == TWILIO


def test_an_edited_session_goes_out_with_crlf() -> None:
    result, _ = edited(TWILIO.replace(b"\r\n", b"\n"), lambda editor: editor.set_session_name("-"))
    assert result.serialize() == TWILIO.replace(b"Twilio Media Gateway", b"-")
    assert not result.is_canonical


def test_an_unedited_session_keeps_its_bytes() -> None:
    source = TWILIO.replace(b"\r\n", b"\n")
    result, edits = edited(source, lambda editor: editor.keep_codecs(SAFE))
    assert edits == []
    assert result.serialize() == source


# Codecs


def test_keep_codecs_leaves_the_twilio_offer_alone() -> None:
    result, edits = edited(TWILIO, lambda editor: editor.keep_codecs(SAFE))
    assert edits == []
    assert result.serialize() == TWILIO


def test_keep_codecs_drops_what_belongs_to_the_others() -> None:
    result, edits = edited(TWILIO_OPUS, lambda editor: editor.keep_codecs(SAFE))
    assert edits == [
        (5, "m=audio 12692 RTP/AVP 107 0 8 101", "m=audio 12692 RTP/AVP 0 8 101"),
        (8, "a=rtpmap:107 opus/48000/2", None),
        (8, "a=fmtp:107 useinbandfec=1", None),
    ]
    assert result.media[0].attribute("rtcp") == "12693 IN IP4 203.0.113.121"


def test_keep_codecs_puts_them_in_its_own_order() -> None:
    result, edits = edited(TWILIO, lambda editor: editor.keep_codecs(["telephone-event", "pcma/8000", "PCMU"]))
    assert edits == [(5, "m=audio 12692 RTP/SAVP 0 8 101", "m=audio 12692 RTP/SAVP 101 8 0")]
    assert result.media[0].formats == ["101", "8", "0"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (SAFE, "0 8 126"),
        (("opus", "telephone-event"), "111 110"),
        (("opus", "PCMU", "telephone-event"), "111 0 110 126"),
        (("PCMU", "CN"), "0 13"),
        (("opus", "CN"), "111"),
        (("opus", "red"), "111 63"),
        (("PCMU", "red"), "0"),
    ],
)
def test_keep_codecs_matches_companions_to_codecs(names: tuple[str, ...], expected: str) -> None:
    result, _ = edited(WEBRTC, lambda editor: editor.keep_codecs(names))
    assert formats(result) == expected
    spoken_of = {
        line.split(":")[1].split(" ")[0] for line in section(result) if line.startswith(("a=rtpmap", "a=fmtp"))
    }
    assert spoken_of == set(expected.split(" "))
    assert [media.line for media in result.media[1:]] == [media.line for media in Session.parse(WEBRTC).media[1:]]


def test_keep_codecs_drops_feedback_of_dropped_payloads_only() -> None:
    source = audio(
        "a=rtpmap:96 opus/48000/2", "a=rtcp-fb:96 nack", "a=rtcp-fb:* trr-int 5", "a=rtcp-fb:0 nack", formats="96 0"
    )
    result, _ = edited(source, lambda editor: editor.keep_codecs(["PCMU"]))
    assert section(result) == ["a=rtcp-fb:* trr-int 5", "a=rtcp-fb:0 nack"]


def test_one_telephone_event_stays_though_its_clock_does_not_fit() -> None:
    source = audio("a=rtpmap:96 opus/48000/2", "a=rtpmap:101 telephone-event/8000", formats="96 101")
    result, _ = edited(source, lambda editor: editor.keep_codecs(["opus", "telephone-event"]))
    assert formats(result) == "96 101"


def test_a_static_payload_needs_no_rtpmap_to_be_kept() -> None:
    _result, edits = edited(audio(formats="18 0"), lambda editor: editor.keep_codecs(SAFE))
    assert edits == [(5, "m=audio 4000 RTP/AVP 18 0", "m=audio 4000 RTP/AVP 0")]


@pytest.mark.parametrize(
    "source",
    [
        audio("a=rtpmap:18 G729/8000", "a=rtpmap:101 telephone-event/8000", formats="18 101"),
        audio(formats="18 13"),
        audio("a=rtpmap:96 red/8000", "a=fmtp:96 18/18", formats="96 18"),
        audio(formats="97"),
        audio(formats="0", protocol="udp"),
        session(HEAD),
        session(HEAD + "m=audio 0 RTP/AVP 0"),
        session(HEAD + "m=video 4000 RTP/AVP 0"),
        Session.parse(T38),
    ],
)
def test_no_common_codec(source: Session) -> None:
    with pytest.raises(NoCommonCodec) as caught:
        edited(source, lambda editor: editor.keep_codecs(("PCMU", "PCMA", "telephone-event", "CN", "red")))
    assert caught.value.reason.startswith("no common audio codec: offered ")


def test_no_common_codec_says_what_was_offered() -> None:
    source = audio("a=rtpmap:101 telephone-event/8000", "a=rtpmap:102 telephone-event/16000", formats="18 97 101 102")
    original = source.copy()
    with pytest.raises(NoCommonCodec) as caught:
        edited(source, lambda editor: editor.keep_codecs(SAFE))
    assert caught.value.reason == (
        "no common audio codec: offered G729, 97, telephone-event; accepted PCMU, PCMA, telephone-event"
    )
    assert source.lines == original.lines


def test_an_unusable_second_stream_is_refused() -> None:
    result, edits = edited(IPV6_TWO_AUDIO, lambda editor: editor.keep_codecs(SAFE))
    assert edits == [(10, "m=audio 49180 RTP/AVP 18", "m=audio 0 RTP/AVP 18")]
    result, _ = edited(IPV6_TWO_AUDIO, lambda editor: editor.keep_codecs(["G729"]))
    assert [media.line for media in result.media] == ["m=audio 0 RTP/AVP 0 101", "m=audio 49180 RTP/AVP 18"]


def test_deny_codecs() -> None:
    result, _ = edited(WEBRTC, lambda editor: editor.deny_codecs(["opus", "CN"]))
    assert formats(result) == "9 0 8 126"
    assert not [line for line in section(result) if ":111" in line or ":63 " in line or ":110 " in line]
    _, edits = edited(WEBRTC, lambda editor: editor.deny_codecs(["G729"]))
    assert edits == []


def test_deny_codecs_refuses_and_raises_like_keep_codecs() -> None:
    result, _ = edited(IPV6_TWO_AUDIO, lambda editor: editor.deny_codecs(["PCMU"]))
    assert [media.port for media in result.media] == [0, 49180]
    with pytest.raises(NoCommonCodec) as caught:
        edited(IPV6_TWO_AUDIO, lambda editor: editor.deny_codecs(["PCMU", "g729/8000"]))
    assert caught.value.reason == "no audio codec left: offered PCMU, telephone-event, G729; denied PCMU, g729/8000"
    _, edits = edited(T38, lambda editor: editor.deny_codecs(["PCMU"]))
    assert edits == []


def test_order_codecs() -> None:
    result, edits = edited(TWILIO_OPUS, lambda editor: editor.order_codecs(["PCMA", "G729", "opus"]))
    assert formats(result) == "8 107 0 101"
    assert len(edits) == 1


def test_add_static_rtpmaps_in_the_order_of_the_formats() -> None:
    source = audio("a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16", "a=ptime:20", formats="0 101 8 11 10")
    result, _ = edited(source, lambda editor: editor.add_static_rtpmaps())
    assert section(result) == [
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:11 L16/44100",
        "a=rtpmap:10 L16/44100/2",
        "a=ptime:20",
    ]


def test_add_static_rtpmaps_without_any() -> None:
    result, _ = edited(audio("i=x", "c=IN IP4 192.0.2.9", "a=ptime:20"), lambda editor: editor.add_static_rtpmaps())
    assert section(result) == ["i=x", "c=IN IP4 192.0.2.9", "a=rtpmap:0 PCMU/8000", "a=ptime:20"]
    result, _ = edited(audio(formats="8 0"), lambda editor: editor.add_static_rtpmaps())
    assert section(result) == ["a=rtpmap:8 PCMA/8000", "a=rtpmap:0 PCMU/8000"]


def test_add_static_rtpmaps_replaces_one_that_says_nothing() -> None:
    _result, edits = edited(audio("a=rtpmap:0 PCMU"), lambda editor: editor.add_static_rtpmaps())
    assert edits == [(6, "a=rtpmap:0 PCMU", "a=rtpmap:0 PCMU/8000")]


def test_add_static_rtpmaps_where_there_is_nothing_to_add() -> None:
    for source in (TWILIO, OPENAI, WEBRTC, T38):
        assert edited(source, lambda editor: editor.add_static_rtpmaps())[1] == []
    assert edited(audio(formats="97"), lambda editor: editor.add_static_rtpmaps())[1] == []


def test_drop_dangling() -> None:
    source = audio(
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:0 PCMA/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=fmtp:8 x",
        "a=rtcp-fb:8 nack",
        "a=rtcp-fb:* nack",
        "a=rtcp-fb:101 nack",
        "a=rtcp-fb:101 nack pli",
        "a=rtpmap:101 telephone-event",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-15",
        "a=fmtp:101 0-16",
        "a=rtpmap:",
        "a=fmtp",
        "a=ptime:20",
        formats="0 101",
    )
    result, _ = edited(source, lambda editor: editor.drop_dangling())
    assert section(result) == [
        "a=rtpmap:0 PCMU/8000",
        "a=rtcp-fb:* nack",
        "a=rtcp-fb:101 nack",
        "a=rtcp-fb:101 nack pli",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-15",
        "a=ptime:20",
    ]


@pytest.mark.parametrize("source", ALL)
def test_nothing_dangles_in_the_samples(source: bytes) -> None:
    assert edited(source, lambda editor: editor.drop_dangling())[1] == []


# Packet time


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["ptime:20"], ["ptime:20"]),
        (["ptime:20 "], ["ptime:20 "]),
        (["ptime:20", "maxptime:20"], ["ptime:20", "maxptime:20"]),
        (["maxptime:150", "ptime:30"], ["maxptime:150", "ptime:30"]),
        (["ptime:0"], ["ptime:20"]),
        (["ptime:20.0"], ["ptime:20"]),
        (["ptime:22.5"], ["ptime:20"]),
        (["ptime:-20"], ["ptime:20"]),
        (["ptime:abc"], ["ptime:20"]),
        (["ptime:"], ["ptime:20"]),
        (["ptime"], ["ptime:20"]),
        (["ptime:120"], ["ptime:20"]),
        (["ptime:" + "9" * 5000], ["ptime:20"]),
        (["ptime:30", "ptime:20"], ["ptime:30"]),
        (["ptime:0", "ptime:30"], ["ptime:30"]),
        (["ptime:0", "ptime:5", "sendrecv"], ["ptime:20", "sendrecv"]),
        (["maxptime:0"], []),
        (["maxptime:x", "ptime:20"], ["ptime:20"]),
        (["maxptime:5"], []),
        (["maxptime:99999"], []),
        (["maxptime:40", "maxptime:60"], ["maxptime:40"]),
        (["maxptime:0", "maxptime:60"], ["maxptime:60"]),
        (["ptime:40", "maxptime:20"], ["ptime:20", "maxptime:20"]),
        (["ptime:60", "maxptime:35"], ["ptime:30", "maxptime:35"]),
        (["ptime:x", "maxptime:10"], ["ptime:10", "maxptime:10"]),
        ([], []),
    ],
)
def test_fix_ptime(before: list[str], after: list[str]) -> None:
    result, edits = edited(audio(*["a=" + text for text in before]), lambda editor: editor.fix_ptime())
    assert section(result) == ["a=" + text for text in after]
    assert bool(edits) == (before != after)


def test_fix_ptime_of_the_session_and_of_audio_only() -> None:
    source = session(HEAD + "a=ptime:x\nm=video 9 RTP/AVP 34\na=ptime:1\nm=audio 9 RTP/AVP 0\na=ptime:1\na=ptime:2")
    _result, edits = edited(source, lambda editor: editor.fix_ptime(10, (10, 20)))
    assert edits == [(5, "a=ptime:x", "a=ptime:10"), (9, "a=ptime:1", "a=ptime:10"), (10, "a=ptime:2", None)]


# Keys

SHA80 = "AES_CM_128_HMAC_SHA1_80"
SHA32 = "AES_CM_128_HMAC_SHA1_32"


def crypto(tag: int, suite: str, key: str = KEY, rest: str = "") -> str:
    return f"a=crypto:{tag} {suite} inline:{key}{rest}"


def test_keep_crypto_keeps_order_and_tags() -> None:
    lines = [crypto(1, "AEAD_AES_256_GCM"), crypto(2, SHA32), crypto(3, SHA80), "a=ptime:20", "a=crypto:4 junk"]
    source = audio(*lines, protocol="RTP/SAVP")
    result, edits = edited(source, lambda editor: editor.keep_crypto([SHA80, SHA32]))
    assert section(result) == [lines[1], lines[2], "a=ptime:20"]
    assert edits == [(6, lines[0], None), (9, lines[4], None)]
    assert edited(TWILIO, lambda editor: editor.keep_crypto([SHA80]))[1] == []
    assert edited(TWILIO, lambda editor: editor.keep_crypto([SHA80.lower()]))[1] == []


@pytest.mark.parametrize(
    ("rest", "left"),
    [
        ("|2^20|1:4", ""),
        ("|1:4", ""),
        ("|2^31", ""),
        ("|2^20|1:4 UNENCRYPTED_SRTCP", " UNENCRYPTED_SRTCP"),
        (f"|2^20|1:4;inline:{OTHER_KEY}|2^20|2:4", ""),
        (" KDR=1", " KDR=1"),
    ],
)
def test_keep_crypto_leaves_the_key_alone(rest: str, left: str) -> None:
    source = audio(crypto(7, SHA80, rest=rest), protocol="RTP/SAVP")
    result, _ = edited(source, lambda editor: editor.keep_crypto([SHA80]))
    assert section(result) == [crypto(7, SHA80, rest=left)]


def test_keep_crypto_prefers_the_key_without_mki() -> None:
    lines = [crypto(1, SHA80, rest="|2^31|1:1"), crypto(2, SHA80, OTHER_KEY, "|2^31"), crypto(3, SHA32, rest="|1:1")]
    result, _ = edited(audio(*lines, protocol="RTP/SAVP"), lambda editor: editor.keep_crypto([SHA80, SHA32]))
    assert section(result) == [crypto(2, SHA80, OTHER_KEY), crypto(3, SHA32)]


@pytest.mark.parametrize(
    ("lines", "protocol", "offered"),
    [
        ([crypto(1, SHA32)], "RTP/SAVP", SHA32),
        ([crypto(1, "A"), crypto(2, "B")], "RTP/SAVPF", "A, B"),
        (["a=fingerprint:sha-256 00"], "RTP/SAVP", "none"),
    ],
)
def test_no_common_crypto_suite(lines: list[str], protocol: str, offered: str) -> None:
    source = audio(*lines, protocol=protocol)
    original = list(source.lines)
    with pytest.raises(SdpError) as caught:
        edited(source, lambda editor: editor.keep_crypto([SHA80]))
    assert caught.value.reason == f"no common SRTP crypto suite for audio: offered {offered}; accepted {SHA80}"
    assert source.lines == original


def test_keep_crypto_elsewhere() -> None:
    assert edited(WEBRTC, lambda editor: editor.keep_crypto([SHA80]))[1] == []
    refused = session(HEAD + "m=audio 0 RTP/SAVP 0\n" + crypto(1, SHA32))
    assert edited(refused, lambda editor: editor.keep_crypto([SHA80]))[1] == []
    plain = audio(crypto(1, SHA32))  # "best effort" SRTP on a plain line
    assert section(edited(plain, lambda editor: editor.keep_crypto([SHA80]))[0]) == []


# Attributes


def test_drop_webrtc_attributes() -> None:
    result, _ = edited(WEBRTC, lambda editor: editor.drop_attributes(WEBRTC_ATTRIBUTES))
    assert result.attributes() == []
    assert section(result) == [
        "c=IN IP4 198.51.100.20",
        "a=rtcp:9 IN IP4 0.0.0.0",
        "a=sendrecv",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111",
        "a=rtpmap:9 G722/8000",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:13 CN/8000",
        "a=rtpmap:110 telephone-event/48000",
        "a=rtpmap:126 telephone-event/8000",
    ]
    assert Editor.WEBRTC_ATTRIBUTES == WEBRTC_ATTRIBUTES
    for source in (TWILIO, TWILIO_OPUS, OPENAI, IPV6_TWO_AUDIO, T38):
        assert edited(source, lambda editor: editor.drop_attributes(WEBRTC_ATTRIBUTES))[1] == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("ptime", "ptime"),
        ("*ptime", "ptime maxptime"),
        ("ma*", "maxptime"),
        ("m*p*e", "maxptime"),
        ("*x-a*", "x-a-b-c"),
        ("*", "rtpmap maxptime ptime sendrecv x-a-b-c"),
        ("x-*-*-c", "x-a-b-c"),
        ("x-*b-*-b-c", ""),
        ("x-a-b*b-c", ""),
        ("PTIME", ""),
        ("tim", ""),
    ],
)
def test_patterns_of_names(pattern: str, names: str) -> None:
    lines = ["a=rtpmap:0 PCMU/8000", "a=maxptime:20", "a=ptime:20", "a=sendrecv", "a=x-a-b-c:1", "b=AS:64"]
    result, _ = edited(audio(*lines), lambda editor: editor.drop_attributes([pattern]))
    kept = {name for name, _ in result.media[0].attributes()}
    assert {"rtpmap", "maxptime", "ptime", "sendrecv", "x-a-b-c"} - kept == set(names.split())
    result, _ = edited(audio(*lines), lambda editor: editor.keep_attributes([pattern]))
    assert {name for name, _ in result.media[0].attributes()} == set(names.split())
    assert section(result)[-1] == "b=AS:64"


def test_keep_attributes_at_session_level() -> None:
    result, _ = edited(IPV6_TWO_AUDIO, lambda editor: editor.keep_attributes(["rtpmap", "sendonly"]))
    assert result.attributes() == []
    assert section(result, 1) == ["b=TIAS:64000", "a=rtpmap:18 G729/8000", "a=sendonly"]


def test_set_attribute() -> None:
    def operate(editor: Editor) -> None:
        editor.set_attribute("ptime", "30", media=0)
        editor.set_attribute("rtcp-mux", media=0)
        editor.set_attribute("tool", "x:y z")

    _, edits = edited(TWILIO, operate)
    assert edits == [
        (11, "a=ptime:20", "a=ptime:30"),
        (14, None, "a=rtcp-mux"),
        (5, None, "a=tool:x:y z"),
    ]
    source = audio("a=x:1", "a=y:1", "a=x:2", "a=x")
    result, _ = edited(source, lambda editor: editor.set_attribute("x", "3", media=0))
    assert section(result) == ["a=x:3", "a=y:1"]


def test_set_direction() -> None:
    result, edits = edited(IPV6_TWO_AUDIO, lambda editor: editor.set_direction("sendrecv"))
    assert [media.direction for media in result.media] == ["sendrecv", "sendrecv"]
    assert edits == [(10, None, "a=sendrecv"), (15, "a=sendonly", "a=sendrecv")]
    result, edits = edited(IPV6_TWO_AUDIO, lambda editor: editor.set_direction("recvonly", media=0))
    assert edits == []
    _, edits = edited(OPENAI, lambda editor: editor.set_direction("sendrecv"))
    assert edits == []
    result, _ = edited(audio("a=inactive", "a=sendonly "), lambda editor: editor.set_direction("sendonly"))
    assert section(result) == ["a=sendonly"]


def test_drop_bandwidth() -> None:
    assert len(edited(IPV6_TWO_AUDIO, lambda editor: editor.drop_bandwidth())[1]) == 2
    _, edits = edited(IPV6_TWO_AUDIO, lambda editor: editor.drop_bandwidth(["tias"]))
    assert edits == [(11, "b=TIAS:64000", None)]


# Session level


def test_set_origin_address() -> None:
    _, edits = edited(TWILIO, lambda editor: editor.set_origin_address("198.51.100.9"))
    assert edits == [
        (1, "o=root 1311022221 1311022221 IN IP4 172.18.165.214", "o=root 1311022221 1311022221 IN IP4 198.51.100.9")
    ]
    result, _ = edited(TWILIO, lambda editor: editor.set_origin_address("[2001:db8::1]"))
    assert result.lines[1] == "o=root 1311022221 1311022221 IN IP6 2001:db8::1"
    assert edited(TWILIO, lambda editor: editor.set_origin_address("172.18.165.214"))[1] == []


def test_set_origin() -> None:
    result, _ = edited(TWILIO, lambda editor: editor.set_origin("-", "gw.example.com"))
    assert result.lines[1] == "o=- 1311022221 1311022221 IN IP4 gw.example.com"
    result, _ = edited(
        session("v=0\no=John Doe 1 2 IN IP4 10.0.0.1"), lambda editor: editor.set_origin_address("192.0.2.1")
    )
    assert result.lines[1] == "o=John Doe 1 2 IN IP4 192.0.2.1"


@pytest.mark.parametrize("text", ["v=0\ns=-", "v=0\no=nonsense\ns=-", "v=0\no=\ns=-"])
def test_an_origin_that_is_none(text: str) -> None:
    result, edits = edited(session(text), lambda editor: editor.set_origin_address("192.0.2.1"))
    assert result.lines == ["v=0", "o=- 0 0 IN IP4 192.0.2.1", "s=-"]
    assert len(edits) == 1


def test_set_connection_address() -> None:
    result, edits = edited(TWILIO, lambda editor: editor.set_connection_address("2001:db8::9"))
    assert edits == [(3, "c=IN IP4 203.0.113.121", "c=IN IP6 2001:db8::9")]
    assert result.media[0].connection_address == "2001:db8::9"
    result, edits = edited(WEBRTC, lambda editor: editor.set_connection_address("192.0.2.9"))
    assert [media.connection_address for media in result.media] == ["192.0.2.9", "192.0.2.9", "0.0.0.0"]
    result, _ = edited(WEBRTC, lambda editor: editor.set_connection_address("192.0.2.9", keep_hold=False))
    assert [media.connection_address for media in result.media] == ["192.0.2.9"] * 3


def test_set_connection_address_where_there_is_none() -> None:
    source = session("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\ni=x\nt=0 0\nm=audio 9 RTP/AVP 0\nc=IN\nm=audio 10 RTP/AVP 0")
    result, _ = edited(source, lambda editor: editor.set_connection_address("192.0.2.9"))
    assert result.lines == [
        "v=0",
        "o=- 1 1 IN IP4 192.0.2.1",
        "s=-",
        "i=x",
        "c=IN IP4 192.0.2.9",
        "t=0 0",
        "m=audio 9 RTP/AVP 0",
        "c=IN IP4 192.0.2.9",
        "m=audio 10 RTP/AVP 0",
    ]


def test_set_session_name() -> None:
    result, _ = edited(TWILIO, lambda editor: editor.set_session_name("caf\u00e9"))
    assert b"\r\ns=caf\xc3\xa9\r\n" in result.serialize()
    assert edited(TWILIO, lambda editor: editor.set_session_name(""))[0].lines[2] == "s=-"
    assert edited(session("v=0\nt=0 0"), lambda editor: editor.set_session_name("x"))[0].lines == [
        "v=0",
        "s=x",
        "t=0 0",
    ]


def test_add_required_lines() -> None:
    source = session("v=0\nm=audio 9 RTP/AVP 0\nc=IN IP4 192.0.2.4")
    result, _ = edited(source, lambda editor: editor.add_required_lines())
    assert result.lines[:4] == ["v=0", "o=- 0 0 IN IP4 192.0.2.4", "s=-", "t=0 0"]
    for sample in ALL:
        assert edited(sample, lambda editor: editor.add_required_lines())[1] == []


# Media sections


def test_keep_media() -> None:
    result, edits = edited(WEBRTC, lambda editor: editor.keep_media(["audio"]))
    source = Session.parse(WEBRTC)
    assert [media.kind for media in result.media] == ["audio"]
    assert result.lines[4] == "a=group:BUNDLE 0"
    assert result.lines[5:] == source.lines[5 : source.media[1].start]
    assert len(edits) == 1 + len(source.lines) - source.media[1].start
    assert edited(IPV6_TWO_AUDIO, lambda editor: editor.keep_media(["audio"]))[1] == []
    result, _ = edited(WEBRTC, lambda editor: editor.keep_media(["application", "audio"]))
    assert result.attributes()[0] == ("group", "BUNDLE 0 2")


def test_keep_media_of_a_group_that_is_gone() -> None:
    source = session(
        "v=0\na=group:LS 1 2\na=group:FID 3\nm=video 9 RTP/AVP 34\na=mid:1\n"
        "m=video 9 RTP/AVP 34\na=mid:2\nm=audio 9 RTP/AVP 0"
    )
    result, _ = edited(source, lambda editor: editor.keep_media(["audio"]))
    assert result.lines == ["v=0", "a=group:FID 3", "m=audio 9 RTP/AVP 0"]


@pytest.mark.parametrize(
    ("source", "offered"), [(session(HEAD), "none"), (session(HEAD + "m=video 9 RTP/AVP 34"), "video")]
)
def test_keep_media_leaves_at_least_one(source: Session, offered: str) -> None:
    with pytest.raises(SdpError) as caught:
        edited(source, lambda editor: editor.keep_media(["audio"]))
    assert caught.value.reason == f"no usable media: offered {offered}; accepted audio"


def test_set_media() -> None:
    result, _ = edited(IPV6_TWO_AUDIO, lambda editor: editor.set_media(0, port=5000, protocol="RTP/AVPF"))
    assert result.media[0].line == "m=audio 5000/2 RTP/AVPF 0 101"
    result, _ = edited(IPV6_TWO_AUDIO, lambda editor: editor.set_media(0, port=0))
    assert result.media[0].line == "m=audio 0 RTP/AVP 0 101"
    assert edited(IPV6_TWO_AUDIO, lambda editor: editor.set_media(0, port=49170, formats=["0", "101"]))[1] == []


def test_the_usual_way_of_an_offer() -> None:
    def operate(editor: Editor) -> None:
        editor.keep_media(["audio"])
        editor.keep_codecs(SAFE)
        editor.drop_attributes(WEBRTC_ATTRIBUTES)
        editor.drop_attributes(["rtcp"])
        editor.add_static_rtpmaps()
        editor.drop_dangling()
        editor.fix_ptime()
        editor.set_origin("-", "192.0.2.77")

    result, _ = edited(WEBRTC, operate)
    assert result.lines == [
        "v=0",
        "o=- 4611731400430051336 2 IN IP4 192.0.2.77",
        "s=-",
        "t=0 0",
        "m=audio 54321 UDP/TLS/RTP/SAVPF 0 8 126",
        "c=IN IP4 198.51.100.20",
        "a=sendrecv",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:126 telephone-event/8000",
    ]
