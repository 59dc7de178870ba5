"""A session description (RFC 8866) as the lines it is made of, with views of its media sections.

Nothing is rebuilt from a model: what is not edited goes out byte for byte as it came in.
"""

from collections.abc import Sequence
from typing import Final

from .address import is_private_address
from .codecs import PAYLOAD_TYPES, Codec, parse_int, parse_rtpmap, static_codec
from .crypto import Crypto
from .errors import NoCommonCodec, SdpError

__all__ = ["Codec", "Crypto", "Media", "NoCommonCodec", "SdpError", "Session", "is_private_address"]

# Far above what any telephone or browser sends; they bound the work that one message can cause.
MAX_LINES: Final = 2000
MAX_MEDIA: Final = 64

DIRECTIONS: Final[tuple[str, ...]] = ("sendrecv", "sendonly", "recvonly", "inactive")

# Attributes whose value begins with the payload type that they speak of.
PAYLOAD_ATTRIBUTES: Final[tuple[str, ...]] = ("rtpmap", "fmtp", "rtcp-fb")
_OF_PAYLOADS: Final = tuple(["a=" + name for name in PAYLOAD_ATTRIBUTES])


def is_rtpmap(line: str) -> bool:
    """Tell whether an a=rtpmap line is well-formed."""
    fields = line[9:].split(None, 1)
    return line.startswith("a=rtpmap:") and len(fields) == 2 and parse_rtpmap(fields[1]) is not None


def attribute_of(line: str) -> tuple[str, str | None]:
    """Name and value of an a= line; the value is None for a property attribute (`a=sendrecv`). Outer spaces go."""
    colon = line.find(":", 2)
    if colon < 0:
        return line[2:].strip(), None
    return line[2:colon].strip(), line[colon + 1 :].strip()


def payload_of(line: str) -> tuple[str, str] | None:
    """(attribute name, format) of an rtpmap, fmtp or rtcp-fb line; None for every other line."""
    if not line.startswith("a="):
        return None
    name, _, value = line[2:].partition(":")
    if name not in PAYLOAD_ATTRIBUTES:
        return None
    fields = value.split(None, 1)
    return name, fields[0] if fields else ""


def keying_of(protocol: str) -> str:
    """How the keys of an RTP profile are agreed: "none", "sdes" (RFC 4568) or "dtls" (RFC 5764)."""
    if "SAVP" not in protocol.upper():
        return "none"
    return "dtls" if "TLS" in protocol.upper() else "sdes"


def parse_media_line(line: str) -> tuple[str, int, int, str, list[str]]:
    """Read `m=<media> <port>[/<count>] <proto> <fmt> ...`: (media, port, count, proto, formats).

    A refused stream (port 0) may lack formats. Raises SdpError.
    """
    fields = line[2:].split()
    if len(fields) < 3:
        raise SdpError(f"media line without media, port and protocol: {line}")
    port_text = fields[1]
    count = 1
    if "/" in port_text:
        port_text, _, count_text = port_text.partition("/")
        count = parse_int(count_text, 65535)
    port = parse_int(port_text, 65535)
    if port < 0:
        raise SdpError(f"media line whose port is not a number from 0 to 65535: {line}")
    if count < 1:
        raise SdpError(f"media line whose number of ports is not a positive number: {line}")
    if len(fields) < 4 and port:
        raise SdpError(f"media line without formats: {line}")
    return fields[0], port, count, fields[2], fields[3:]


def check_line(line: str) -> None:
    """Raise ValueError unless `line` is one line of an SDP, without line end."""
    if line[1:2] != "=" or line[0] in " \t":
        raise ValueError("an SDP line has the form type=value")
    if "\r" in line or "\n" in line or "\0" in line:
        raise ValueError("an SDP line holds no line break and no NUL")
    if not line.isascii():
        try:
            line.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError("an SDP line holds a character that UTF-8 cannot carry") from None
    if line[0] == "m":
        try:
            parse_media_line(line)
        except SdpError as error:
            raise ValueError(error.reason) from None


def _first_word(text: str) -> tuple[str, str]:
    """The first word of a text and what follows it; "" where there is nothing."""
    space = text.find(" ")
    if space > 0:
        word, rest = text[:space], text[space + 1 :]
        if word.isalnum() and rest and rest[0].isalnum():
            return word, rest
    fields = text.split(None, 1)
    return fields[0] if fields else "", fields[1] if len(fields) == 2 else ""


