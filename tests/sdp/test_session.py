"""Parsing, serializing and the views of a session."""

from collections.abc import Callable

import pytest

from proxy.sdp import Crypto, SdpError, Session
from tests.sdp.samples import ALL, IPV6_TWO_AUDIO, KEY, OPENAI, T38, TWILIO, TWILIO_OPUS, WEBRTC, body, session

HEAD = "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n"


@pytest.mark.parametrize("source", ALL)
def test_goes_out_as_it_came_in(source: bytes) -> None:
    parsed = Session.parse(source)
    assert parsed.serialize() == source
    assert parsed.is_canonical
    assert parsed.lines == source.decode("utf-8").removesuffix("\r\n").split("\r\n")


def test_twilio_offer() -> None:
    parsed = Session.parse(TWILIO)
    assert parsed.origin_address == "172.18.165.214"
    assert (parsed.origin_username, parsed.origin_session_id, parsed.origin_version) == (
        "root",
        "1311022221",
        "1311022221",
    )
    assert parsed.connection_address == "203.0.113.121"
    assert parsed.session_name == "Twilio Media Gateway"
    (audio,) = parsed.media
    assert (audio.index, audio.kind, audio.port, audio.port_count, audio.protocol) == (0, "audio", 12692, 1, "RTP/SAVP")
    assert audio.formats == ["0", "8", "101"]
    assert (audio.start, audio.end) == (5, 14)
    assert audio.direction == "sendrecv"
    assert audio.connection_address == "203.0.113.121"
    assert [codec.key for codec in audio.codecs] == ["pcmu/8000", "pcma/8000", "telephone-event/8000"]
    assert audio.codecs[2].fmtp == "0-16"
    assert (audio.ptime, audio.maxptime) == (20, 20)
    assert audio.keying == "sdes"
    (crypto,) = audio.crypto
    assert (crypto.tag, crypto.suite, crypto.plain_key_params) == (1, "AES_CM_128_HMAC_SHA1_80", f"inline:{KEY}")
    assert KEY not in repr(crypto)
    assert audio.attributes()[0] == ("crypto", f"1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}")
    assert audio.attributes()[-1] == ("sendrecv", None)


@pytest.mark.parametrize("source", [TWILIO_OPUS, OPENAI])
def test_attributes_in_any_order(source: bytes) -> None:
    codecs = Session.parse(source).media[0].codecs
    assert all(codec.mapped for codec in codecs)
    assert codecs[-1].key == "telephone-event/8000"
    assert codecs[-1].fmtp == "0-16"


def test_opus() -> None:
    audio = Session.parse(TWILIO_OPUS).media[0]
    opus = audio.codecs[0]
    assert (opus.name, opus.clock_rate, opus.channels, opus.payload, opus.fmtp) == (
        "opus",
        48000,
        2,
        107,
        "useinbandfec=1",
    )
    assert opus.key == opus.rtpmap == "opus/48000/2"
    assert audio.maxptime == 20
    assert audio.attribute("rtcp") == "12693 IN IP4 203.0.113.121"
    assert audio.attribute("sendrecv") == ""
    assert audio.attribute("crypto") is None


def test_webrtc_offer() -> None:
    parsed = Session.parse(WEBRTC)
    assert [media.kind for media in parsed.media] == ["audio", "video", "application"]
    assert parsed.connection_address is None
    assert parsed.attributes()[0] == ("group", "BUNDLE 0 1 2")
    assert parsed.attributes()[1] == ("extmap-allow-mixed", None)
    audio, video, application = parsed.media
    assert audio.end == video.start
    assert video.end == application.start
    assert application.end == len(parsed.lines)
    assert audio.connection_address == "198.51.100.20"
    assert (audio.keying, video.keying, application.keying) == ("dtls", "dtls", "none")
    assert video.direction == "sendonly"
    assert application.codecs == []
    assert application.formats == ["webrtc-datachannel"]


def test_ports_directions_and_other_words() -> None:
    parsed = Session.parse(IPV6_TWO_AUDIO)
    first, second = parsed.media
    assert (first.port, first.port_count) == (49170, 2)
    assert (first.direction, second.direction) == ("recvonly", "sendonly")
    assert first.own_direction is None
    assert parsed.connection_address == parsed.origin_address == "2001:db8::17"
    assert parsed.session_name == "Fran\u00e7ois \u260e"
    assert second.codecs[0].fmtp == "annexb=no"


