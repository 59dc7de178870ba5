"""Codecs of an RTP stream: the static payload types, how names match, and which codecs may stay beside which."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

# RFC 3551 tables 4 and 5, by payload type: encoding name, clock rate in Hz, channels.
STATIC_CODECS: Final[tuple[tuple[str, int, int] | None, ...]] = (
    ("PCMU", 8000, 1),
    None,
    None,
    ("GSM", 8000, 1),
    ("G723", 8000, 1),
    ("DVI4", 8000, 1),
    ("DVI4", 16000, 1),
    ("LPC", 8000, 1),
    ("PCMA", 8000, 1),
    ("G722", 8000, 1),
    ("L16", 44100, 2),
    ("L16", 44100, 1),
    ("QCELP", 8000, 1),
    ("CN", 8000, 1),
    ("MPA", 90000, 1),
    ("G728", 8000, 1),
    ("DVI4", 11025, 1),
    ("DVI4", 22050, 1),
    ("G729", 8000, 1),
    None,
    None,
    None,
    None,
    None,
    None,
    ("CelB", 90000, 1),
    ("JPEG", 90000, 1),
    None,
    ("nv", 90000, 1),
    None,
    None,
    ("H261", 90000, 1),
    ("MPV", 90000, 1),
    ("MP2T", 90000, 1),
    ("H263", 90000, 1),
)

# Encodings that only accompany another codec: a stream with nothing else carries no voice.
AUXILIARY: Final[frozenset[str]] = frozenset(
    ("telephone-event", "tone", "cn", "red", "rtx", "ulpfec", "parityfec", "flexfec", "flexfec-03")
)


PAYLOAD_TYPES: Final[dict[str, int]] = {str(number): number for number in range(128)}
"""The payload types of RTP as they are written."""

_COMMON_RTPMAPS: Final[dict[str, tuple[str, int, int]]] = {
    f"{name}/8000": (name, 8000, 1) for name in ("PCMU", "PCMA", "G722", "G729", "GSM", "CN", "telephone-event")
}


def parse_int(text: str, limit: int) -> int:
    """The value of a plain decimal number of at most `limit`; -1 for anything else (signs, spaces, other digits)."""
    if not text.isdigit() or len(text) > 10 or not text.isascii():
        return -1
    value = int(text)
    return value if value <= limit else -1


def parse_rtpmap(text: str) -> tuple[str, int, int] | None:
    """Read `<encoding name>/<clock rate>[/<channels>]`: (name, rate in Hz, channels), or None when malformed."""
    common = _COMMON_RTPMAPS.get(text)
    if common is not None:
        return common
    name, _, rest = text.strip().partition("/")
    rate_text, slash, channel_text = rest.partition("/")
    rate = parse_int(rate_text, 10_000_000)
    channels = parse_int(channel_text, 255) if slash and channel_text else 1
    if not name or " " in name or rate < 1 or channels < 1:
        return None
    return name, rate, channels


class Codec:
    """One format of an RTP m-line. Immutable by convention.

    `name` is the encoding name as written (RFC 3551's for a static payload type without rtpmap, "" for a dynamic one
    without), `clock_rate` in Hz, `payload` the RTP payload type, `fmtp` the text after `a=fmtp:<payload> ` or None.
    `mapped` tells whether an rtpmap line named it.
    """

    __slots__ = ("_lower", "channels", "clock_rate", "fmtp", "mapped", "name", "payload")

    def __init__(
        self, name: str, clock_rate: int, channels: int, payload: int, fmtp: str | None = None, mapped: bool = True
    ) -> None:
        self.name: str = name
        self.clock_rate: int = clock_rate
        self.channels: int = channels
        self.payload: int = payload
        self.fmtp: str | None = fmtp
        self.mapped: bool = mapped
        self._lower: str = name.lower()

    def __repr__(self) -> str:
        return f"<Codec {self.payload} {self.name}/{self.clock_rate}/{self.channels} fmtp={self.fmtp!r}>"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Codec)
            and self.payload == other.payload
            and self.name == other.name
            and self.clock_rate == other.clock_rate
            and self.channels == other.channels
            and self.fmtp == other.fmtp
        )

    def __hash__(self) -> int:
        return hash((self.payload, self._lower, self.clock_rate))

    @property
    def key(self) -> str:
        """The codec in lower case, "pcmu/8000" or "opus/48000/2", whatever its payload type."""
        return self.rtpmap.lower()

    @property
    def rtpmap(self) -> str:
        """The codec as an rtpmap writes it: "PCMU/8000", "opus/48000/2"."""
        if self.channels == 1:
            return f"{self.name}/{self.clock_rate}"
        return f"{self.name}/{self.clock_rate}/{self.channels}"

    @property
    def is_known(self) -> bool:
        """False for a dynamic payload type that no rtpmap names."""
        return bool(self.name)

    @property
    def is_auxiliary(self) -> bool:
        """True for telephone-event, comfort noise, RED and others that carry no voice of their own."""
        return self._lower in AUXILIARY

    @property
    def is_primary(self) -> bool:
        """True for a codec that can carry the stream alone."""
        return bool(self.name) and self._lower not in AUXILIARY

    @property
    def is_event(self) -> bool:
        """True for telephone-event (RFC 4733)."""
        return self._lower == "telephone-event"

    @property
    def is_comfort_noise(self) -> bool:
        """True for CN (RFC 3389)."""
        return self._lower == "cn"

    @property
    def carries(self) -> bool:
        """True for RED and rtx, whose packets carry those of other formats."""
        return self._lower == "red" or self._lower == "rtx"

    def has_name(self, lower: str) -> bool:
        """Tell whether `lower`, in lower case, is the encoding name."""
        return self._lower == lower

    def matches(self, other: "str | Codec") -> bool:
        """Tell whether this is the codec `other`: another Codec, or "PCMU", "opus/48000", "L16/44100/1" in any case.

        Rate and channels that the text leaves out match any. G722 written with its sampling rate, 16000, is the
        G722/8000 of RFC 3551 4.5.2. A codec without a name matches nothing.
        """
        if isinstance(other, Codec):
            return (
                bool(self.name)
                and self._lower == other._lower
                and self.channels == other.channels
                and _rtp_rate(self._lower, self.clock_rate) == _rtp_rate(other._lower, other.clock_rate)
            )
        name, slash, rest = other.partition("/")
        if not name or name.lower() != self._lower:
            return False
        if not slash:
            return True
        rate, slash, channels = rest.partition("/")
        return _rtp_rate(self._lower, parse_int(rate, 10_000_000)) == _rtp_rate(self._lower, self.clock_rate) and (
            not slash or channels == str(self.channels)
        )

    def matches_any(self, names: Iterable[str]) -> bool:
        """Tell whether one of `names` (forms of `matches`) is this codec."""
        return any(self.matches(name) for name in names)

    def carried_payloads(self) -> list[str]:
        """The payload types that this format carries for others: RED's (RFC 2198 5) and rtx's (RFC 4588 8.6)."""
        if self.fmtp is None:
            return []
        if self._lower == "red":
            return [part.strip() for part in self.fmtp.split("/")]
        if self._lower == "rtx":
            return [part[4:] for part in _parameters(self.fmtp) if part.startswith("apt=")]
        return []


def _rtp_rate(lower_name: str, rate: int) -> int:
    return 8000 if lower_name == "g722" and rate == 16000 else rate


def _parameters(fmtp: str) -> list[str]:
    return [part.strip() for part in fmtp.split(";")]


def renumber_fmtp(codec: Codec, fmtp: str, numbers: Mapping[str, str]) -> str:
    """`fmtp`, parameters of `codec`, with the payload types it speaks of (RED, rtx) replaced as `numbers` says."""
    lower = codec.name.lower()
    if lower == "red":
        return "/".join([numbers.get(part.strip(), part) for part in fmtp.split("/")])
    if lower == "rtx":
        parts = _parameters(fmtp)
        changed = [f"apt={numbers.get(part[4:], part[4:])}" if part[:4] == "apt=" else part for part in parts]
        return fmtp if changed == parts else ";".join(changed)
    return fmtp


def static_codec(payload: int) -> tuple[str, int, int] | None:
    """The RFC 3551 codec of a static payload type: (name, clock rate in Hz, channels); None when there is none."""
    return STATIC_CODECS[payload] if 0 <= payload < len(STATIC_CODECS) else None


def has_primary(codecs: Iterable[Codec]) -> bool:
    """Tell whether one of `codecs` can carry voice alone."""
    return any(codec.is_primary for codec in codecs)


def keep(codecs: Sequence[Codec], names: Sequence[str]) -> list[Codec]:
    """The codecs that `names` allow, in the order of `names`, without companions that fit none of them."""
    kept: list[Codec] = []
    taken: set[int] = set()
    for name in names:
        lower = "" if "/" in name else name.lower()
        for codec in codecs:
            fits = codec.has_name(lower) if lower else codec.matches(name)
            if fits and codec.payload not in taken:
                taken.add(codec.payload)
                kept.append(codec)
    return _fitting(kept)


def deny(codecs: Sequence[Codec], names: Sequence[str]) -> list[Codec]:
    """The codecs that `names` do not name, in their order, without companions that fit none of them."""
    kept = [codec for codec in codecs if not codec.matches_any(names)]
    return _fitting(kept) if len(kept) < len(codecs) else kept


def _fitting(codecs: list[Codec]) -> list[Codec]:
    """Drop companions of codecs that went away.

    An event or comfort noise shares the RTP clock of the voice it comes with (RFC 4733 2.1, RFC 3389 4). Of several
    telephone-events those with a fitting clock rate stay; if none fits, the first one does, since a DTMF with a
    foreign clock is worth more than none. RED and rtx go with the payloads they carry.
    """
    rates = [codec.clock_rate for codec in codecs if codec.is_primary]
    if len(rates) == len(codecs):
        return codecs
    events = [codec for codec in codecs if codec.is_event]
    fitting = [codec.payload for codec in events if codec.clock_rate in rates] or [
        codec.payload for codec in events[:1]
    ]
    kept = [
        codec
        for codec in codecs
        if (codec.payload in fitting if codec.is_event else codec.clock_rate in rates or not codec.is_comfort_noise)
    ]
    if not any(codec.carries for codec in kept):
        return kept
    while True:  # one that goes may itself have been carried
        payloads = {str(codec.payload) for codec in kept}
        left = [codec for codec in kept if payloads.issuperset(codec.carried_payloads())]
        if len(left) == len(kept):
            return kept
        kept = left