class Text:
    """The lines of a description and where its session level ends, shared by a Session and its views, so that they
    need not know each other: such circles are only found by the garbage collector.
    """

    __slots__ = ("lines", "session_end")

    def __init__(self, lines: list[str]) -> None:
        self.lines: list[str] = lines
        self.session_end: int = len(lines)

    def first_line(self, letter: str, start: int = 0, end: int | None = None) -> int:
        """The index of the first line of type `letter` from `start` to `end` (default: the session level), or -1."""
        prefix = letter + "="
        lines = self.lines
        for i in range(start, self.session_end if end is None else end):
            if lines[i].startswith(prefix):
                return i
        return -1

    def connection_between(self, start: int, end: int) -> str | None:
        """The address of the first c= line in lines[start:end], without TTL and count."""
        i = self.first_line("c", start, end)
        fields = self.lines[i][2:].split() if i >= 0 else []
        return fields[2].partition("/")[0] if len(fields) >= 3 else None

    def attributes_between(self, start: int, end: int) -> list[tuple[str, str | None]]:
        """(name, value) of every a= line in lines[start:end]."""
        return [attribute_of(line) for line in self.lines[start:end] if line.startswith("a=")]

    def first_direction(self, start: int, end: int) -> str | None:
        """The first direction attribute in lines[start:end]."""
        lines = self.lines
        for i in range(start, end):
            line = lines[i]
            # Most attributes have a value.
            if line[0] == "a" and ":" not in line:
                name = line[2:].rstrip()
                if name in DIRECTIONS:
                    return name
        return None


def _are_whole(lines: list[str]) -> bool:
    """Whether nothing in the lines needs repair: no line break, no empty line, none that begins with a space."""
    text = "".join(lines)
    if "\n" in text or "\r" in text or not lines or not lines[0]:
        return False
    for i in range(1, len(lines)):
        line = lines[i]
        if not line or line[0] == " " or line[0] == "\t":
            return False
    return True


