"""Parsed views of the header fields that a B2BUA must understand (RFC 3261 section 20)."""

from __future__ import annotations

from proxy.sip.errors import SipError
from proxy.sip.uri import Params, Uri, parse_params, parse_uri, render_params, split_host_port

__all__ = ["CSeq", "NameAddr", "Via", "parse_cseq", "parse_name_addr", "parse_via", "split_values"]

_MAX_CSEQ = 2**31


def split_values(value: str) -> list[str]:
    """Split a header field value at its commas, outside quoted strings and angle brackets (RFC 3261 section 7.3.1).

    Raises SipError 400 for an unterminated quoted string. Empty elements are kept, so that the caller can refuse them.
    """
    if "," not in value:
        return [value]
    values: list[str] = []
    start = at = 0
    quoted = bracketed = False
    while at < len(value):
        ch = value[at]
        if quoted:
            if ch == "\\":
                at += 1
            elif ch == '"':
                quoted = False
        elif ch == '"':
            quoted = True
        elif ch == "<":
            bracketed = True
        elif ch == ">":
            bracketed = False
        elif ch == "," and not bracketed:
            values.append(value[start:at].strip())
            start = at + 1
        at += 1
    if quoted:
        raise SipError(400, "Unterminated quoted string")
    values.append(value[start:].strip())
    return values


class CSeq:
    """A CSeq: `number` below 2**31 and `method` (RFC 3261 section 8.1.1.5)."""

    __slots__ = ("method", "number")

    def __init__(self, number: int, method: str) -> None:
        self.number = number
        self.method = method


def parse_cseq(value: str) -> CSeq:
    """Parse `number method`. Raises SipError 400."""
    parts = value.split()
    if len(parts) != 2 or not parts[0].isdigit() or not parts[0].isascii():
        raise SipError(400, "Malformed CSeq")
    if len(parts[0]) > 10 or int(parts[0]) >= _MAX_CSEQ:
        raise SipError(400, "CSeq number too large")
    return CSeq(int(parts[0]), parts[1])


class Via:
    """One Via value: `transport` in upper case, `host` (IPv6 with brackets), `port`, `params`."""

    __slots__ = ("branch", "host", "params", "port", "transport")

    def __init__(self, transport: str, host: str, port: int | None, params: Params) -> None:
        self.transport = transport
        self.host = host
        self.port = port
        self.params = params
        self.branch = self.param("branch") or ""

    def param(self, name: str) -> str | None:
        """The first value of a parameter ("" when it stands without a value), or None when it is absent."""
        for key, value in self.params:
            if key.lower() == name:
                return value if value is not None else ""
        return None

    @property
    def sent_by(self) -> str:
        """`host[:port]` in lower case, as transaction matching compares it (RFC 3261 section 17.2.3)."""
        return self.host.lower() if self.port is None else f"{self.host.lower()}:{self.port}"

    def with_params(self, params: Params) -> Via:
        """The same Via with other parameters."""
        return Via(self.transport, self.host, self.port, params)

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {self.host}{port}{render_params(self.params)}"


def parse_via(value: str) -> Via:
    """Parse one Via value (not a list). Raises SipError 400, or 505 for another protocol version."""
    if value.startswith("SIP/2.0/"):
        transport, space, rest = value[8:].partition(" ")
        if not space:
            raise SipError(400, "Malformed Via")
    else:
        parts = value.split("/", 2)
        if len(parts) != 3 or parts[0].strip().upper() != "SIP":
            raise SipError(400, "Malformed Via")
        if parts[1].strip() != "2.0":
            raise SipError(505, "Version Not Supported")
        tail = parts[2].split(None, 1)
        if len(tail) != 2:
            raise SipError(400, "Malformed Via")
        transport, rest = tail
    hostport, semicolon, tail_text = rest.partition(";")
    if not transport or (semicolon and not tail_text.strip()):
        raise SipError(400, "Malformed Via")
    host, port = split_host_port(hostport.strip())
    return Via(transport.strip().upper(), host, port, parse_params(tail_text) if semicolon else ())


class NameAddr:
    """A name-addr or addr-spec with header parameters: From, To, Contact, Route, Refer-To …

    `display` is the text before the angle bracket as written (quotes included), `uri_text` the URI as written.
    """

    __slots__ = ("_uri", "display", "params", "uri_text")

    def __init__(self, display: str, uri_text: str, params: Params = ()) -> None:
        self.display = display
        self.uri_text = uri_text
        self.params = params
        self._uri: Uri | None = None

    @property
    def uri(self) -> Uri:
        """The parsed URI. Raises SipError 400 when it can't be understood."""
        uri = self._uri
        if uri is None:
            uri = self._uri = parse_uri(self.uri_text)
        return uri

    def param(self, name: str) -> str | None:
        """The first value of a header parameter ("" when it stands without a value), or None when it is absent."""
        for key, value in self.params:
            if key.lower() == name:
                return value if value is not None else ""
        return None

    @property
    def tag(self) -> str | None:
        """The tag parameter."""
        return self.param("tag")

    def replace(
        self, *, display: str | None = None, uri_text: str | None = None, params: Params | None = None
    ) -> NameAddr:
        """A copy with some parts changed."""
        return NameAddr(
            self.display if display is None else display,
            self.uri_text if uri_text is None else uri_text,
            self.params if params is None else params,
        )

    def __str__(self) -> str:
        display = f"{self.display} " if self.display else ""
        return f"{display}<{self.uri_text}>{render_params(self.params)}"


def parse_name_addr(value: str) -> NameAddr:
    """Parse one value (not a list). Raises SipError 400."""
    display = ""
    if value.startswith('"'):
        end = _closing_quote(value)
        open_at = value.find("<", end)
        if open_at < 0 or value[end + 1 : open_at].strip():
            raise SipError(400, "Malformed display name")
        display = value[: end + 1]
    else:
        open_at = value.find("<")
        if open_at > 0:
            display = value[:open_at].strip()
            if '"' in display:
                raise SipError(400, "Unterminated quoted string")
    if open_at < 0:
        uri_text, semicolon, tail = value.partition(";")
        uri_text = uri_text.strip()
        if not uri_text or "?" in uri_text or "," in uri_text:
            raise SipError(400, "Malformed address")
        return NameAddr("", uri_text, parse_params(tail) if semicolon else ())
    close_at = value.find(">", open_at)
    if close_at < 0:
        raise SipError(400, "Unterminated angle bracket")
    rest = value[close_at + 1 :].strip()
    if rest and not rest.startswith(";"):
        raise SipError(400, "Text after the address")
    uri_text = value[open_at + 1 : close_at].strip()
    if not uri_text:
        raise SipError(400, "Empty address")
    return NameAddr(display, uri_text, parse_params(rest[1:]) if rest else ())


def _closing_quote(value: str) -> int:
    """Where the quoted string that starts at 0 ends."""
    at = 1
    while at < len(value):
        if value[at] == "\\":
            at += 1
        elif value[at] == '"':
            return at
        at += 1
    raise SipError(400, "Unterminated quoted string")
