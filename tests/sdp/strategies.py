"""Session descriptions of every shape that parses: well-formed, careless and absurd ones."""

from hypothesis import strategies as st

from tests.sdp.samples import ALL, KEY

PAYLOADS = st.sampled_from(["0", "8", "9", "13", "18", "19", "63", "96", "97", "101", "110", "00", "128", "x", "*"])
CODECS = st.sampled_from(
    [
        "PCMU/8000",
        "pcma/8000/1",
        "opus/48000/2",
        "G722/16000",
        "telephone-event/8000",
        "telephone-event/48000",
        "CN/16000",
        "red/48000/2",
        "rtx/8000",
        "L16/44100/2",
        "G729",
        "X/0",
        "",
    ]
)
PARAMETERS = st.sampled_from(["0-16", "useinbandfec=1", "96/97", "0/8", "apt=96", "apt=101;x", "", "111/ 96 "])
NUMBERS = st.sampled_from(["0", "5", "10", "20", "20.0", "22.5", "30", "60", "120", "150", "-20", "x", "", "9" * 30])
SUITES = st.sampled_from(["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32", "AEAD_AES_256_GCM"])
ADDRESSES = st.sampled_from(
    ["192.0.2.1", "10.0.0.1", "0.0.0.0", "gw.example.com", "2001:db8::1", "::1", "233.252.0.1/127"]
)
DIRECTIONS = st.sampled_from(["sendrecv", "sendonly", "recvonly", "inactive"])
SPACE = st.sampled_from(["", "", "", " "])
WORDS = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=8)


def joined(*parts: str | st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """The parts one after the other."""
    return st.tuples(*[st.just(part) if isinstance(part, str) else part for part in parts]).map("".join)


KEY_PARAMETERS = st.sampled_from(["", "|2^20", "|2^20|1:4", "|1:1", f"|1:4;inline:{KEY}|2:4", " KDR=1"])
CRYPTO = joined("a=crypto:", st.sampled_from("1 2 3 x".split()), " ", SUITES, " inline:", st.just(KEY), KEY_PARAMETERS)
ATTRIBUTES = st.sampled_from(
    (
        "rtcp-mux mid:0 mid:1 setup:actpass ice-ufrag:x candidate:1 rtcp:9 ssrc:1 fingerprint:x extmap:1 "
        "group:BUNDLE x-own:1"
    ).split()
)
CONNECTIONS = joined("c=IN ", st.sampled_from(["IP4 ", "IP6 ", ""]), ADDRESSES, SPACE)
SECTION_LINES = st.one_of(
    joined("a=rtpmap:", SPACE, PAYLOADS, " ", SPACE, CODECS, SPACE),
    joined("a=fmtp:", PAYLOADS, " ", PARAMETERS),
    joined("a=rtcp-fb:", PAYLOADS, " nack"),
    joined("a=", st.sampled_from(["ptime:", "maxptime:"]), NUMBERS, SPACE),
    joined("a=", DIRECTIONS, SPACE),
    CRYPTO,
    joined("a=", ATTRIBUTES),
    CONNECTIONS,
    joined("b=", st.sampled_from(["AS:64", "TIAS:1", "x", ""])),
    joined(st.sampled_from("iakxzA"), "=", WORDS),
)
SESSION_LINES = st.one_of(
    joined("o=", st.sampled_from(["- 1 2 IN IP4 ", "a b 1 2 IN IP4 ", "x ", ""]), ADDRESSES),
    joined("s=", WORDS),
    st.just("t=0 0"),
    st.just("a=group:BUNDLE 0 1"),
    joined("a=", DIRECTIONS),
    CONNECTIONS,
    joined("a=", ATTRIBUTES),
    joined("a=ptime:", NUMBERS),
    joined(st.sampled_from("iuepbz"), "=", WORDS),
)
MEDIA_LINES = st.builds(
    lambda kind, port, protocol, formats: " ".join([f"m={kind}", port, protocol, *formats]),
    st.sampled_from(["audio", "audio", "audio", "video", "image"]),
    st.sampled_from(["4000", "4002", "4004/2", "9", "0"]),
    st.sampled_from(["RTP/AVP", "RTP/AVP", "RTP/SAVP", "RTP/AVPF", "UDP/TLS/RTP/SAVPF", "udptl", "rtp/avp"]),
    st.lists(PAYLOADS, min_size=1, max_size=6),
)
SECTIONS = st.builds(lambda first, rest: [first, *rest], MEDIA_LINES, st.lists(SECTION_LINES, max_size=8))
LINES = st.builds(
    lambda head, sections: ["v=0", *head, *[line for section in sections for line in section]],
    st.lists(SESSION_LINES, max_size=6),
    st.lists(SECTIONS, max_size=3),
)
LINE_ENDS = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n\r\n", "\r\n \r\n"])


def encoded(lines: list[str], line_end: str, last: str) -> bytes:
    return (line_end.join(lines) + last).encode("utf-8", "surrogateescape")


BUILT = st.builds(encoded, LINES, LINE_ENDS, st.sampled_from(["\r\n", "\r\n", "\n", "", "\r\n\r\n", "\0"]))


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A sample with a few bytes put in, taken out or changed."""
    source = bytearray(draw(st.sampled_from(ALL)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(source)))
        source[at : at + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=3) | st.sampled_from([b"\r", b"\n", b"\r\n", b" "])
        )
    return bytes(source)


BODIES = st.one_of(BUILT, spoilt(), st.sampled_from(ALL))