class Media:
    """A view of one media section of a Session. It follows the edits of other lines than m-lines that come or go.

    `index` counts from 0; `start` is the index of the m= line and `end` the index after the section's last line in
    `Session.lines`; `kind`, `port`, `port_count`, `protocol` and `formats` are the fields of the m= line.
    """

    __slots__ = (
        "_codecs",
        "_is_tidy",
        "end",
        "formats",
        "index",
        "kind",
        "port",
        "port_count",
        "protocol",
        "start",
        "text",
    )

    def __init__(self, text: Text, index: int, start: int, end: int, like: "Media | None" = None) -> None:
        """`like`: the same section of a copy, which has been read already."""
        self.text: Text = text
        self.index: int = index
        self.start: int = start
        self.end: int = end
        self.kind: str
        self.port: int
        self.port_count: int
        self.protocol: str
        self.formats: list[str]
        self._codecs: list[Codec] | None = None
        self._is_tidy: bool = False
        if like is None:
            self._read_line()
            return
        self.kind, self.port, self.port_count = like.kind, like.port, like.port_count
        self.protocol, self.formats = like.protocol, like.formats
        self._codecs, self._is_tidy = like._codecs, like._is_tidy

    def _read_line(self) -> None:
        self.kind, self.port, self.port_count, self.protocol, self.formats = parse_media_line(self.line)

    def __repr__(self) -> str:
        return f"<Media {self.index} {self.line}>"

    @property
    def line(self) -> str:
        """The m= line as it stands."""
        return self.text.lines[self.start]

    def line_with(
        self, port: int | None = None, protocol: str | None = None, formats: Sequence[str] | None = None
    ) -> str:
        """The m= line with other fields. With port 0 the number of ports goes."""
        if port is None:
            port = self.port
        ports = f"{port}/{self.port_count}" if port and self.port_count > 1 else str(port)
        return " ".join(
            ["m=" + self.kind, ports, protocol or self.protocol, *(self.formats if formats is None else formats)]
        )

    @property
    def is_rtp(self) -> bool:
        """True for the RTP profiles, whose formats are payload types."""
        return "RTP/" in self.protocol.upper()

    @property
    def keying(self) -> str:
        """How SRTP keys are agreed: "none" (plain RTP), "sdes" or "dtls"."""
        return keying_of(self.protocol)

    @property
    def is_refused(self) -> bool:
        """True for port 0 (RFC 3264 5.1, 6)."""
        return self.port == 0

    @property
    def direction(self) -> str:
        """The section's own direction, else the session's, else "sendrecv" (RFC 8866 6.7)."""
        return self.own_direction or self.text.first_direction(0, self.text.session_end) or "sendrecv"

    @property
    def own_direction(self) -> str | None:
        """The direction written in this section; None if it is inherited."""
        return self.text.first_direction(self.start + 1, self.end)

    @property
    def connection_address(self) -> str | None:
        """The address of the section's c= line, else of the session's; None when there is neither. Without TTL."""
        return self.text.connection_between(self.start + 1, self.end) or self.text.connection_between(
            0, self.text.session_end
        )

    @property
    def codecs(self) -> list[Codec]:
        """The codecs in the order of the m= line (not to be changed). Empty unless the protocol is RTP.

        A payload type with rtpmap has its codec, a static one without has RFC 3551's, any other a Codec without name.
        Formats that are no payload type, and repeated ones, are left out.
        """
        codecs = self._codecs
        if codecs is None:
            codecs = self._codecs = self._read_codecs() if "RTP/" in self.protocol.upper() else []
        return codecs

    @property
    def is_tidy(self) -> bool:
        """True where it is known that each rtpmap and fmtp speaks of a format of the m= line, is the only one that does
        so, and is well-formed, and that there is no rtcp-fb."""
        return bool(self.codecs) and self._is_tidy

    def _read_codecs(self) -> list[Codec]:
        maps: dict[str, tuple[str, int, int]] = {}
        params: dict[str, str] = {}
        lines = self.text.lines
        tidy = True
        for i in range(self.start + 1, self.end):
            line = lines[i]
            if line.startswith("a=rtpmap:"):
                payload, rest = _first_word(line[9:])
                parsed = parse_rtpmap(rest) if rest and payload not in maps else None
                if parsed is not None:
                    maps[payload] = parsed
                else:
                    tidy = False
            elif line.startswith("a=fmtp:"):
                payload, rest = _first_word(line[7:])
                if rest and payload not in params:
                    params[payload] = rest.rstrip()
                else:
                    tidy = False
            elif line.startswith(_OF_PAYLOADS):
                tidy = False
        codecs: list[Codec] = []
        seen: set[str] = set()
        for text in self.formats:
            number = PAYLOAD_TYPES.get(text)
            if number is None or text in seen:
                continue
            seen.add(text)
            named = maps.get(text)
            name, rate, channels = named or static_codec(number) or ("", 0, 1)
            codecs.append(Codec(name, rate, channels, number, params.get(text), named is not None))
        for payload in maps:
            tidy = tidy and payload in seen
        for payload in params:
            tidy = tidy and payload in seen
        self._is_tidy = tidy
        return codecs

    @property
    def crypto(self) -> list[Crypto]:
        """The well-formed a=crypto attributes, in their order."""
        parsed: list[Crypto] = []
        for line in self.text.lines[self.start + 1 : self.end]:
            if line.startswith("a=crypto:"):
                crypto = Crypto.parse(line[9:])
                if crypto is not None:
                    parsed.append(crypto)
        return parsed

    @property
    def ptime(self) -> int | None:
        """a=ptime in ms; None when absent or not a whole number."""
        return self._milliseconds("ptime")

    @property
    def maxptime(self) -> int | None:
        """a=maxptime in ms; None when absent or not a whole number."""
        return self._milliseconds("maxptime")

    def _milliseconds(self, name: str) -> int | None:
        value = self.attribute(name)
        number = parse_int(value, 1_000_000) if value is not None else -1
        return number if number >= 0 else None

    def attributes(self) -> list[tuple[str, str | None]]:
        """(name, value) of every a= line of this section, in order; value None for property attributes."""
        return self.text.attributes_between(self.start + 1, self.end)

    def attribute(self, name: str) -> str | None:
        """The value of the first attribute `name` of this section; "" for a property attribute, None when absent."""
        for found, value in self.attributes():
            if found == name:
                return value or ""
        return None