def test_static_payload_without_rtpmap() -> None:
    pcmu, event = Session.parse(IPV6_TWO_AUDIO).media[0].codecs
    assert (pcmu.name, pcmu.clock_rate, pcmu.channels, pcmu.mapped) == ("PCMU", 8000, 1, False)
    assert event.mapped


def test_other_protocols_have_no_codecs() -> None:
    audio, image = Session.parse(T38).media
    assert audio.is_refused
    assert [codec.name for codec in audio.codecs] == ["PCMU"]
    assert (image.protocol, image.formats, image.codecs, image.is_rtp) == ("udptl", ["t38"], [], False)


@pytest.mark.parametrize(
    ("mangle", "lines"),
    [
        (lambda source: source.replace(b"\r\n", b"\n"), 14),
        (lambda source: source.replace(b"\r\n", b"\r"), 14),
        (lambda source: source.removesuffix(b"\r\n"), 14),
        (lambda source: source.replace(b"\r\n", b"\n").removesuffix(b"\n"), 14),
        (lambda source: source + b"\r\n\r\n", 14),
        (lambda source: source + b"\n", 14),
        (lambda source: source + b"\0", 14),
        (lambda source: source + b"  \r\n", 14),
        (lambda source: b"\r\n" + source, 14),
        (lambda source: source.replace(b"t=0 0\r\n", b"t=0 0\r\n\r\n"), 14),
        (lambda source: source.replace(b"t=0 0\r\n", b"t=0 0\n"), 14),
    ],
)
def test_odd_line_ends(mangle: Callable[[bytes], bytes], lines: int) -> None:
    source = mangle(TWILIO)
    parsed = Session.parse(source)
    assert parsed.serialize() == source
    assert not parsed.is_canonical
    assert len(parsed.lines) == lines
    assert parsed.lines == Session.parse(TWILIO).lines
    parsed.apply(4, "t=0 0", "t=1 1")
    assert parsed.serialize() == TWILIO.replace(b"t=0 0", b"t=1 1")


@pytest.mark.parametrize("missing", ["s=", "t=", "o=", "c="])
def test_missing_lines_are_accepted(missing: str) -> None:
    text = "\n".join([line for line in HEAD.split("\n") if not line.startswith(missing)]) + "m=audio 9 RTP/AVP 0"
    parsed = session(text)
    assert parsed.media[0].port == 9
    assert (parsed.session_name is None) == (missing == "s=")
    assert (parsed.origin_address is None) == (missing == "o=")
    assert (parsed.connection_address is None) == (missing == "c=")
    if missing == "o=":
        assert parsed.origin_username is parsed.origin_session_id is parsed.origin_version is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "the session description is empty"),
        (b"\r\n\r\n", "the session description is empty"),
        (b"o=- 1 1 IN IP4 192.0.2.1\r\nm=audio 9 RTP/AVP 0\r\n", "the session description does not begin with v=0"),
        (b"v=1\r\n", "the SDP version is not 0: v=1"),
        (b"v=0\r\nhello\r\n", "line 2 of the session description is not of the form type=value: hello"),
        (b"v=0\r\n =1\r\n", "a line of the session description begins with a space:  =1"),
        (b"v=0\r\n\ts=-\r\n", "a line of the session description begins with a space: ?s=-"),
        (b"v=0\r\na\0=1\r\n", "the session description holds a NUL byte"),
        (b"v=0\r\nm=audio\r\n", "media line without media, port and protocol: m=audio"),
        (
            b"v=0\r\nm=audio x RTP/AVP 0\r\n",
            "media line whose port is not a number from 0 to 65535: m=audio x RTP/AVP 0",
        ),
        (
            b"v=0\r\nm=audio -1 RTP/AVP 0\r\n",
            "media line whose port is not a number from 0 to 65535: m=audio -1 RTP/AVP 0",
        ),
        (
            b"v=0\r\nm=audio 65536 RTP/AVP 0\r\n",
            "media line whose port is not a number from 0 to 65535: m=audio 65536 RTP/AVP 0",
        ),
        (
            b"v=0\r\nm=audio 9/0 RTP/AVP 0\r\n",
            "media line whose number of ports is not a positive number: m=audio 9/0 RTP/AVP 0",
        ),
        (
            b"v=0\r\nm=audio 9/ RTP/AVP 0\r\n",
            "media line whose number of ports is not a positive number: m=audio 9/ RTP/AVP 0",
        ),
        (b"v=0\r\nm=audio 9 RTP/AVP\r\n", "media line without formats: m=audio 9 RTP/AVP"),
    ],
)
def test_what_cannot_be_understood(source: bytes, reason: str) -> None:
    with pytest.raises(SdpError) as caught:
        Session.parse(source)
    assert caught.value.reason == str(caught.value) == reason


