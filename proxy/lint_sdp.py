"""What is wrong with a session description by the RFCs, and which known trouble it would cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proxy.sdp.address import is_private_address
from proxy.sdp.codecs import static_codec
from proxy.sdp.editor import WEBRTC_ATTRIBUTES
from proxy.sdp.errors import SdpError
from proxy.sdp.line_changes import NamePatterns
from proxy.sdp.session import Media, Session

__all__ = ["lint_sdp"]

Told = tuple[str, str, str, str]
"""Level, where, what, source."""

_ORDER: Final = "vosiuepcbtrzka"
_SAFE: Final = ("PCMU", "PCMA", "telephone-event")
_SUITE: Final = "AES_CM_128_HMAC_SHA1_80"
_SDP_TROUBLE: Final = "trouble 2, community.openai.com t/1380763"


def lint_sdp(body: bytes) -> Iterator[Told]:
    """All findings of a session description."""
    try:
        session = Session.parse(body)
    except SdpError as error:
        yield "error", "SDP", error.reason, "RFC 8866 section 5"
        return
    if not session.is_canonical:
        yield "warning", "SDP", "has lines that do not end in CRLF", "RFC 8866 section 5"
    yield from _required(session)
    yield from _order(session)
    if is_private_address(session.origin_address or ""):
        yield "warning", "o=", f"has an address of an inner network, {session.origin_address}", "RFC 8866 section 5.2"
    if not session.media:
        yield "warning", "m=", "is missing: there is no stream", "RFC 8866 section 5.14"
    for media in session.media:
        yield from _stream(session, media)
    usable = [media for media in session.media if media.port]
    if len(usable) > 1 or any(media.kind != "audio" for media in usable):
        yield (
            "trouble",
            "m=",
            "other media than one audio stream were seen to end in 400 Invalid SDP offer",
            _SDP_TROUBLE,
        )


def _required(session: Session) -> Iterator[Told]:
    for letter, section in (("o", "5.2"), ("s", "5.3"), ("t", "5.9")):
        if session.first_line(letter) < 0:
            yield "error", f"{letter}=", "is missing", f"RFC 8866 section {section}"
    for media in session.media:
        if media.port and media.connection_address is None:
            yield "error", "c=", "is missing for a stream", "RFC 8866 section 5.7"


def _order(session: Session) -> Iterator[Told]:
    letters = [line[0] for line in session.lines[: session.session_end]]
    known = [_ORDER.find(letter) for letter in letters]
    for letter in dict.fromkeys([letter for letter in letters if letter not in _ORDER]):
        yield "error", f"{letter}=", "is no line of a session description", "RFC 8866 section 5"
    if [at for at in known if at >= 0] != sorted([at for at in known if at >= 0]):
        yield "error", "SDP", "has its lines in another order than v o s i u e p c b t a", "RFC 8866 section 5"


def _stream(session: Session, media: Media) -> Iterator[Told]:
    if not media.port:
        return
    where = f"m={media.kind}"
    address = media.connection_address or ""
    if is_private_address(address) and address not in ("0.0.0.0", "::"):
        yield "warning", "c=", f"has an address of an inner network, {address}: no media will come", "RFC 1918"
    if media.is_rtp:
        yield from _codecs(session, media, where)
        yield from _keys(media, where)
    for name, value in media.attributes():
        if name in ("ptime", "maxptime") and not (value or "").strip().isdigit():
            yield "error", f"a={name}", f"is no whole number: {value}", "RFC 8866 section 6.4"
    if media.ptime == 0:
        yield "error", "a=ptime", "is 0", "RFC 8866 section 6.4"
    webrtc = NamePatterns(WEBRTC_ATTRIBUTES)
    names = dict.fromkeys([name for name, _ in (*session.attributes(), *media.attributes()) if webrtc.match(name)])
    if names:
        what = f"{', '.join(names)}: a production bridge had to remove WebRTC attributes before OpenAI took the offer"
        yield "trouble", where, what, _SDP_TROUBLE
    direction = media.direction
    if direction in ("recvonly", "inactive"):
        what = f"is {direction}: a side that waits for the other's first packet may wait for ever"
        yield "trouble", where, what, "trouble 10, a production bridge"


def _codecs(session: Session, media: Media, where: str) -> Iterator[Told]:
    for codec in media.codecs:
        if not codec.mapped and static_codec(codec.payload) is None:
            yield "error", where, f"lists payload type {codec.payload} without a=rtpmap", "RFC 8866 section 6.6"
    lines = session.lines[media.start + 1 : media.end]
    for line in lines:
        for kind in ("rtpmap", "fmtp"):
            if line.startswith(f"a={kind}:"):
                payload = line.partition(":")[2].split(" ")[0]
                if payload not in media.formats:
                    yield (
                        "warning",
                        f"a={kind}",
                        f"is of payload type {payload}, which m= does not list",
                        "RFC 8866 6.6",
                    )
    for text in dict.fromkeys([text for text in media.formats if media.formats.count(text) > 1]):
        yield "error", where, f"lists payload type {text} twice", "RFC 8866 section 5.14"
    if media.kind == "audio":
        if not any(codec.is_primary for codec in media.codecs):
            yield "error", where, "has no codec that carries voice", "RFC 4733 section 2.1"
        others = [codec.name for codec in media.codecs if codec.name and not codec.matches_any(_SAFE)]
        if others:
            what = f"offers {', '.join(others)}: PCMU, PCMA and telephone-event are seen to work with OpenAI"
            yield "trouble", where, what, _SDP_TROUBLE


def _keys(media: Media, where: str) -> Iterator[Told]:
    suites = [crypto.suite for crypto in media.crypto]
    if media.keying == "sdes" and not suites:
        yield "error", where, "is SAVP without a=crypto", "RFC 4568 section 9.2"
    if media.keying == "none" and suites:
        yield "warning", where, "has a=crypto on a plain RTP profile", "RFC 4568 section 9.1"
    if media.keying == "none":
        what = "is RTP/AVP: GPT-Live wants SRTP with SDES; without secure trunking Twilio offers none"
        yield "trouble", where, what, "trouble 9, developers.openai.com voice-sip guide"
    if any(suite != _SUITE for suite in suites):
        what = f"offers other suites than {_SUITE}, the one that OpenAI was reported to take"
        yield "trouble", "a=crypto", what, "trouble 9, a production bridge"
    if media.keying == "dtls":
        yield "trouble", where, "is DTLS-SRTP, which a trunk can't answer", "trouble 9, a production bridge"