class Session:
    """A session description: `lines` without line ends, and `media`, a view of each media section.

    `lines` is changed through an Editor, or `apply`, alone. `is_canonical` tells whether the input had CRLF after every
    line and nothing else; an edited session goes out that way in any case.
    """

    __slots__ = ("_media", "_names", "_raw", "_text", "is_canonical", "lines")

    def __init__(self, lines: list[str], raw: bytes | None, is_canonical: bool, like: "Session | None" = None) -> None:
        """`like`: a session with the same lines, which have been read already."""
        self.lines: list[str] = lines
        self._text: Text = Text(lines)
        self._raw: bytes | None = raw
        self.is_canonical: bool = is_canonical
        self._names: set[str] | None = None
        self._media: list[Media]
        if like is None:
            self._media = self._scan()
        else:
            text = self._text
            text.session_end = like.session_end
            self._media = [Media(text, one.index, one.start, one.end, one) for one in like._media]

    @classmethod
    def parse(cls, body: bytes) -> "Session":
        """Read a session description; raises SdpError for what cannot be understood.

        Accepted though RFC 8866 9 does not allow it: LF or CR as line end, a missing last line end, empty lines, NUL
        bytes at the end, missing or misplaced lines other than v=, bytes that are not UTF-8. More than MAX_LINES lines
        or MAX_MEDIA media sections are not.
        """
        text = body.decode("utf-8", "surrogateescape")
        lines = text.split("\r\n")
        is_canonical = False
        if not lines[-1]:
            lines.pop()
            is_canonical = _are_whole(lines)
        if not is_canonical:
            text = text.rstrip("\0").replace("\r\n", "\n").replace("\r", "\n")
            lines = [line for line in text.split("\n") if line.strip(" \t")]
            for line in lines:
                if line[0] in " \t":
                    raise SdpError(f"a line of the session description begins with a space: {line}")
        if not lines:
            raise SdpError("the session description is empty")
        if not lines[0].startswith("v="):
            raise SdpError("the session description does not begin with v=0")
        if lines[0] != "v=0" and lines[0][2:].strip() != "0":
            raise SdpError(f"the SDP version is not 0: {lines[0]}")
        if len(lines) > MAX_LINES:
            raise SdpError(f"the session description has more than {MAX_LINES} lines")
        if "\0" in text:
            raise SdpError("the session description holds a NUL byte")
        session = cls(lines, body, is_canonical)
        if len(session._media) > MAX_MEDIA:
            raise SdpError(f"the session description has more than {MAX_MEDIA} media sections")
        return session

    def copy(self) -> "Session":
        """The same description, to be edited apart from this one."""
        return Session(self.lines.copy(), self._raw, self.is_canonical, self)

    def serialize(self) -> bytes:
        """The bytes that came in; once edited, every line with CRLF."""
        if self._raw is None:
            self._raw = ("\r\n".join(self.lines) + "\r\n").encode("utf-8", "surrogateescape")
        return self._raw

    def __repr__(self) -> str:
        return f"<Session {[media.line for media in self._media]}>"

    @property
    def media(self) -> Sequence[Media]:
        """The media sections in order."""
        return self._media

    def _scan(self) -> list[Media]:
        starts: list[int] = []
        lines = self.lines
        for i, line in enumerate(lines):
            if len(line) < 2 or line[1] != "=":
                raise SdpError(f"line {i + 1} of the session description is not of the form type=value: {line}")
            if line[0] == "m":
                starts.append(i)
        self._text.session_end = starts[0] if starts else len(lines)
        if not starts:
            return []
        ends = [*starts[1:], len(lines)]
        return [Media(self._text, index, start, ends[index]) for index, start in enumerate(starts)]

    def apply(self, index: int, before: str | None, after: str | None) -> None:
        """Make one recorded edit: put `after` in place of the line `before` at `index`.

        `before` None inserts at `index`, `after` None removes. Raises ValueError, and changes nothing, when the line
        there is another one, when `after` is no single line of an SDP, or when v= would not come first.
        """
        lines = self.lines
        if not 0 <= index <= len(lines) - (before is not None):
            raise ValueError(f"no line {index} in an SDP of {len(lines)} lines")
        if before is not None and lines[index] != before:
            raise ValueError(f"line {index} of the SDP is not the one to be edited")
        if index == 0 and (before is None or after is None or after[:2] != "v=" or after[2:].strip() != "0"):
            raise ValueError("an SDP begins with v=0")
        if after is not None:
            check_line(after)
        self._raw = None
        if before is None:
            lines.insert(index, after or "")
        elif after is None:
            del lines[index]
        else:
            lines[index] = after
        if self._names is not None and after is not None and after[0] == "a":
            self._names.add(attribute_of(after)[0])
        was_media = before is not None and before[0] == "m"
        is_media = after is not None and after[0] == "m"
        if was_media != is_media:
            self._media = self._scan()
            return
        shift = (before is None) - (after is None)
        for media in self._media:
            if media.start <= index <= media.end:
                media._codecs = None
            if is_media and media.start == index:
                media._read_line()
            if media.start >= index:
                media.start += shift
            if media.end > index or (shift > 0 and media.end == index):
                media.end += shift
        self._text.session_end = self._media[0].start if self._media else len(lines)

    def attribute_names(self) -> set[str]:
        """The names of all attributes, of the session and of its media; of those that were removed too. Not to be
        changed."""
        names = self._names
        if names is None:
            names = self._names = {attribute_of(line)[0] for line in self.lines if line[0] == "a"}
        return names

    def may_have_attribute(self, name: str) -> bool:
        """False only where there is no attribute of that name, in the session or in its media."""
        return name in self.attribute_names()

    @property
    def session_end(self) -> int:
        """The index after the last session-level line."""
        return self._text.session_end

    def first_line(self, letter: str, start: int = 0, end: int | None = None) -> int:
        """The index of the first line of type `letter` from `start` to `end` (default: the session level), or -1."""
        return self._text.first_line(letter, start, end)

    def connection_between(self, start: int, end: int) -> str | None:
        """The address of the first c= line in lines[start:end], without TTL and count."""
        return self._text.connection_between(start, end)

    def attributes_between(self, start: int, end: int) -> list[tuple[str, str | None]]:
        """(name, value) of every a= line in lines[start:end]."""
        return self._text.attributes_between(start, end)

    def first_direction(self, start: int, end: int) -> str | None:
        """The first direction attribute in lines[start:end]."""
        return self._text.first_direction(start, end)

    def attributes(self) -> list[tuple[str, str | None]]:
        """(name, value) of every session-level a= line, in order; value None for property attributes."""
        return self.attributes_between(0, self.session_end)

    @property
    def direction(self) -> str:
        """The session-level direction, "sendrecv" when none is written."""
        return self.first_direction(0, self.session_end) or "sendrecv"

    @property
    def connection_address(self) -> str | None:
        """The address of the session-level c= line, without TTL; None when there is none."""
        return self.connection_between(0, self.session_end)

    @property
    def origin_fields(self) -> list[str]:
        """The six fields of o=: user name, session id, version, "IN", address type, address; [] when malformed.

        A user name with spaces, which RFC 8866 5.2 forbids, is kept whole.
        """
        i = self.first_line("o")
        fields = self.lines[i][2:].split() if i >= 0 else []
        if len(fields) > 6:
            fields = self.lines[i][2:].strip().rsplit(None, 5)
        return fields if len(fields) == 6 else []

    @property
    def origin_username(self) -> str | None:
        """The user name of o=; None without a well-formed o=."""
        fields = self.origin_fields
        return fields[0] if fields else None

    @property
    def origin_session_id(self) -> str | None:
        """The session id of o=; None without a well-formed o=."""
        fields = self.origin_fields
        return fields[1] if fields else None

    @property
    def origin_version(self) -> str | None:
        """The session version of o=, which grows with each new description; None without a well-formed o=."""
        fields = self.origin_fields
        return fields[2] if fields else None

    @property
    def origin_address(self) -> str | None:
        """The address of o=; None without a well-formed o=."""
        fields = self.origin_fields
        return fields[5] if fields else None

    @property
    def session_name(self) -> str | None:
        """The text of s=; None when there is none."""
        i = self.first_line("s")
        return self.lines[i][2:] if i >= 0 else None
