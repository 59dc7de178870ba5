"""SIP messages: ordered header fields in their own casing and spacing, and the body as bytes.

A message is immutable by convention. Whoever changes one works on a `rewrite.draft.Draft`, which records each edit.
Text is decoded as UTF-8 with `surrogateescape`, so that any bytes survive the way through.
"""

from __future__ import annotations

from typing import Final

from proxy.sip.errors import SipError
from proxy.sip.headers import (
    CSeq,
    NameAddr,
    Via,
    is_token,
    parse_cseq,
    parse_name_addr,
    parse_via,
    split_first,
    split_values,
)
from proxy.sip.uri import Uri, parse_uri

__all__ = [
    "COMPACT_FORMS",
    "KNOWN_METHODS",
    "SINGLETONS",
    "Header",
    "Message",
    "Request",
    "Response",
    "canonical_key",
    "has_break",
    "header",
    "is_token",
    "read_header",
]

_SPACE: Final = 32

KNOWN_METHODS: Final = frozenset(
    "ACK BYE CANCEL INFO INVITE MESSAGE NOTIFY OPTIONS PRACK PUBLISH REFER REGISTER SUBSCRIBE UPDATE".split()
)
"""Every method that an RFC defines. Which of them are served is another question: 405 refuses one, 501 any other."""

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

HEADER_KEYS: Final[dict[str, str]] = {
    **{name: name.lower() for name in _KNOWN_NAMES},
    **{name.lower(): name.lower() for name in _KNOWN_NAMES},
    **COMPACT_FORMS,
    **{short.upper(): name for short, name in COMPACT_FORMS.items()},
}
"""The names that messages are full of, in their usual casings → key: one lookup instead of `canonical_key`'s work."""


def canonical_key(name: str) -> str:
    """The lower-case long form of a header name, by which it is looked up: `v` and `VIA` give `via`."""
    key = HEADER_KEYS.get(name)
    if key is None:
        key = name.strip().lower()
        key = COMPACT_FORMS.get(key, key)
    return key


class Header:
    """One header field.

    Args:
        key: the key.
        line: the line.
        value: the value, where it is known already; else it is read when somebody asks, since most fields only cross.

    Attributes:
        key: the lower-case long form; "" for a line that is no header field: nothing may send such a line on.
        line: as on the wire, without the last CRLF.
    """

    __slots__ = ("_value", "key", "line")

    def __init__(self, key: str, line: str, value: str | None = None) -> None:
        self.key = key
        self.line = line
        self._value = value

    @property
    def name(self) -> str:
        """The name as written, without the white space around it. Empty for a line that has no colon or no valid
        name."""
        return self.line.partition(":")[0].rstrip(" \t") if self.key else ""

    @property
    def value(self) -> str:
        """The value, unfolded, without the white space around it; all of a line that is no header field."""
        value = self._value
        if value is None:
            value = self._value = read_value(self.line) if self.key else self.line
        return value

    def __repr__(self) -> str:
        return f"Header({self.line!r})"


def header(name: str, value: str) -> Header:
    """Build a header field.

    Raises ValueError for a name that is no token, or a value with CR, LF or NUL, so that nothing can be injected.
    """
    if has_break(value):
        raise ValueError(f"line break or NUL in the value of {name}")
    key = HEADER_KEYS.get(name)
    if key is None:
        if not is_token(name):
            raise ValueError(f"not a header name: {name!r}")
        key = canonical_key(name)
    return Header(key, f"{name}: {value}", value)


def has_break(text: str) -> bool:
    """Whether a text would end its line, or hide its end from a program in C."""
    return "\r" in text or "\n" in text or "\x00" in text


def read_header(line: str) -> Header:
    """Read one header line, with the CRLF of its folds inside. A line that is no header field gets an empty key."""
    name, colon, _ = line.partition(":")
    return Header(read_key(name) if colon else "", line)


def read_key(name: str) -> str:
    """The key of a name as it stands before its colon; "" for what is no name (RFC 3261 section 25.1, header-name)."""
    key = HEADER_KEYS.get(name)
    if key is None:
        name = name.rstrip(" \t")
        key = canonical_key(name) if is_token(name) else ""
    return key


