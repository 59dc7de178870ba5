"""Bytes to messages: one datagram or one framed message at a time, and the stream framer (RFC 3261 sections 7 and 18.3)."""

from __future__ import annotations

from typing import Final

from proxy.sip.errors import SipError
from proxy.sip.message import SINGLETONS, Header, Message, Request, Response, canonical_key, is_token
from proxy.sip.uri import parse_uri

__all__ = ["MAX_HEADERS", "MAX_MESSAGE_BYTES", "MalformedMessage", "StreamFramer", "check_request", "parse_message"]

MAX_MESSAGE_BYTES: Final = 65_535
MAX_HEADERS: Final = 256
_MAX_HEAD_BYTES: Final = 32_768
_ONCE_ONLY: Final = frozenset(("from", "to", "call-id", "cseq", "max-forwards"))
_MAX_FORWARDS_LIMIT: Final = 255


class MalformedMessage(SipError):
    """A message that does not parse.

    Attributes:
        partial: the request as far as it could be read, when it holds enough for a reply (a Via); else None.
    """

    def __init__(self, status: int, reason: str, partial: Request | None = None) -> None:
        super().__init__(status, reason)
        self.partial = partial


def parse_message(data: bytes, *, max_headers: int = MAX_HEADERS) -> Request | Response:
    """Parse one whole message: a datagram, or what `StreamFramer` cut out.

    Bytes past Content-Length are dropped (RFC 3261 section 18.3); without a Content-Length the rest is the body.
    A line that is no header field is kept with an empty key. Raises MalformedMessage.
    """
    end = data.find(b"\r\n\r\n")
    if end >= 0:
        head, body = data[:end], data[end + 4 :]
    else:
        end = data.find(b"\n\n")
        if end >= 0 and b"\r" not in data[:end]:
            head, body = data[:end].replace(b"\n", b"\r\n"), data[end + 2 :]
        else:
            head, body = data.rstrip(b"\r\n"), b""
    text = head.decode("utf-8", "surrogateescape")
    lines = text.split("\r\n")
    message = _start(lines[0])
    headers = message.headers
    if "\r\n " in text or "\r\n\t" in text:
        lines = _unfold(lines)
    length: str | None = None
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        key = canonical_key(name) if colon else ""
        if "\r\n" in value:
            value = " ".join([part.strip() for part in value.split("\r\n")])
        headers.append(Header(name, key, value.strip(), line) if key else Header("", "", line, line))
        if key == "content-length":
            value = value.strip()
            if length is not None and length != value:
                raise _malformed(message, "Conflicting Content-Length headers")
            length = value
    if len(headers) > max_headers:
        raise _malformed(message, "Too many header fields", 513)
    if text.count("\r") != text.count("\r\n") or text.count("\n") != text.count("\r\n") or "\x00" in text:
        raise _malformed(message, "Bare CR, LF or NUL in a header")
    message.body = _body(message, body, length)
    return message


def _start(line: str) -> Request | Response:
    """Parse the start line into a message without headers."""
    if line.startswith("SIP/"):
        version, _, rest = line.partition(" ")
        status, _, reason = rest.partition(" ")
        if version.upper() != "SIP/2.0" or len(status) != 3 or not status.isdigit() or not status.isascii():
            raise MalformedMessage(400, "Malformed status line")
        if not 100 <= int(status) <= 699:
            raise MalformedMessage(400, "Status code out of range")
        return Response(int(status), reason, [], start_line=line)
    parts = line.split(" ")
    if len(parts) == 3 and parts[2] == "SIP/2.0" and is_token(parts[0]):
        return Request(parts[0], parts[1], [], start_line=line)
    request = _salvage(line)
    if request is None:
        raise MalformedMessage(400, "Malformed start line")
    return request


class _BadStart(Request):
    """A request whose request line is wrong but shows a method, kept for its reply."""

    __slots__ = ("status", "why")

    def __init__(self, method: str, status: int, why: str) -> None:
        super().__init__(method, "", [])
        self.status = status
        self.why = why


def _salvage(line: str) -> Request | None:
    parts = line.split()
    if len(parts) < 3 or not is_token(parts[0]) or not parts[-1].upper().startswith("SIP/"):
        return None
    if parts[-1].upper() != "SIP/2.0":
        return _BadStart(parts[0], 505, "Version Not Supported")
    return _BadStart(parts[0], 400, "Malformed request line")


def _unfold(lines: list[str]) -> list[str]:
    """Join continuation lines to the line that they continue, with their CRLF inside."""
    joined: list[str] = []
    for line in lines:
        if line[:1] in (" ", "\t") and len(joined) > 1:
            joined[-1] = f"{joined[-1]}\r\n{line}"
        else:
            joined.append(line)
    return joined


def _malformed(message: Message, reason: str, status: int = 400) -> MalformedMessage:
    if isinstance(message, Request) and message.get("via") is not None:
        return MalformedMessage(status, reason, message)
    return MalformedMessage(status, reason)


