"""SIP messages: ordered header fields in their own casing and spacing, and the body as bytes.

A message is immutable by convention. Whoever changes one works on a `rewrite.draft.Draft`, which records each edit.
Text is decoded as UTF-8 with `surrogateescape`, so that any bytes survive the way through.
"""

from __future__ import annotations

from typing import Final

from proxy.sip.errors import SipError
from proxy.sip.headers import CSeq, NameAddr, Via, parse_cseq, parse_name_addr, parse_via, split_values

__all__ = ["COMPACT_FORMS", "SINGLETONS", "Header", "Message", "Request", "Response", "canonical_key", "header"]

COMPACT_FORMS: Final = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
"""Compact form → long name (RFC 3261 section 7.3.3 and the extensions' own RFCs), in lower case."""

SINGLETONS: Final = frozenset(
    (
        "call-id",
        "content-disposition",
        "content-length",
        "content-type",
        "cseq",
        "date",
        "expires",
        "from",
        "max-forwards",
        "mime-version",
        "min-se",
        "organization",
        "priority",
        "rack",
        "refer-to",
        "referred-by",
        "replaces",
        "retry-after",
        "rseq",
        "server",
        "session-expires",
        "subject",
        "timestamp",
        "to",
        "user-agent",
    )
)
"""Header fields that may stand only once in a message, by key."""

_KNOWN_NAMES: Final = (
    "Accept Accept-Encoding Accept-Language Alert-Info Allow Allow-Events Authorization Call-ID Call-Info Contact "
    "Content-Disposition Content-Encoding Content-Length Content-Type CSeq Date Diversion Event Expires From "
    "History-Info Max-Forwards Min-Expires Min-SE MIME-Version Organization P-Asserted-Identity "
    "P-Preferred-Identity Path Priority Privacy Proxy-Authenticate Proxy-Authorization Proxy-Require RAck Reason "
    "Record-Route Refer-To Referred-By Remote-Party-ID Replaces Reply-To Require Retry-After Route RSeq Server "
    "Service-Route Session-Expires Subject Supported Timestamp To Unsupported User-Agent Via Warning "
    "WWW-Authenticate X-Twilio-AccountSid X-Twilio-CallSid"
).split()

_KEYS: Final[dict[str, str]] = {
    **{name: name.lower() for name in _KNOWN_NAMES},
    **{name.lower(): name.lower() for name in _KNOWN_NAMES},
    **COMPACT_FORMS,
    **{short.upper(): name for short, name in COMPACT_FORMS.items()},
}

_TOKEN_EXTRA: Final = str.maketrans("", "", "-.!%*_+`'~")
_BREAKS: Final = frozenset("\r\n\x00")


def canonical_key(name: str) -> str:
    """The lower-case long form of a header name, by which it is looked up: `v` and `VIA` give `via`."""
    key = _KEYS.get(name)
    if key is None:
        key = name.strip().lower()
        key = COMPACT_FORMS.get(key, key)
    return key


def is_token(text: str) -> bool:
    """Whether a text is a token of RFC 3261 section 25.1."""
    rest = text.translate(_TOKEN_EXTRA)
    return bool(text) and text.isascii() and (not rest or rest.isalnum())


class Header:
    """One header field.

    Attributes:
        name: as written. Empty for a line that has no colon or no valid name.
        key: the lower-case long form; "" for a line that is no header field.
        value: unfolded, without the white space around it.
        line: as on the wire, without the last CRLF.
    """

    __slots__ = ("key", "line", "name", "value")

    def __init__(self, name: str, key: str, value: str, line: str) -> None:
        self.name = name
        self.key = key
        self.value = value
        self.line = line

    def __repr__(self) -> str:
        return f"Header({self.line!r})"