def read_value(line: str) -> str:
    """The value in a header line, unfolded (RFC 3261 section 7.3.1), without the white space around it."""
    at = line.find(":") + 1
    if at and "\n" not in line:
        # The ordinary form first: on one line, behind one space.
        if at < len(line) and line[at] == " ":
            at += 1
        value = line[at:]
        if not value or (ord(value[0]) > _SPACE and ord(value[-1]) > _SPACE):
            return value
    value = line.partition(":")[2].strip(" \t\r\n")
    if "\r\n" in value:
        return " ".join([part.strip(" \t") for part in value.split("\r\n")])
    return value


class Message:
    """What requests and responses share. All of it is read only.

    Most messages are only matched and never sent on, so the parser leaves the lines of the head as they are: `Header`
    objects are made when somebody asks for the list.

    Attributes:
        start_line: as on the wire, without its CRLF.
        body: the body as it is.
        may_fold: False where it is known that no header field goes on in a further line.
        holds_nul: whether a quoted string of the head has an escaped NUL in it, which is legal but nothing to pass on.
    """

    __slots__ = (
        "_call_id",
        "_contact",
        "_cseq",
        "_first",
        "_from",
        "_headers",
        "_keys",
        "_lines",
        "_repeated",
        "_to",
        "_via",
        "body",
        "holds_nul",
        "may_fold",
        "start_line",
    )

    def __init__(self, start_line: str, headers: list[Header] | None, body: bytes) -> None:
        self.start_line = start_line
        self.body = body
        self.holds_nul = False
        self.may_fold = True
        self._headers = headers
        self._lines: list[str] | None = None
        self._keys: list[str] | None = None
        self._first: dict[str, str] | None = None
        self._repeated: list[tuple[str, str]] | None = None
        self._via: Via | None = None
        self._from: NameAddr | None = None
        self._to: NameAddr | None = None
        self._cseq: CSeq | None = None
        self._contact: NameAddr | None = None
        self._call_id: str | None = None

    def set_lines(self, lines: list[str]) -> None:
        """Set the header fields as lines. For who makes a message without a list of headers, before it is read."""
        self._lines = lines

    def set_index(self, lines: list[str], keys: list[str], first: dict[str, str], may_fold: bool) -> None:
        """Set the header fields as lines and spare the message the making of its index: the key of each line, and the
        first line of each key. `may_fold`: whether a line may have folds in it."""
        self._lines = lines
        self._keys = keys
        self._first = first
        self.may_fold = may_fold
        if len(first) != len(keys):
            self._repeated = _later(keys, lines)

    @property
    def headers(self) -> list[Header]:
        """The header fields in order; not to be changed."""
        headers = self._headers
        if headers is None:
            lines, keys = self._lines or [], self._keys
            if keys is None:
                headers = [read_header(line) for line in lines]
            else:
                headers = [Header(key, line) for key, line in zip(keys, lines, strict=True)]
            self._headers = headers
        return headers

    def _index(self) -> dict[str, str]:
        """The first line of each key."""
        first = self._first
        if first is None:
            headers = self.headers
            first = self._first = {}
            for item in headers:
                first.setdefault(item.key, item.line)
            if len(first) != len(headers):
                self._repeated = _later([item.key for item in headers], [item.line for item in headers])
        return first

    def keys(self) -> dict[str, str]:
        """The key of each header field that is there, with the first line of it; not to be changed."""
        first = self._first
        return self._index() if first is None else first

    def repeated(self) -> list[tuple[str, str]]:
        """(key, line) of the header fields whose key stood before in the message; Via and Route do so rightly."""
        self._index()
        return self._repeated or []

    def lines(self, key: str) -> list[str]:
        """The lines of all header fields with this key (lower-case long form), in order; a list of the caller's own."""
        line = self.keys().get(key)
        if line is None:
            return []
        found = [line]
        repeated = self._repeated
        if repeated is not None:
            found.extend([line for other, line in repeated if other == key])
        return found

    def get(self, key: str) -> str | None:
        """The value of the first header field with this key (lower-case long form), or None."""
        first = self._first
        if first is None:
            first = self._index()
        line = first.get(key)
        return None if line is None else read_value(line)

    def get_all(self, key: str) -> list[str]:
        """The values of all header fields with this key, one entry a line, in order."""
        return [read_value(line) for line in self.lines(key)]

    def values(self, key: str) -> list[str]:
        """All values of a comma-separated header, over all its lines, in order. Raises SipError 400."""
        found: list[str] = []
        for line in self.lines(key):
            found.extend(split_values(read_value(line)))
        return found

    def _need(self, key: str, name: str) -> str:
        first = self._first
        if first is None:
            first = self._index()
        line = first.get(key)
        if line is None:
            raise SipError(400, f"Missing {name} header")
        return read_value(line)

    @property
    def call_id(self) -> str:
        """The Call-ID. Raises SipError 400 when it is missing."""
        call_id = self._call_id
        if call_id is None:
            call_id = self._call_id = self._need("call-id", "Call-ID")
        return call_id

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
            value = self._need("via", "Via")
            via = self._via = parse_via(split_first(value)[0] if "," in value else value)
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
        """The first Contact address; None without one, or for `*`. Raises SipError 400."""
        address = self._contact
        if address is None:
            value = self.get("contact")
            if value is None or value == "*":
                return None
            address = self._contact = parse_name_addr(split_first(value)[0] if "," in value else value)
        return address

    @property
    def content_type(self) -> str:
        """The media type of the body in lower case, without parameters; "" when there is none."""
        value = self.get("content-type")
        return "" if value is None else value.partition(";")[0].strip().lower()

    def condense(self) -> None:
        """Let go of all that can be made of the lines again, for who keeps a message that will hardly be read."""
        headers = self._headers
        if headers is not None:
            self._lines = [item.line for item in headers]
            self._headers = None
        self._keys = self._first = self._repeated = None
        self._via = self._cseq = self._call_id = None
        self._from = self._to = self._contact = None

    def head_lines(self) -> list[str]:
        """The start line and the lines of the header fields, folds inside; a list of the caller's own."""
        lines = [self.start_line]
        headers = self._headers
        lines.extend((self._lines or ()) if headers is None else [item.line for item in headers])
        return lines

    def serialize(self) -> bytes:
        """The message as bytes, just as its lines stand."""
        lines = self.head_lines()
        lines.append("\r\n")
        head = "\r\n".join(lines).encode("utf-8", "surrogateescape")
        return head + self.body if self.body else head