def test_limits() -> None:
    assert len(session("v=0\n" + "a=x\n" * 1999).lines) == 2000
    with pytest.raises(SdpError, match="more than 2000 lines"):
        session("v=0\n" + "a=x\n" * 2000)
    assert len(session("v=0\n" + "m=audio 9 RTP/AVP 0\n" * 64).media) == 64
    with pytest.raises(SdpError, match="more than 64 media sections"):
        session("v=0\n" + "m=audio 9 RTP/AVP 0\n" * 65)


def test_a_reason_is_one_plain_line() -> None:
    with pytest.raises(SdpError) as caught:
        Session.parse(b'v=0\r\nm=audio "\xff\t\\' + b"9" * 5000 + b" RTP/AVP 0\r\n")
    reason = caught.value.reason
    assert len(reason) == 160
    assert all(" " <= char <= "~" and char not in '"\\' for char in reason)


@pytest.mark.parametrize("port", ["٣", "²", "1_0", "+9", " ", "9" * 5000])
def test_only_plain_digits_are_numbers(port: str) -> None:
    with pytest.raises(SdpError):
        session(HEAD + f"m=audio {port} RTP/AVP 0")


def test_a_refused_stream_may_lack_formats() -> None:
    (audio,) = session(HEAD + "m=audio 0 RTP/AVP").media
    assert (audio.port, audio.formats, audio.codecs) == (0, [], [])


def test_no_media_at_all() -> None:
    parsed = session(HEAD.strip())
    assert list(parsed.media) == []
    assert parsed.session_end == 5


def test_bytes_that_are_not_utf8_are_kept() -> None:
    source = TWILIO.replace(b"Twilio", b"Tw\xefl\xff")
    parsed = Session.parse(source)
    assert parsed.serialize() == source
    assert parsed.is_canonical
    parsed.apply(4, "t=0 0", "t=1 1")
    assert parsed.serialize() == source.replace(b"t=0 0", b"t=1 1")


def test_loose_spacing() -> None:
    attributes = "a=rtpmap: 101  telephone-event/8000 \na=fmtp:101  0-15 \na=ptime: 20 \na=inactive "
    (audio,) = session(HEAD + "m=audio  9   RTP/AVP 0  101 \n" + attributes).media
    assert audio.formats == ["0", "101"]
    assert audio.codecs[1].key == "telephone-event/8000"
    assert audio.codecs[1].fmtp == "0-15"
    assert audio.ptime == 20
    assert audio.direction == "inactive"


def test_formats_that_are_no_payload_types() -> None:
    (audio,) = session(HEAD + "m=audio 9 RTP/AVP 0 0 08 128 x 97 96\na=rtpmap:97 opus\na=rtpmap:96 G726-32/8000").media
    assert [(codec.payload, codec.name) for codec in audio.codecs] == [(0, "PCMU"), (97, ""), (96, "G726-32")]
    assert not audio.codecs[1].is_known


@pytest.mark.parametrize("value", ["20.5", "x", "", "-1", "9" * 400])
def test_packet_time_that_is_no_number(value: str) -> None:
    (audio,) = session(HEAD + f"m=audio 9 RTP/AVP 0\na=ptime:{value}").media
    assert audio.ptime is None


def test_first_rtpmap_counts() -> None:
    (audio,) = session(
        HEAD + "m=audio 9 RTP/AVP 96\na=rtpmap:96 bad\na=rtpmap:96 opus/48000/2\na=rtpmap:96 PCMU/8000"
    ).media
    assert audio.codecs[0].key == "opus/48000/2"