def header(name: str, value: str) -> Header:
    """Build a header field.

    Raises ValueError for a name that is no token, or a value with CR, LF or NUL, so that nothing can be injected.
    """
    if not _BREAKS.isdisjoint(value):
        raise ValueError(f"line break or NUL in the value of {name}")
    key = _KEYS.get(name)
    if key is None:
        if not is_token(name):
            raise ValueError(f"not a header name: {name!r}")
        key = canonical_key(name)
    return Header(name, key, value, f"{name}: {value}")


class Message:
    """What requests and responses share. `headers` and `body` are read only."""

    __slots__ = ("_cseq", "_from", "_to", "_via", "body", "headers", "start_line")

    def __init__(self, start_line: str, headers: list[Header], body: bytes) -> None:
        self.start_line = start_line
        self.headers = headers
        self.body = body
        self._via: Via | None = None
        self._from: NameAddr | None = None
        self._to: NameAddr | None = None
        self._cseq: CSeq | None = None

    def get(self, key: str) -> str | None:
        """The value of the first header field with this key (lower-case long form), or None."""
        for item in self.headers:
            if item.key == key:
                return item.value
        return None

    def get_all(self, key: str) -> list[str]:
        """The values of all header fields with this key, one entry a line, in order."""
        return [item.value for item in self.headers if item.key == key]

    def values(self, key: str) -> list[str]:
        """All values of a comma-separated header, over all its lines, in order. Raises SipError 400."""
        found: list[str] = []
        for item in self.headers:
            if item.key == key:
                found.extend(split_values(item.value))
        return found

    def _need(self, key: str, name: str) -> str:
        value = self.get(key)
        if value is None:
            raise SipError(400, f"Missing {name} header")
        return value

    @property
    def call_id(self) -> str:
        """The Call-ID. Raises SipError 400 when it is missing."""
        return self._need("call-id", "Call-ID")

    @property
    def cseq(self) -> CSeq:
        """The CSeq. Raises SipError 400."""
        cseq = self._cseq
        if cseq is None:
            cseq = self._cseq = parse_cseq(self._need("cseq", "CSeq"))
        return cseq

    @property
    def via(self) -> Via:
        """The topmost Via. Raises SipError 400."""
        via = self._via
        if via is None:
            via = self._via = parse_via(split_values(self._need("via", "Via"))[0])
        return via

    @property
    def from_(self) -> NameAddr:
        """The From address. Raises SipError 400."""
        address = self._from
        if address is None:
            address = self._from = parse_name_addr(self._need("from", "From"))
        return address

    @property
    def to(self) -> NameAddr:
        """The To address. Raises SipError 400."""
        address = self._to
        if address is None:
            address = self._to = parse_name_addr(self._need("to", "To"))
        return address

    @property
    def contact(self) -> NameAddr | None:
        """The first Contact address, or None. Raises SipError 400."""
        value = self.get("contact")
        return None if value is None or value == "*" else parse_name_addr(split_values(value)[0])

    @property
    def content_type(self) -> str:
        """The media type of the body in lower case, without parameters; "" when there is none."""
        value = self.get("content-type")
        return "" if value is None else value.partition(";")[0].strip().lower()

    def serialize(self) -> bytes:
        """The message as bytes, just as its lines stand."""
        lines = [self.start_line]
        lines.extend([item.line for item in self.headers])
        lines.append("\r\n")
        head = "\r\n".join(lines)
        return head.encode("utf-8", "surrogateescape") + self.body


class Request(Message):
    """A request. `uri` is the Request-URI as written."""

    __slots__ = ("method", "uri")

    def __init__(
        self, method: str, uri: str, headers: list[Header], body: bytes = b"", start_line: str | None = None
    ) -> None:
        super().__init__(f"{method} {uri} SIP/2.0" if start_line is None else start_line, headers, body)
        self.method = method
        self.uri = uri

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"


class Response(Message):
    """A response."""

    __slots__ = ("reason", "status")

    def __init__(
        self, status: int, reason: str, headers: list[Header], body: bytes = b"", start_line: str | None = None
    ) -> None:
        super().__init__(f"SIP/2.0 {status} {reason}" if start_line is None else start_line, headers, body)
        self.status = status
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"