def _later(keys: list[str], lines: list[str]) -> list[tuple[str, str]]:
    """(key, line) of each line whose key stands before it."""
    seen: set[str] = set()
    found: list[tuple[str, str]] = []
    for key, line in zip(keys, lines, strict=True):
        if key in seen:
            found.append((key, line))
        seen.add(key)
    return found


class Request(Message):
    """A request. `uri` is the Request-URI as written.

    Without a `start_line` one is built; then ValueError is raised for a method that is no token, or a URI with white
    space or control characters.
    """

    __slots__ = ("_request_uri", "method", "uri")

    def __init__(
        self,
        method: str,
        uri: str,
        headers: list[Header] | None,
        body: bytes = b"",
        start_line: str | None = None,
    ) -> None:
        if start_line is None:
            if not is_token(method) or " " in uri or "\t" in uri or has_break(uri):
                raise ValueError(f"not a request line: {method!r} {uri!r}")
            start_line = f"{method} {uri} SIP/2.0"
        super().__init__(start_line, headers, body)
        self.method = method
        self.uri = uri
        self._request_uri: Uri | None = None

    @property
    def request_uri(self) -> Uri:
        """The parsed Request-URI. Raises SipError 400."""
        uri = self._request_uri
        if uri is None:
            uri = self._request_uri = parse_uri(self.uri)
        return uri

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"


class Response(Message):
    """A response.

    Without a `start_line` one is built; then ValueError is raised for a reason phrase with CR, LF or NUL.
    """

    __slots__ = ("reason", "status")

    def __init__(
        self,
        status: int,
        reason: str,
        headers: list[Header] | None,
        body: bytes = b"",
        start_line: str | None = None,
    ) -> None:
        if start_line is None:
            if has_break(reason):
                raise ValueError("line break or NUL in the reason phrase")
            start_line = f"SIP/2.0 {status} {reason}"
        super().__init__(start_line, headers, body)
        self.status = status
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"