def test_user_name_with_spaces() -> None:
    parsed = session("v=0\no=John Doe 12 13 IN IP4 192.0.2.1\ns=-")
    assert (parsed.origin_username, parsed.origin_session_id, parsed.origin_address) == ("John Doe", "12", "192.0.2.1")


def test_multicast_address_without_ttl() -> None:
    assert session("v=0\nc=IN IP4 233.252.0.1/127/3").connection_address == "233.252.0.1"
    assert session("v=0\nc=IN").connection_address is None


def test_apply_keeps_the_views() -> None:
    parsed = Session.parse(WEBRTC)
    audio, video, application = parsed.media
    parsed.apply(2, None, "i=information")
    parsed.apply(audio.start, audio.line, audio.line_with(port=7, formats=["0"]))
    parsed.apply(video.start, None, "a=x-end-of-audio")
    parsed.apply(video.start + 1, parsed.lines[video.start + 1], None)
    assert parsed.media[1] is video
    assert (audio.port, audio.formats, [codec.name for codec in audio.codecs]) == (7, ["0"], ["PCMU"])
    fresh = Session.parse(parsed.serialize())
    assert [(m.line, m.start, m.end) for m in parsed.media] == [(m.line, m.start, m.end) for m in fresh.media]
    assert parsed.lines[audio.end - 1] == "a=x-end-of-audio"
    parsed.apply(application.start, None, "m=text 9 RTP/AVP 98")
    assert [media.kind for media in parsed.media] == ["audio", "video", "text", "application"]


@pytest.mark.parametrize(
    ("index", "before", "after"),
    [
        (99, None, "a=x"),
        (-1, None, "a=x"),
        (14, "a=sendrecv", None),
        (4, "t=1 1", None),
        (0, "v=0", None),
        (0, "v=0", "v=1"),
        (0, None, "a=x"),
        (1, None, "no"),
        (1, None, ""),
        (1, None, "\ta=x"),
        (1, None, "a=x\r\na=y"),
        (1, None, "a=x\n"),
        (1, None, "a=x\r"),
        (1, None, "a=\0"),
        (1, None, "a=\ud800"),
        (1, None, "m=audio x RTP/AVP 0"),
    ],
)
def test_apply_refuses(index: int, before: str | None, after: str | None) -> None:
    parsed = Session.parse(TWILIO)
    with pytest.raises(ValueError, match=r"SDP|media line"):
        parsed.apply(index, before, after)
    assert parsed.serialize() == TWILIO
    assert parsed.lines == Session.parse(TWILIO).lines


def test_copies_are_apart() -> None:
    parsed = Session.parse(TWILIO)
    other = parsed.copy()
    other.apply(4, "t=0 0", None)
    assert parsed.serialize() == TWILIO
    assert parsed.media[0].start == other.media[0].start + 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"1 S inline:{KEY}", (1, "S", f"inline:{KEY}", "", False)),
        (
            f"2 S inline:{KEY}|2^20|1:4 UNENCRYPTED_SRTCP KDR=1",
            (2, "S", f"inline:{KEY}", "UNENCRYPTED_SRTCP KDR=1", True),
        ),
        (f"3 S inline:{KEY}|2^31", (3, "S", f"inline:{KEY}", "", False)),
        (f"4 S inline:{KEY}|1:4;inline:{KEY}|2:4", (4, "S", f"inline:{KEY}", "", True)),
        (f"x S inline:{KEY}", None),
        ("1 S uri:https://192.0.2.1/", None),
        ("1 S inline:", None),
        ("1 S inline:|2^20", None),
        ("1 S", None),
        ("", None),
    ],
)
def test_crypto(value: str, expected: tuple[int, str, str, str, bool] | None) -> None:
    crypto = Crypto.parse(value)
    found = crypto and (crypto.tag, crypto.suite, crypto.plain_key_params, crypto.session_params, crypto.has_mki)
    assert found == expected


def test_body_is_built_with_crlf() -> None:
    assert body("v=0\ns=-") == b"v=0\r\ns=-\r\n"