def _body(message: Message, body: bytes, length: str | None) -> bytes:
    """Cut the body to its Content-Length, after the checks that need all of the headers."""
    if isinstance(message, _BadStart):
        raise _malformed(message, message.why, message.status)
    if length is None:
        return body
    if not length.isdigit() or not length.isascii():
        raise _malformed(message, "Malformed Content-Length")
    wanted = int(length) if len(length) < 10 else 1 << 40
    if wanted > len(body):
        raise _malformed(message, "Content-Length larger than the message")
    return body if wanted == len(body) else body[:wanted]


def check_request(request: Request) -> None:
    """Check what RFC 3261 sections 8.1.1 and 16.3 demand of any request before it is processed.

    Raises SipError 400 that names the fault, 416 for a Request-URI scheme that is not sip, sips or tel, or 483 never
    (Max-Forwards 0 is the business of whoever would forward).
    """
    seen: set[str] = set()
    for item in request.headers:
        key = item.key
        if key in _ONCE_ONLY:
            if key in seen:
                raise SipError(400, f"More than one {item.name.strip()} header")
            seen.add(key)
            if key == "max-forwards":
                value = item.value
                if not value.isdigit() or not value.isascii() or len(value) > 3 or int(value) > _MAX_FORWARDS_LIMIT:
                    raise SipError(400, "Malformed Max-Forwards")
    uri = parse_uri(request.uri)
    if uri.scheme not in ("sip", "sips", "tel"):
        raise SipError(416, "Unsupported URI Scheme")
    if uri.headers is not None:
        raise SipError(400, "Headers in the Request-URI")
    _ = request.via
    if not request.call_id:
        raise SipError(400, "Empty Call-ID")
    _ = request.from_.uri, request.to.uri
    if request.cseq.method != request.method:
        raise SipError(400, "CSeq method does not match the request")
    contact = request.contact
    if contact is not None:
        _ = contact.uri


def repair_candidates(message: Message) -> list[int]:
    """The positions of second and later copies of header fields that may stand only once."""
    seen: set[str] = set()
    extra: list[int] = []
    for at, item in enumerate(message.headers):
        if item.key in SINGLETONS:
            if item.key in seen:
                extra.append(at)
            seen.add(item.key)
    return extra


class StreamFramer:
    """Cuts a byte stream into messages by their Content-Length (RFC 3261 section 18.3), without parsing them twice.

    `feed` returns whole messages as bytes, and `PING` / `PONG` for keep-alives (RFC 5626 section 4.4.1: a double CRLF
    is a ping, a single one its answer). After a SipError the stream can't be trusted and must be closed.
    """

    PING: Final = b"\r\n\r\n"
    PONG: Final = b"\r\n"

    __slots__ = ("_buffer", "_need", "_searched", "max_bytes")

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._buffer = b""
        self._need = 0
        self._searched = 0

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished message are held; above zero means that a peer has half-sent one."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they come, return what is whole now.

        Raises SipError 400 or 513 for a head without a usable Content-Length, or a message that is too large.
        """
        buffer = self._buffer + data if self._buffer else data
        out: list[bytes] = []
        at = 0
        while at < len(buffer):
            if not self._need:
                if buffer[at] in (13, 10):
                    if buffer.startswith(self.PING, at):
                        out.append(self.PING)
                        at += 4
                        continue
                    if len(buffer) - at < 4 and self.PING.startswith(buffer[at:]) and len(buffer) - at != 2:
                        break
                    if buffer.startswith(self.PONG, at):
                        out.append(self.PONG)
                        at += 2
                        continue
                    raise SipError(400, "Stray bytes between messages")
                end = buffer.find(b"\r\n\r\n", max(at, at + self._searched - 3))
                if end < 0:
                    self._searched = len(buffer) - at
                    if self._searched > _MAX_HEAD_BYTES:
                        raise SipError(513, "Message head too large")
                    break
                self._searched = 0
                self._need = end + 4 - at + content_length(buffer[at:end])
                if self._need > self.max_bytes:
                    raise SipError(513, "Message Too Large")
            if len(buffer) - at < self._need:
                break
            out.append(buffer[at : at + self._need])
            at += self._need
            self._need = 0
        self._buffer = buffer[at:]
        return out


def content_length(head: bytes) -> int:
    """The Content-Length of a head (without its blank line); 0 when it has none (RFC 3261 section 18.3 demands one
    over streams, but a message without a body is clear enough).

    Raises SipError 400 when it is no number, or when several disagree.
    """
    lowered = head.lower()
    found: int | None = None
    for name in (b"\ncontent-length", b"\nl"):
        at = lowered.find(name)
        while at >= 0:
            end = lowered.find(b"\r\n", at)
            line = lowered[at + len(name) : end if end >= 0 else len(lowered)]
            before, colon, value = line.partition(b":")
            if colon and not before.strip():
                value = value.strip()
                if not value.isdigit() or len(value) > 9:
                    raise SipError(400, "Malformed Content-Length")
                if found is not None and found != int(value):
                    raise SipError(400, "Conflicting Content-Length headers")
                found = int(value)
            at = lowered.find(name, at + 1)
    return found or 0
