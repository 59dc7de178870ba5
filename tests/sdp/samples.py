"""Session descriptions as the neighbours send them (addresses, names and keys replaced), and a recorder of edits."""

from collections.abc import Callable

from proxy.sdp import Editor, Session, map_answer

KEY = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
OTHER_KEY = "NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj"


def body(text: str) -> bytes:
    """`text`, a line of the SDP per line, with CRLF."""
    return "".join([line + "\r\n" for line in text.strip("\n").split("\n")]).encode("utf-8", "surrogateescape")


def session(text: str) -> Session:
    return Session.parse(body(text))


TWILIO = body(
    f"""
v=0
o=root 1311022221 1311022221 IN IP4 172.18.165.214
s=Twilio Media Gateway
c=IN IP4 203.0.113.121
t=0 0
m=audio 12692 RTP/SAVP 0 8 101
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:20
a=sendrecv
"""
)

# maxptime before the rtpmaps, opus, a=rtcp.
TWILIO_OPUS = body(
    """
v=0
o=root 1311022221 1311022221 IN IP4 172.18.165.214
s=Twilio Media Gateway
c=IN IP4 203.0.113.121
t=0 0
m=audio 12692 RTP/AVP 107 0 8 101
a=maxptime:20
a=rtcp:12693 IN IP4 203.0.113.121
a=rtpmap:107 opus/48000/2
a=fmtp:107 useinbandfec=1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=sendrecv
"""
)

OPENAI = body(
    """
v=0
o=- 2113971860 2113971862 IN IP4 203.0.113.219
s=OAI
c=IN IP4 203.0.113.219
t=0 0
m=audio 43955 RTP/AVP 0 101
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=rtpmap:0 PCMU/8000
"""
)

WEBRTC = body(
    """
v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS stream
m=audio 54321 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 198.51.100.20
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1467250027 1 udp 2122260223 192.168.0.196 46243 typ host generation 0
a=end-of-candidates
a=ice-ufrag:F7gI
a=ice-pwd:x9cml/YzichV2+XlhiMu8g
a=ice-options:trickle
a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=sendrecv
a=msid:stream track
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:3735928559 cname:somecname
m=video 54323 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 198.51.100.20
a=mid:1
a=sendonly
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:2
a=sctp-port:5000
"""
)

IPV6_TWO_AUDIO = body(
    """
v=0
o=jdoe 2890844526 2890842807 IN IP6 2001:db8::17
s=Fran\u00e7ois \u260e
i=two audio streams
c=IN IP6 2001:db8::17
b=AS:128
t=0 0
a=recvonly
m=audio 49170/2 RTP/AVP 0 101
a=rtpmap:101 telephone-event/8000
m=audio 49180 RTP/AVP 18
b=TIAS:64000
a=rtpmap:18 G729/8000
a=fmtp:18 annexb=no
a=sendonly
"""
)

T38 = body(
    """
v=0
o=gw 1 2 IN IP4 192.0.2.5
s=-
c=IN IP4 192.0.2.5
t=0 0
m=audio 0 RTP/AVP 0
m=image 4000 udptl t38
a=T38FaxVersion:0
a=T38MaxBitRate:14400
"""
)

ALL = (TWILIO, TWILIO_OPUS, OPENAI, WEBRTC, IPV6_TWO_AUDIO, T38)

Edit = tuple[int, str | None, str | None]


def replay(lines: list[str], edits: list[Edit]) -> list[str]:
    """`lines` after `edits`, each checked against the line it names; independent of the code under test."""
    lines = list(lines)
    for index, before, after in edits:
        if before is not None:
            assert lines.pop(index) == before
        if after is not None:
            assert index <= len(lines)
            lines.insert(index, after)
    return lines


def edited(source: bytes | Session, *operations: Callable[[Editor], None]) -> tuple[Session, list[Edit]]:
    """The session after `operations`, with the recorded edits, which are checked to explain every difference."""
    result = source.copy() if isinstance(source, Session) else Session.parse(source)
    before = list(result.lines)
    edits: list[Edit] = []
    editor = Editor(result, lambda index, old, new: edits.append((index, old, new)))
    for operation in operations:
        operation(editor)
    assert replay(before, edits) == result.lines
    assert editor.edited == bool(edits)
    return result, edits


def mapped(answer: Session, sent: Session, original: Session) -> tuple[Session, list[Edit]]:
    """`map_answer`, with the recorded edits, which are checked to explain every difference."""
    before = list(answer.lines)
    edits: list[Edit] = []
    result = map_answer(answer, sent, original, lambda index, old, new: edits.append((index, old, new)))
    assert answer.lines == before
    assert replay(before, edits) == result.lines
    return result, edits
