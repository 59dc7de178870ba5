"""Bytes to messages: a datagram or a framed message at a time, and the stream framer (RFC 3261 sections 7, 18.3)."""

from __future__ import annotations

import re
from typing import Final

from proxy.sip.errors import SipError
from proxy.sip.headers import is_token
from proxy.sip.message import HEADER_KEYS, KNOWN_METHODS, Message, Request, Response, read_key, read_value

__all__ = [
    "MAX_HEADERS",
    "MAX_HEAD_BYTES",
    "MAX_MESSAGE_BYTES",
    "MalformedMessage",
    "StreamFramer",
    "check_request",
    "check_response",
    "content_length",
    "parse_message",
]

MAX_MESSAGE_BYTES: Final = 65_535
MAX_HEADERS: Final = 256
MAX_HEAD_BYTES: Final = 32_768
_MAX_DIGITS: Final = 9
_ONCE_ONLY: Final = frozenset(("from", "to", "call-id", "cseq", "max-forwards"))
_MAX_FORWARDS_LIMIT: Final = 255
_BARE_COOKIE: Final = "z9hg4bk"
_LINE_ENDS: Final = (13, 10)
_STATUSES: Final = {str(status): status for status in range(100, 700)}

# The value of each Content-Length with the lines that continue it. One scan, whatever the casing, form and spacing; it
# must read what `parse_message` reads, or a body could pass for a message.
_CONTENT_LENGTH: Final = re.compile(rb"\r\n(?:content-length|l)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.IGNORECASE)


class MalformedMessage(SipError):
    """A message that does not parse.

    Attributes:
        partial: the request as far as it could be read, when it holds enough for a reply (a Via); else None. It may
            lack anything else; `make_response` copes. An ACK must not be answered even so.
    """

    def __init__(self, status: int, reason: str, partial: Request | None = None) -> None:
        super().__init__(status, reason)
        self.partial = partial


def parse_message(data: bytes, *, max_headers: int = MAX_HEADERS) -> Request | Response:
    """Parse one whole message: a datagram, or what `StreamFramer` cut out.

    Bytes past Content-Length are dropped (RFC 3261 section 18.3); without a Content-Length the rest is the body.
    A line that is no header field is kept with an empty key. Taken too, though no sender should: empty lines before
    the message, LF alone as the line end throughout the head (it becomes CRLF), a missing empty line after the head.
    Raises MalformedMessage.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return parse_message(_regular(data), max_headers=max_headers)
    if end > MAX_HEAD_BYTES:
        raise MalformedMessage(513, "Message head too large")
    lines = data[:end].decode("utf-8", "surrogateescape").split("\r\n")
    text = "".join(lines)
    if "\r" in text or "\n" in text or not lines[0]:
        regular = _regular(data)
        if regular != data:
            return parse_message(regular, max_headers=max_headers)
        raise _malformed(_read(_harmless(lines)), 400, "Bare CR or LF in the head")
    if len(lines) > max_headers:
        fields = _unfold(lines[1:])
        if len(fields) > max_headers:
            raise _malformed(_read(_harmless([lines[0], *fields[:max_headers]])), 513, "Too many header fields")
    message = _read(lines)
    if isinstance(message, _Faulty):
        raise _malformed(_read(_harmless(lines)) if "\x00" in text else message, message.status, message.why)
    if "\x00" in text:
        # Legal as an escaped character of a quoted string (RFC 4475 section 3.1.1.2), and nowhere else.
        if text.count("\x00") != sum([line.count("\\\x00") for line in lines]):
            raise _malformed(_read(_harmless(lines)), 400, "NUL in the head")
        message.holds_nul = True
    message.body = _body(message, data[end + 4 :])
    return message


def _regular(data: bytes) -> bytes:
    """The message with the line ends that it should have had. Raises MalformedMessage when that can't be told."""
    data = data.lstrip(b"\r\n")
    line_end = data.find(b"\n")
    if line_end < 0:
        raise MalformedMessage(400, "No header fields")
    if data[line_end - 1] != 13:
        head, blank, body = data.partition(b"\n\n")
        if b"\r" in head:
            raise MalformedMessage(400, "Bare CR or LF in the head")
        data = head.replace(b"\n", b"\r\n") + (b"\r\n\r\n" if blank else b"") + body
    if b"\r\n\r\n" not in data:
        if not data.endswith(b"\r\n"):
            raise MalformedMessage(400, "The message ends inside its head")
        data += b"\r\n"
    return data


def _harmless(lines: list[str]) -> list[str]:
    """The lines as far as a reply may give them back: with blanks for what would break its own lines."""
    return [line.replace("\r", " ").replace("\n", " ").replace("\x00", " ") for line in lines]


class _Faulty(Request):
    """A request whose request line is wrong but shows a method, read for the sake of its reply."""

    __slots__ = ("status", "why")

    def __init__(self, method: str, status: int, why: str, start_line: str) -> None:
        super().__init__(method, "", None, b"", start_line)
        self.status = status
        self.why = why


def _read(lines: list[str]) -> Request | Response:
    """Read the lines of a head. Raises MalformedMessage for a start line that names neither a method nor a status."""
    message = _start(lines[0])
    fields = lines[1:]
    if not _read_fields(message, fields, False):
        _read_fields(message, _unfold(fields), True)
    return message


def _start(line: str) -> Request | Response:
    """Parse the start line into a message without headers. Raises MalformedMessage."""
    parts = line.split(" ")
    if len(parts) == 3 and parts[2] == "SIP/2.0" and (parts[0] in KNOWN_METHODS or is_token(parts[0])):
        return Request(parts[0], parts[1], None, b"", line)
    version = parts[0].upper()
    if version.startswith("SIP/"):
        text = parts[1] if len(parts) > 1 else ""
        status = _STATUSES.get(text) if version == "SIP/2.0" else None
        if status is not None:
            return Response(status, line[12:], None, b"", line)
        if version != "SIP/2.0" or len(text) != 3 or not text.isdigit() or not text.isascii():
            raise MalformedMessage(400, "Malformed status line")
        raise MalformedMessage(400, "Status code out of range")
    words = line.split()
    if len(words) < 3 or not is_token(words[0]) or not words[-1].upper().startswith("SIP/"):
        raise MalformedMessage(400, "Malformed start line")
    if words[-1].upper() != "SIP/2.0":
        return _Faulty(words[0], 505, "Version Not Supported", line)
    if len(words) == 3 and words == parts:
        # The version is compared without regard to case (RFC 3261 section 7.1).
        return Request(words[0], words[1], None, b"", line)
    return _Faulty(words[0], 400, "Malformed request line", line)


def _read_fields(message: Message, lines: list[str], unfolded: bool) -> bool:
    """Note which line holds which field. False when there are continuation lines, which must be joined first."""
    first: dict[str, str] = {}
    keys: list[str] = []
    for line in lines:
        colon = line.find(":")
        key = HEADER_KEYS.get(line[:colon]) if colon > 0 else None
        if key is None:
            if line[0] in " \t" and first:
                return False
            key = read_key(line[:colon]) if colon > 0 else ""
        keys.append(key)
        first.setdefault(key, line)
    message.set_index(lines, keys, first, unfolded)
    return True


def _unfold(lines: list[str]) -> list[str]:
    """Join continuation lines to the line that they continue, with their CRLF inside."""
    groups: list[list[str]] = []
    for line in lines:
        if line[0] in " \t" and groups:
            groups[-1].append(line)
        else:
            groups.append([line])
    return ["\r\n".join(group) for group in groups]


def _malformed(message: Message, status: int, reason: str) -> MalformedMessage:
    if isinstance(message, Request) and message.get("via") is not None:
        return MalformedMessage(status, reason, message)
    return MalformedMessage(status, reason)


def _body(message: Message, body: bytes) -> bytes:
    """Cut the body to its Content-Length. Raises MalformedMessage."""
    value = message.get("content-length")
    if value is None:
        return body
    # As a rule it is just the length that there is.
    wanted = len(body) if value == str(len(body)) else _number(value)
    if wanted is None:
        raise _malformed(message, 400, "Malformed Content-Length")
    for key, line in message.repeated():
        if key == "content-length" and _number(read_value(line)) != wanted:
            raise _malformed(message, 400, "Conflicting Content-Length headers")
    if wanted > len(body):
        raise _malformed(message, 400, "Content-Length larger than the message")
    return body if wanted == len(body) else body[:wanted]


def _number(value: str) -> int | None:
    """A text of digits as a number; None when it is none, or has too many digits to be meant."""
    if value.isdigit() and value.isascii() and len(value) <= _MAX_DIGITS:
        return int(value)
    return None


def check_request(request: Request, *, allow: str = "") -> None:
    """Check what RFC 3261 sections 8.1.1, 8.2 and 16.3 demand of any request before it is processed.

    Raises SipError: 400 that names the fault; 501 with `allow` as its Allow for a method that no RFC defines; 416 for a
    Request-URI scheme that is not sip, sips or tel; 505 for a Via of another version. Not checked: whether a known
    method is served (405), Max-Forwards 0 (the business of whoever would forward), Require.
    """
    if request.method not in KNOWN_METHODS:
        raise SipError(501, "Not Implemented", (("Allow", allow),) if allow else ())
    _check_repeated(request)
    if request.holds_nul:
        raise SipError(400, "NUL in the head")
    branch = request.via.branch
    if len(branch) == len(_BARE_COOKIE) and branch.lower() == _BARE_COOKIE:
        raise SipError(400, "Via branch without an identifier")
    cseq = request.cseq
    if cseq.method != request.method:
        raise SipError(400, "CSeq method does not match the request")
    if not request.call_id:
        raise SipError(400, "Empty Call-ID")
    uri = request.request_uri
    request.to.share_uri(uri)
    if uri.scheme not in ("sip", "sips", "tel"):
        raise SipError(416, "Unsupported URI Scheme")
    if uri.headers is not None:
        raise SipError(400, "Headers in the Request-URI")
    _check_addresses(request)
    hops = request.get("max-forwards")
    if hops is not None:
        count = _number(hops)
        if count is None or count > _MAX_FORWARDS_LIMIT:
            raise SipError(400, "Malformed Max-Forwards")


def check_response(response: Response) -> None:
    """Check what must hold before a response can be matched (RFC 3261 sections 8.1.1, 8.1.3.3).

    Raises SipError for one that must be dropped: an unreadable Via, CSeq, Call-ID, From or To, or several Via values,
    as it was meant for someone else (RFC 4475 section 3.3.10). A broken Contact is no such reason: the session behind a
    2xx has to be ended.
    """
    if response.holds_nul:
        raise SipError(400, "NUL in the head")
    _check_repeated(response)
    if len(response.values("via")) > 1:
        raise SipError(400, "More than one Via in a response")
    # Reading them is the check.
    _ = response.via
    _ = response.cseq
    _ = response.from_
    _ = response.to
    if not response.call_id:
        raise SipError(400, "Empty Call-ID")


def _check_repeated(message: Message) -> None:
    for key, line in message.repeated():
        # A copy of the same is harmless, and seen; two that differ are not (RFC 4475 section 3.3.8).
        if key in _ONCE_ONLY and read_value(line) != message.get(key):
            raise SipError(400, f"More than one {line.partition(':')[0].rstrip()} header")


def _check_addresses(request: Request) -> None:
    sender, to, contact = request.from_, request.to, request.contact
    _ = sender.uri, to.uri
    if sender.tag == "" or to.tag == "":
        raise SipError(400, "Empty tag")
    if contact is not None:
        _ = contact.uri


class StreamFramer:
    """Cuts a byte stream into messages by their Content-Length (RFC 3261 section 18.3), without parsing them twice.

    `feed` returns whole messages as bytes, and `PING` / `PONG` for keep-alives (RFC 5626 section 4.4.1: a double CRLF
    is a ping, a single one its answer). A ping that comes in two halves gives a PONG, then a PING.

    Attributes:
        max_bytes: how large a message may be, head and body.
        error: set once the stream can't be trusted any more; it must be closed after what came before was handled.
    """

    PING: Final = b"\r\n\r\n"
    PONG: Final = b"\r\n"

    __slots__ = ("_buffer", "_half_ping", "_need", "_searched", "error", "max_bytes")

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.max_bytes = max_bytes
        self.error: MalformedMessage | None = None
        self._buffer = b""
        self._need = 0
        self._searched = 0
        self._half_ping = False

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished message are held; above zero means that a peer has half-sent one."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they come, return what is whole now.

        Raises MalformedMessage 400 or 513 for a head without a usable Content-Length, or a message that is too large,
        with the request as its `partial` where it can be answered. Messages that were whole before the fault are
        returned first: then `error` is set and the next call raises it.
        """
        if self.error is not None:
            raise self.error
        buffer = self._buffer + data if self._buffer else data
        out: list[bytes] = []
        at = 0
        try:
            while at < len(buffer):
                if not self._need:
                    if buffer[at] in _LINE_ENDS:
                        skip = self._keep_alive(buffer, at, out)
                        if not skip:
                            break
                        at += skip
                        continue
                    self._need = self._measure(buffer, at)
                    if not self._need:
                        break
                end = at + self._need
                if len(buffer) < end:
                    break
                out.append(buffer[at:end] if at or end < len(buffer) else buffer)
                at = end
                self._need = 0
        except MalformedMessage as error:
            self.error = error
            if not out:
                raise
        self._buffer = buffer[at:]
        return out

    def _keep_alive(self, buffer: bytes, at: int, out: list[bytes]) -> int:
        """Take the CRLFs at `at`: how many bytes to skip, 0 to wait for more. Raises MalformedMessage."""
        if buffer.startswith(self.PING, at) and not self._half_ping:
            out.append(self.PING)
            return 4
        if buffer.startswith(self.PONG, at):
            out.append(self.PING if self._half_ping else self.PONG)
            self._half_ping = not self._half_ping
            return 2
        if len(buffer) - at == 1 and buffer[at] == 13:
            return 0
        raise MalformedMessage(400, "Stray bytes between messages")

    def _measure(self, buffer: bytes, at: int) -> int:
        """The length of the message that starts at `at`, 0 when its head is not whole yet. Raises MalformedMessage."""
        self._half_ping = False
        limit = at + MAX_HEAD_BYTES + 4
        end = buffer.find(b"\r\n\r\n", max(at, at + self._searched - 3), limit)
        if end < 0:
            self._searched = len(buffer) - at
            if len(buffer) >= limit:
                raise MalformedMessage(513, "Message head too large")
            return 0
        self._searched = 0
        head = buffer[at : end + 4]
        try:
            need = len(head) + content_length(head)
            if need > self.max_bytes:
                raise SipError(513, "Message Too Large")
        except SipError as error:
            raise _unframed(head, error) from None
        return need


def _unframed(head: bytes, error: SipError) -> MalformedMessage:
    """The error with what can be read of the request whose end can't be found."""
    try:
        message = parse_message(head)
    except MalformedMessage as other:
        return MalformedMessage(error.status, error.reason, other.partial)
    return _malformed(message, error.status, error.reason)


def content_length(head: bytes) -> int:
    """The Content-Length of a head (all of it with CRLF line ends); 0 when it has none (RFC 3261 section 18.3 demands
    one over streams, but a message without a body is clear enough).

    Raises SipError 400 when it is no number, or when several disagree.
    """
    found: int | None = None
    for value in _CONTENT_LENGTH.findall(head):
        text = value.strip(b" \t\r\n")
        if not text.isdigit() or len(text) > _MAX_DIGITS:
            raise SipError(400, "Malformed Content-Length")
        if found is not None and found != int(text):
            raise SipError(400, "Conflicting Content-Length headers")
        found = int(text)
    return found or 0
