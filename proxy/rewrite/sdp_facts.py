"""Facts of a session description that conditions ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from proxy.rewrite.names import glob_test
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.schema import Field, Keys, Many, NumberTest, Schema, Word
from proxy.sdp.address import is_private_address
from proxy.sdp.session import Session

__all__ = ["DIRECTIONS", "PROFILES", "SDP_FACTS", "CodecName", "SdpFacts", "SdpToken"]


def _has_codec(names: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(
        codec.matches_any(names)
        for media in session.media
        if media.kind == "audio" and media.port
        for codec in media.codecs
    )


def _media(kinds: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(media.kind in kinds and media.port for media in session.media)


def _protocol(names: list[str]) -> Callable[[Session], bool]:
    wanted = frozenset(names)
    return lambda session: any(media.port and media.protocol in wanted for media in session.media)


def _crypto(suites: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(crypto.suite in suites for media in session.media for crypto in media.crypto)


def _direction(names: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(media.direction in names and media.port for media in session.media)


def _attribute(names: list[str]) -> Callable[[Session], bool]:
    tests = [glob_test(name) for name in names]
    return lambda session: any(
        test(name) for name, _ in session.attributes_between(0, len(session.lines)) for test in tests
    )


def _private_address(places: list[str]) -> Callable[[Session], bool]:
    facts = tuple([_PRIVATE_ADDRESSES[place] for place in places])
    return facts[0] if len(facts) == 1 else lambda session: any(fact(session) for fact in facts)


def _private_origin(session: Session) -> bool:
    return is_private_address(session.origin_address or "")


def _private_connection(session: Session) -> bool:
    addresses = [session.connection_address, *[media.connection_address for media in session.media]]
    return any(is_private_address(address or "") for address in addresses)


def _private_rtcp(session: Session) -> bool:
    if not session.may_have_attribute("rtcp"):
        return False
    lines = [line for line in session.lines if line.startswith("a=rtcp:")]
    return any(is_private_address(line.rstrip().rpartition(" ")[2]) for line in lines)


_PRIVATE_ADDRESSES: Final = {
    "origin": _private_origin,
    "connection": _private_connection,
    "rtcp": _private_rtcp,
}


def _streams(ranges: list[tuple[int, int]]) -> Callable[[Session], bool]:
    def holds(session: Session) -> bool:
        count = sum([1 for media in session.media if media.port])
        return any(low <= count <= high for low, high in ranges)

    return holds


def _ptime(ranges: list[tuple[int, int]]) -> Callable[[Session], bool]:
    return lambda session: any(
        low <= media.ptime <= high for media in session.media if media.ptime is not None for low, high in ranges
    )


class CodecName:
    """A codec as `PCMU`, `opus/48000` or `opus/48000/2`."""

    allowed: str = "a codec such as PCMU, telephone-event or opus/48000/2"

    def read(self, node: Node, report: Report) -> str | None:
        """Read a codec's name."""
        name, _, rest = node.text.partition("/")
        numbers = rest.split("/") if rest else []
        if not node.is_scalar or not is_sdp_token(name) or len(numbers) > 2 or not all(map(str.isdigit, numbers)):
            report.add(node, "is not a codec", self.allowed)
            return None
        return node.text

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "string", "pattern": r"^[^/ ]+(/[0-9]+){0,2}$"}


class SdpToken:
    """A word of an SDP line: a media type, an attribute's name, a crypto suite."""

    def __init__(self, allowed: str, globs: bool = False) -> None:
        self.allowed = allowed
        self.globs = globs

    def read(self, node: Node, report: Report) -> str | None:
        """Read a word."""
        if not node.is_scalar or not is_sdp_token(node.text if self.globs else node.text.replace("*", " ")):
            report.add(node, "can't stand in an SDP line here", self.allowed)
            return None
        return node.text

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "string", "description": self.allowed}


def is_sdp_token(text: str) -> bool:
    """Whether a text can be a token of an SDP line (RFC 8866 section 9)."""
    return bool(text) and text.isascii() and text.isprintable() and set('"(),/:;<=>?@[\\] ').isdisjoint(text)


PROFILES: Final = ("RTP/AVP", "RTP/SAVP", "RTP/AVPF", "RTP/SAVPF")
DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")

SDP_FACTS: Final[dict[str, tuple[Field, Callable[[Any], Callable[[Session], bool]]]]] = {
    "has-codec": (Field(Many(CodecName())), _has_codec),
    "media": (Field(Many(SdpToken("audio, video, image, text, application or message"))), _media),
    "protocol": (Field(Many(Word((*PROFILES, "UDP/TLS/RTP/SAVP", "UDP/TLS/RTP/SAVPF", "udptl")))), _protocol),
    "crypto": (Field(Many(SdpToken("a crypto suite such as AES_CM_128_HMAC_SHA1_80"))), _crypto),
    "direction": (Field(Many(Word(DIRECTIONS))), _direction),
    "attribute": (Field(Many(SdpToken("an attribute's name (* stands for any text)", globs=True))), _attribute),
    "streams": (Field(Many(NumberTest())), _streams),
    "ptime": (Field(Many(NumberTest())), _ptime),
    "private-address": (Field(Many(Word(tuple(_PRIVATE_ADDRESSES)))), _private_address),
}


class SdpFacts:
    """`sdp`: facts of the session description; all must hold. Without SDP none does."""

    _fields: Final = Keys({name: field for name, (field, _) in SDP_FACTS.items()}, "is not a fact of the SDP")
    allowed: str = _fields.allowed

    def read(self, node: Node, report: Report) -> Callable[[Session], bool] | None:
        """Read the facts."""
        values = self._fields.read(node, report)
        if values is None:
            return None
        facts = tuple([SDP_FACTS[name][1](value) for name, value in values.items()])
        return facts[0] if len(facts) == 1 else lambda session: all(fact(session) for fact in facts)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return self._fields.schema()
