"""The simulators' side of offer and answer, written as OpenAI's descriptions are (RFC 8866, RFC 3264, RFC 4568)."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, replace
from typing import Final

from proxy.sdp.codecs import Codec
from proxy.sdp.errors import SdpError
from proxy.sdp.session import Media, Session

__all__ = ["CRYPTO_SUITE", "Origin", "is_srtp", "make_answer", "make_offer", "sdes_key"]

CRYPTO_SUITE: Final = "AES_CM_128_HMAC_SHA1_80"
_KEY_AND_SALT_BYTES: Final = 30


@dataclass(frozen=True, slots=True)
class Origin:
    """What the descriptions of one side of one call share.

    `session_id`, `version` and `username` go into o=, `name` into s=. `address` and `port` are the media's. `key` is
    the SDES key in base64.
    """

    session_id: int
    version: int
    address: str
    port: int
    key: str
    username: str = "-"
    name: str = "OAI"

    def next_version(self) -> Origin:
        """The same for the next description of the session (RFC 3264 section 8)."""
        return replace(self, version=self.version + 1)

    def lines(self) -> list[str]:
        """The session level."""
        family = "IP6" if ":" in self.address else "IP4"
        return [
            "v=0",
            f"o={self.username} {self.session_id} {self.version} IN {family} {self.address}",
            f"s={self.name}",
            f"c=IN {family} {self.address}",
            "t=0 0",
        ]


def sdes_key(source: random.Random) -> str:
    """A key and its salt for `CRYPTO_SUITE`, in base64 (RFC 4568 section 6.2)."""
    return base64.b64encode(source.randbytes(_KEY_AND_SALT_BYTES)).decode()


def is_srtp(offer: Session | None) -> bool:
    """Whether an offer asks for SRTP in any audio section."""
    return offer is not None and any("SAVP" in media.protocol.upper() for media in offer.media if media.kind == "audio")


def make_answer(offer: Session, origin: Origin, codecs: tuple[str, ...]) -> bytes:
    """Answer an offer: one codec and telephone-event in the first audio section that has one of `codecs`.

    Every other section is refused with port 0. Raises SdpError when nothing can be accepted.
    """
    lines = origin.lines()
    accepted = False
    for media in offer.media:
        section = None if accepted else _section(media, origin, codecs)
        if section is None:
            lines.append(f"m={media.kind} 0 {media.protocol} {' '.join(media.formats)}")
        else:
            accepted = True
            lines.extend(section)
    if not accepted:
        raise SdpError("no audio that can be accepted")
    return _encoded(lines)


def make_offer(origin: Origin, *, srtp: bool = False) -> bytes:
    """An offer of our own: PCMU and telephone-event."""
    crypto = [f"a=crypto:1 {CRYPTO_SUITE} inline:{origin.key}"] if srtp else []
    protocol = "RTP/SAVP" if srtp else "RTP/AVP"
    return _encoded(
        [
            *origin.lines(),
            f"m=audio {origin.port} {protocol} 0 101",
            *crypto,
            "a=rtpmap:101 telephone-event/8000",
            "a=fmtp:101 0-16",
            "a=ptime:20",
            "a=rtpmap:0 PCMU/8000",
        ]
    )


def _section(media: Media, origin: Origin, codecs: tuple[str, ...]) -> list[str] | None:
    if media.kind != "audio" or media.is_refused or not media.is_rtp or media.keying == "dtls":
        return None
    voice = next((codec for codec in media.codecs if codec.is_primary and codec.matches_any(codecs)), None)
    if voice is None:
        return None
    crypto: list[str] = []
    if media.keying == "sdes":
        fitting = next((item for item in media.crypto if item.suite.upper() == CRYPTO_SUITE), None)
        if fitting is None:
            return None
        crypto = [f"a=crypto:{fitting.tag} {CRYPTO_SUITE} inline:{origin.key}"]
    events = [codec for codec in media.codecs if _is_event(codec, voice)][:1]
    formats = " ".join(str(codec.payload) for codec in (voice, *events))
    lines = [f"m=audio {origin.port} {media.protocol} {formats}", *crypto]
    for event in events:
        lines.append(f"a=rtpmap:{event.payload} {event.rtpmap}")
        lines.append(f"a=fmtp:{event.payload} 0-16")
    lines.append("a=ptime:20")
    lines.append(f"a=rtpmap:{voice.payload} {voice.rtpmap}")
    return lines


def _is_event(codec: Codec, voice: Codec) -> bool:
    return codec.name.lower() == "telephone-event" and codec.clock_rate == voice.clock_rate


def _encoded(lines: list[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n").encode("utf-8", "surrogateescape")
