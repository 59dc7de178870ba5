"""Edits of a Session, each made of recorded single-line edits."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final

from .codecs import deny, has_primary, keep, parse_int, static_codec
from .errors import NoCommonCodec, SdpError
from .line_changes import FirstOf, NamePatterns, OneValue, PlainKeys, Undangle, is_attribute, speaks_of, without_mids
from .session import DIRECTIONS, Media, Session, attribute_of, payload_of

# Called with (index, before, after) for every single-line edit: before None for an insertion, after None for a removal.
Record = Callable[[int, str | None, str | None], None]

# What an ICE, DTLS-SRTP, BUNDLE or WebRTC endpoint offers and a plain RTP or SDES endpoint has no use for:
# RFC 8839, 8842, 9143, 8830, 8285, 5576, 5761, 5506, 4585, 8843, 8851, 8853.
WEBRTC_ATTRIBUTES: Final[tuple[str, ...]] = (
    "candidate",
    "remote-candidates",
    "end-of-candidates",
    "ice-*",
    "fingerprint",
    "setup",
    "connection",
    "tls-id",
    "dtls-id",
    "identity",
    "group",
    "bundle-only",
    "mid",
    "msid*",
    "ssrc*",
    "extmap*",
    "rid",
    "simulcast",
    "rtcp-mux*",
    "rtcp-rsize",
    "rtcp-fb",
)

MAX_PTIME_MS: Final = 1000


class Editor:
    """Edits `session` in place and calls `record(index, before, after)` for each single line that changes.

    `index` is the position in `session.lines` at the moment of the edit, `before` None an insertion, `after` None a
    removal: replaying the records on the lines that came in gives the lines that go out. Every operation may be
    repeated without further effect, and leaves as it was what need not change. One that raises SdpError has changed
    nothing. A value that cannot stand in an SDP line (line break, NUL) raises ValueError.

    The end of lines is not the Editor's: the caller records that an edited session whose `is_canonical` is False goes
    out with CRLF. `edited` tells whether anything was changed.
    """

    __slots__ = ("edited", "record", "session")

    WEBRTC_ATTRIBUTES: ClassVar[tuple[str, ...]] = WEBRTC_ATTRIBUTES

    def __init__(self, session: Session, record: Record) -> None:
        self.session: Session = session
        self.record: Record = record
        self.edited: bool = False

    # Primitives

    def replace(self, i: int, line: str) -> None:
        """Put `line` in place of the line at `i`. Raises ValueError for no such line or a line that may not be."""
        self._edit(i, self._line_at(i), line)

    def insert(self, i: int, line: str) -> None:
        """Insert `line` before the line at `i`; `i` may be the number of lines. Raises ValueError."""
        self._edit(i, None, line)

    def remove(self, i: int) -> None:
        """Remove the line at `i`. Raises ValueError."""
        self._edit(i, self._line_at(i), None)

    def _line_at(self, i: int) -> str:
        lines = self.session.lines
        if not 0 <= i < len(lines):
            raise ValueError(f"no line {i} in an SDP of {len(lines)} lines")
        return lines[i]

    def _edit(self, i: int, before: str | None, after: str | None) -> None:
        if before == after:
            return
        self.session.apply(i, before, after)
        self.edited = True
        self.record(i, before, after)

    def rewrite(self, start: int, end: int, change: Callable[[str], str | None]) -> None:
        """Put `change(line)` in place of each line of lines[start:end], one after the other; None removes the line."""
        lines = self.session.lines
        i = start
        while i < end:
            line = lines[i]
            changed = change(line)
            if changed is None:
                self._edit(i, line, None)
                end -= 1
                continue
            if changed is not line:
                self._edit(i, line, changed)
            i += 1

    # Codecs

    def keep_codecs(self, names: Sequence[str]) -> None:
        """Reduce every audio stream to the codecs that `names` name, in that order ("PCMU", "opus/48000/2").

        Of telephone-event and comfort noise those stay whose clock rate goes with a codec that stays (RFC 4733 2.1),
        of telephone-event at least one. A stream left with nothing but such companions is refused: its port becomes 0.
        Raises NoCommonCodec when no stream would be left. Streams that are refused already are not looked at.
        """
        plan = [(media, keep(media.codecs, names)) for media in self._audio()]
        if not any(has_primary(codecs) for _, codecs in plan):
            raise NoCommonCodec(f"no common audio codec: offered {self._offered()}; accepted {', '.join(names)}")
        for media, codecs in plan:
            if has_primary(codecs):
                self._reduce(media, [str(codec.payload) for codec in codecs])
            else:
                self.set_media(media.index, port=0)

    def deny_codecs(self, names: Sequence[str]) -> None:
        """Take the codecs that `names` name from every audio stream, with the companions that fit no other codec.

        A stream left without voice is refused as by `keep_codecs`. Raises NoCommonCodec when there was a usable stream
        and none would be left.
        """
        plan = [(media, deny(media.codecs, names)) for media in self._audio() if has_primary(media.codecs)]
        if plan and not any(has_primary(codecs) for _, codecs in plan):
            raise NoCommonCodec(f"no audio codec left: offered {self._offered()}; denied {', '.join(names)}")
        for media, codecs in plan:
            if not has_primary(codecs):
                self.set_media(media.index, port=0)
                continue
            dropped = {str(codec.payload) for codec in media.codecs} - {str(codec.payload) for codec in codecs}
            self._reduce(media, [text for text in media.formats if text not in dropped])

    def order_codecs(self, names: Sequence[str]) -> None:
        """Put the codecs that `names` name first in every audio stream, in that order; the others keep theirs."""
        for media in self._audio():
            first: list[str] = []
            for name in names:
                first += [str(c.payload) for c in media.codecs if str(c.payload) not in first and c.matches(name)]
            self._reduce(media, first + [text for text in media.formats if text not in first])

    def _audio(self) -> list[Media]:
        return [media for media in self.session.media if media.kind == "audio" and media.port]

    def _offered(self) -> str:
        names = [codec.name or str(codec.payload) for media in self._audio() for codec in media.codecs]
        return ", ".join(dict.fromkeys(names)) or "no audio"

    def _reduce(self, media: Media, formats: list[str]) -> None:
        """Make `formats` the formats of `media`, and remove the attributes of those that go."""
        if formats == media.formats:
            return
        gone = set(media.formats).difference(formats)
        self.set_media(media.index, formats=formats)
        if gone:
            self.rewrite(media.start + 1, media.end, lambda line: None if speaks_of(line, gone) else line)

    def set_media(
        self, index: int, port: int | None = None, protocol: str | None = None, formats: Sequence[str] | None = None
    ) -> None:
        """Change fields of the m= line of media section `index`. Port 0 refuses the stream; a port count goes."""
        media = self.session.media[index]
        unchanged = (
            port in (None, media.port)
            and protocol in (None, media.protocol)
            and (formats is None or list(formats) == media.formats)
        )
        if not unchanged:
            self._edit(media.start, media.line, media.line_with(port, protocol, formats))

    def add_rtpmap(self, index: int, payload: int, rtpmap: str) -> None:
        """Add `a=rtpmap:<payload> <rtpmap>` to media section `index`, in the order of the m= line.

        It goes behind what is said of the format before it in the m= line, else before the first rtpmap, else before
        the first attribute. An rtpmap of this payload that could not be understood gives way to it.
        """
        media = self.session.media[index]
        text = str(payload)
        line = f"a=rtpmap:{text} {rtpmap}"
        at: dict[str, int] = {}
        first_map = first_attribute = media.end
        for i in range(media.end - 1, media.start, -1):
            found = payload_of(self.session.lines[i])
            if found is not None:
                at.setdefault(found[1], i)
                if found == ("rtpmap", text):
                    self.replace(i, line)
                    return
                if found[0] == "rtpmap":
                    first_map = i
            if self.session.lines[i].startswith("a="):
                first_attribute = i
        before = media.formats[: media.formats.index(text)] if text in media.formats else []
        for earlier in reversed(before):
            if earlier in at:
                self.insert(at[earlier] + 1, line)
                return
        self.insert(first_map if first_map < media.end else first_attribute, line)

    def add_static_rtpmaps(self) -> None:
        """Add the rtpmap of every static payload type (RFC 3551) that lacks one, for peers that need it.

        Streams that are refused are left alone.
        """
        for media in self.session.media:
            if media.port:
                for codec in list(media.codecs):
                    if not codec.mapped and static_codec(codec.payload) is not None:
                        self.add_rtpmap(media.index, codec.payload, codec.rtpmap)

    def drop_dangling(self) -> None:
        """Remove what speaks of no format of its stream, twice of the same one, or is no rtpmap at all.

        That is: rtpmap, fmtp and rtcp-fb of payload types that the m= line does not list, every rtpmap and fmtp of a
        payload type after the first, malformed rtpmaps. RTP streams only.
        """
        for media in self.session.media:
            if media.is_rtp and not media.is_tidy:
                mapped = {str(codec.payload) for codec in media.codecs if codec.mapped}
                self.rewrite(media.start + 1, media.end, Undangle(set(media.formats), mapped))

    # Packet time

    def fix_ptime(self, default_ms: int = 20, allowed: Sequence[int] = (10, 20, 30, 40, 60)) -> None:
        """Make ptime and maxptime (RFC 8866 6.4, 6.5) of the session and its audio streams sane.

        One ptime is left, the first that is in `allowed` (milliseconds), else `default_ms`. One maxptime is left, the
        first whole number from the smallest allowed up to 1000; without one, none is. A ptime above maxptime becomes
        the largest allowed that is not. None is added where none was.
        """
        if default_ms not in allowed:
            raise ValueError(f"the default ptime {default_ms} is not one of the allowed ones")
        # Names such as ptimes are looked at, too, and left alone.
        if not any(name.startswith(("ptime", "maxptime")) for name in self.session.attribute_names()):
            return
        self._fix_ptime(0, self.session.session_end, default_ms, allowed)
        for media in self.session.media:
            if media.kind == "audio":
                self._fix_ptime(media.start + 1, media.end, default_ms, allowed)

    def _fix_ptime(self, start: int, end: int, default_ms: int, allowed: Sequence[int]) -> None:
        lines = self.session.lines[start:end]
        present = [line for line in lines if line[0] == "a" and line.startswith(("a=ptime", "a=maxptime"))]
        if not present:
            return
        values = [attribute_of(line) for line in present]
        limits = [_whole_ms(value) for name, value in values if name == "maxptime"]
        limit = next((number for number in limits if min(allowed) <= number <= MAX_PTIME_MS), None)
        times = [_whole_ms(value) for name, value in values if name == "ptime"]
        time = next((number for number in times if number in allowed), default_ms)
        if limit is not None and time > limit:
            time = max([number for number in allowed if number <= limit])
        fitting = {f"a=ptime:{time}"} if limit is None else {f"a=ptime:{time}", f"a=maxptime:{limit}"}
        hidden = any(line[0] == "a" and not line[2:3].isalnum() for line in lines)  # a name behind spaces
        if hidden or len(set(present)) < len(present) or not fitting.issuperset(present):
            self.rewrite(start, end, OneValue({"ptime": time, "maxptime": limit}))

    # Keys

    def keep_crypto(self, suites: Sequence[str]) -> None:
        """Drop every a=crypto (RFC 4568) that is malformed or of another suite; the others keep order and tag.

        Lifetime, MKI and keys after the first are taken from those that stay. As the sender of SRTP puts the MKI into
        its packets, a line with MKI goes when the same suite is also offered without. Raises SdpError when an SDES
        stream would be left without a key. Streams that are refused are left alone.
        """
        session = self.session
        if not session.may_have_attribute("crypto") and not any(
            one.port and one.keying == "sdes" for one in session.media
        ):
            return
        wanted = {suite.upper() for suite in suites}
        plan: list[tuple[Media, PlainKeys]] = []
        for media in self.session.media:
            if not media.port:
                continue
            kept = [crypto for crypto in media.crypto if crypto.suite.upper() in wanted]
            if not kept and media.keying == "sdes":
                offered = ", ".join([crypto.suite for crypto in media.crypto]) or "none"
                raise SdpError(
                    f"no common SRTP crypto suite for {media.kind}: offered {offered}; accepted {', '.join(suites)}"
                )
            plan.append((media, PlainKeys(wanted, {crypto.suite.upper() for crypto in kept if not crypto.has_mki})))
        for media, change in plan:
            self.rewrite(media.start + 1, media.end, change)

    # Attributes

    def drop_attributes(self, names: Iterable[str]) -> None:
        """Remove every attribute, of the session and of its media, whose name is in `names` ("setup", "ice-*")."""
        patterns = NamePatterns(names)
        self.rewrite(0, len(self.session.lines), lambda line: None if is_attribute(line, patterns) else line)

    def keep_attributes(self, names: Iterable[str]) -> None:
        """Remove every attribute whose name is not in `names`; rtpmap, fmtp and the direction are not spared either."""
        patterns = NamePatterns(names)
        self.rewrite(
            0,
            len(self.session.lines),
            lambda line: None if line.startswith("a=") and not is_attribute(line, patterns) else line,
        )

    def set_attribute(self, name: str, value: str | None = None, media: int | None = None) -> None:
        """Give the session (`media` None) or media section `media` the attribute `name`, once, with `value`.

        The first of that name is replaced, further ones go; if there is none, it comes last. `value` None makes a
        property attribute, `a=name`.
        """
        _check_token(name, "attribute name")
        if ":" in name:
            raise ValueError("an attribute name holds no colon")
        start, end = self._section(media)
        line = "a=" + name if value is None else f"a={name}:{value}"
        if any(found == name for found, _ in self.session.attributes_between(start, end)):
            self.rewrite(start, end, FirstOf(line, lambda present: attribute_of(present)[0] == name))
        else:
            self.insert(end, line)

    def set_direction(self, direction: str, media: int | None = None) -> None:
        """Make `direction` ("sendrecv", "sendonly", "recvonly", "inactive") that of one media section, or of all.

        A section says so itself only where it must.
        """
        if direction not in DIRECTIONS:
            raise ValueError(f"a direction is one of {', '.join(DIRECTIONS)}")
        chosen = self.session.media if media is None else [self.session.media[media]]
        for section in chosen:
            if section.own_direction is not None:
                change = FirstOf("a=" + direction, lambda line: line[2:].rstrip() in DIRECTIONS)
                self.rewrite(section.start + 1, section.end, change)
            elif section.direction != direction:
                self.insert(section.end, "a=" + direction)

    def drop_bandwidth(self, types: Iterable[str] = ()) -> None:
        """Remove every b= line, or those of the given types ("AS", "TIAS", "RS", "RR")."""
        wanted = {name.upper() for name in types}
        self.rewrite(
            0,
            len(self.session.lines),
            lambda line: (
                None
                if line.startswith("b=") and (not wanted or line[2:].partition(":")[0].strip().upper() in wanted)
                else line
            ),
        )

    def _section(self, media: int | None) -> tuple[int, int]:
        if media is None:
            return 0, self.session.session_end
        section = self.session.media[media]
        return section.start + 1, section.end

    # Session level

    def set_origin_address(self, addr: str) -> None:
        """Put `addr` (IPv4, IPv6 or host name) into o=, and the address type with it."""
        self.set_origin(None, addr)

    def set_origin(self, username: str | None, addr: str) -> None:
        """Put `username` (None: as it is) and `addr` into o=; session id and version stay.

        A missing or malformed o= becomes `o=<username or -> 0 0 IN <type> <addr>`.
        """
        address = _typed_address(addr)
        if username is not None:
            _check_token(username, "user name")
        fields = self.session.origin_fields
        name, session_id, version = fields[:3] or ["-", "0", "0"]
        line = f"{name if username is None else username} {session_id} {version} IN {address}"
        i = self.session.first_line("o")
        if i < 0:
            self.insert(1, "o=" + line)
        elif " ".join(fields) != line:
            self.replace(i, "o=" + line)

    def set_connection_address(self, addr: str, keep_hold: bool = True) -> None:
        """Put `addr` into every c= line, and add one for the session where a media section would be without.

        `keep_hold`: an address 0.0.0.0 or ::, by which old user agents put a call on hold (RFC 3264 8.4), stays.
        """
        line = f"c=IN {_typed_address(addr)}"
        session = self.session
        for i, present in enumerate(session.lines):
            if present.startswith("c=") and present.rstrip() != line:
                fields = present[2:].split()
                if not (keep_hold and len(fields) == 3 and fields[2] in ("0.0.0.0", "::")):
                    self.replace(i, line)
        if session.first_line("c") < 0 and (
            not session.media or any(session.first_line("c", media.start, media.end) < 0 for media in session.media)
        ):
            self.insert(self._behind("vosiuep"), line)

    def set_session_name(self, name: str) -> None:
        """Make `name` the text of s=; "-" for an empty one (RFC 8866 5.3)."""
        line = f"s={name or '-'}"
        i = self.session.first_line("s")
        if i < 0:
            self.insert(self._behind("vo"), line)
        else:
            self.replace(i, line)

    def add_required_lines(self) -> None:
        """Add the lines that RFC 8866 9 requires of every session and that are missing: o=, s=, t=.

        The address of a new o= is that of the first c= line.
        """
        session = self.session
        if session.first_line("o") < 0:
            address = session.connection_between(0, len(session.lines)) or ""
            self.set_origin_address(address if address.isprintable() and address.isascii() and address else "0.0.0.0")
        if session.first_line("s") < 0:
            self.set_session_name("-")
        if session.first_line("t") < 0:
            self.insert(self._behind("vosiuepcb"), "t=0 0")

    def _behind(self, letters: str) -> int:
        """The index behind the last session-level line whose type is one of `letters`."""
        lines = self.session.lines
        return max([i for i in range(self.session.session_end) if lines[i][0] in letters]) + 1

    # Media sections

    def keep_media(self, kinds: Sequence[str]) -> None:
        """Remove the media sections of other kinds from an offer; `map_answer` puts them back, refused.

        What a=group (RFC 5888) said of them goes too. Raises SdpError when no section would be left.
        """
        session = self.session
        gone = [media.index for media in session.media if media.kind not in kinds]
        if not gone and session.media:
            return
        if len(gone) == len(session.media):
            offered = ", ".join(dict.fromkeys([media.kind for media in session.media])) or "none"
            raise SdpError(f"no usable media: offered {offered}; accepted {', '.join(kinds)}")
        mids = {mid for index in gone if (mid := session.media[index].attribute("mid"))}
        for index in reversed(gone):
            self.remove_media(index)
        if mids:
            self.rewrite(0, session.session_end, lambda line: without_mids(line, mids))

    def remove_media(self, index: int) -> None:
        """Remove media section `index`, m= line and all."""
        media = self.session.media[index]
        start = media.start
        for i in range(media.end - 1, start - 1, -1):
            self.remove(i)


def _whole_ms(value: str | None) -> int:
    """A number of milliseconds, also written "20.0"; -1 for any other text."""
    whole, _, fraction = (value or "").partition(".")
    return parse_int(whole, 1_000_000) if not fraction.strip("0") else -1


def _check_token(text: str, what: str) -> None:
    if not text or " " in text or not text.isprintable():
        raise ValueError(f"the {what} is empty or holds a space or control character")


def _typed_address(addr: str) -> str:
    addr = addr.removeprefix("[").removesuffix("]")
    _check_token(addr, "address")
    return f"{'IP6' if ':' in addr else 'IP4'} {addr}"
