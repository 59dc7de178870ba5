"""Parsed views of the header fields that a B2BUA must understand (RFC 3261 section 20)."""

from __future__ import annotations

from typing import Final

from proxy.sip.errors import SipError
from proxy.sip.uri import Params, Uri, parse_params, parse_uri, render_params, split_host_port

__all__ = [
    "CSeq",
    "NameAddr",
    "Via",
    "is_token",
    "parse_cseq",
    "parse_name_addr",
    "parse_via",
    "quote_display",
    "split_first",
    "split_values",
]

_MAX_CSEQ: Final = 2**31
_TOKEN_EXTRA: Final = str.maketrans("", "", "-.!%*_+`'~")


def is_token(text: str) -> bool:
    """Whether a text is a token of RFC 3261 section 25.1."""
    if not text.isascii():
        return False
    # The common names first: letters, digits and hyphens.
    return text.isalnum() or text.replace("-", "").isalnum() or (bool(text) and _is_odd_token(text))


def _is_odd_token(text: str) -> bool:
    rest = text.translate(_TOKEN_EXTRA)
    return not rest or rest.isalnum()


def split_values(value: str) -> list[str]:
    """Split a header field value at its commas, outside quoted strings and angle brackets (RFC 3261 section 7.3.1).

    Raises SipError 400 for an unterminated quoted string. Empty elements are kept, so that the caller can refuse them.
    """
    if "," not in value:
        return [value]
    if '"' not in value and "<" not in value:
        return [part.strip() for part in value.split(",")]
    values: list[str] = []
    start = 0
    comma = _next_comma(value, 0)
    while comma >= 0:
        values.append(value[start:comma].strip())
        start = comma + 1
        comma = _next_comma(value, start)
    values.append(value[start:].strip())
    return values


def split_first(value: str) -> tuple[str, str]:
    """The first value of a list, and the text after its comma ("" without one). Raises SipError as `split_values`."""
    if "," not in value:
        return value, ""
    comma = _next_comma(value, 0)
    return (value, "") if comma < 0 else (value[:comma].strip(), value[comma + 1 :].strip())


def _next_comma(value: str, at: int) -> int:
    """Where the next comma from `at` on stands that is in no quoted string and no angle brackets; -1 without one."""
    comma = quote = bracket = -1
    end = len(value)
    while True:
        # Each of the three only moves forward, so that a long value is read once.
        if comma < at:
            comma = value.find(",", at)
            if comma < 0:
                comma = end
        if quote < at:
            quote = value.find('"', at)
            if quote < 0:
                quote = end
        if bracket < at:
            bracket = value.find("<", at)
            if bracket < 0:
                bracket = end
        if comma < quote and comma < bracket:
            return comma
        if quote == bracket:
            return -1
        if quote < bracket:
            at = _closing_quote(value, quote) + 1
        else:
            at = value.find(">", bracket) + 1
            if not at:
                return -1


class CSeq:
    """A CSeq: `number` below 2**31 and `method` (RFC 3261 section 8.1.1.5)."""

    __slots__ = ("method", "number")

    def __init__(self, number: int, method: str) -> None:
        self.number = number
        self.method = method

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


def parse_cseq(value: str) -> CSeq:
    """Parse `number method`. Raises SipError 400."""
    space = value.find(" ")
    number, method = value[: max(space, 0)], value[space + 1 :]
    if method != "INVITE" and method != "BYE" and method != "ACK" and not method.isalpha():
        parts = value.split()
        if len(parts) != 2 or not is_token(parts[1]):
            raise SipError(400, "Malformed CSeq")
        number, method = parts
    if not number.isdigit() or not number.isascii():
        raise SipError(400, "Malformed CSeq")
    # Leading zeros are legal; the bound on the length keeps a huge number away from int().
    if len(number) > 10:
        number = number.lstrip("0") or "0"
    if len(number) > 10:
        raise SipError(400, "CSeq number too large")
    count = int(number)
    if count >= _MAX_CSEQ:
        raise SipError(400, "CSeq number too large")
    return CSeq(count, method)


class Via:
    """One Via value: `transport` in upper case, `host` (IPv6 with brackets), `port`, `params`; `branch` or ""."""

    __slots__ = ("_sent_by", "branch", "host", "params", "port", "transport")

    def __init__(self, transport: str, host: str, port: int | None, params: Params) -> None:
        self.transport = transport
        self.host = host
        self.port = port
        self.params = params
        self._sent_by: str | None = None
        self.branch = ""
        for key, value in params:
            if key == "branch" or key.lower() == "branch":
                self.branch = value or ""
                break

    def param(self, name: str) -> str | None:
        """The first value of a parameter ("" when it stands without a value), or None when it is absent.

        `name` is in lower case.
        """
        for key, value in self.params:
            if key == name or key.lower() == name:
                return value if value is not None else ""
        return None

    @property
    def sent_by(self) -> str:
        """`host[:port]` in lower case, as transaction matching compares it (RFC 3261 section 17.2.3)."""
        sent_by = self._sent_by
        if sent_by is None:
            sent_by = self.host.lower() if self.port is None else f"{self.host.lower()}:{self.port}"
            self._sent_by = sent_by
        return sent_by

    def with_params(self, params: Params) -> Via:
        """The same Via with other parameters."""
        return Via(self.transport, self.host, self.port, params)

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {self.host}{port}{render_params(self.params)}"


def parse_via(value: str) -> Via:
    """Parse one Via value (not a list). Raises SipError 400, or 505 for another protocol version."""
    if value.startswith("SIP/2.0/UDP "):
        transport, rest = "UDP", value[12:]
    elif value.startswith("SIP/2.0/"):
        transport, _, rest = value[8:].partition(" ")
    else:
        # "SIP / 2.0 / UDP": white space may stand around the slashes (RFC 3261 section 25.1, SLASH).
        protocol, _, tail = value.partition("/")
        version, _, rest = tail.partition("/")
        if protocol.strip().upper() != "SIP" or not rest:
            raise SipError(400, "Malformed Via")
        if version.strip() != "2.0":
            raise SipError(505, "Version Not Supported")
        transport = ""
    if not transport.isalnum():
        parts = f"{transport} {rest}".split(None, 1)
        if len(parts) != 2 or not is_token(parts[0]):
            raise SipError(400, "Malformed Via")
        transport, rest = parts
    semicolon = rest.find(";")
    sent_by, params = (rest, "") if semicolon < 0 else (rest[:semicolon], rest[semicolon + 1 :])
    host, port = split_host_port(sent_by.strip())
    return Via(transport if transport == "UDP" else transport.upper(), host, port, parse_params(params))


class NameAddr:
    """A name-addr or addr-spec with header parameters: From, To, Contact, Route, Refer-To …

    `display` is the text before the angle bracket as written (quotes included), `uri_text` the URI as written. As text
    the URI always stands in angle brackets, and a display name that needs quotes gets them.
    """

    __slots__ = ("_params", "_tag", "_uri", "display", "uri_text")

    def __init__(self, display: str, uri_text: str, params: Params | None = (), tag: str = "") -> None:
        """`params` may be None where a `tag` is all that there is."""
        self.display = display
        self.uri_text = uri_text
        self._params = params
        self._tag = tag
        self._uri: Uri | None = None

    @property
    def params(self) -> Params:
        """The header parameters."""
        params = self._params
        if params is None:
            params = self._params = (("tag", self._tag),)
        return params

    @property
    def uri(self) -> Uri:
        """The parsed URI. Raises SipError 400 when it can't be understood."""
        uri = self._uri
        if uri is None:
            uri = self._uri = parse_uri(self.uri_text)
        return uri

    def share_uri(self, uri: Uri) -> None:
        """Take over a URI that was parsed already, if this one has the same text: To mostly holds the Request-URI."""
        if uri.text == self.uri_text:
            self._uri = uri

    def param(self, name: str) -> str | None:
        """The first value of a header parameter ("" when it stands without a value), or None when it is absent.

        `name` is in lower case.
        """
        for key, value in self.params:
            if key == name or key.lower() == name:
                return value if value is not None else ""
        return None

    @property
    def tag(self) -> str | None:
        """The tag parameter."""
        return self._tag if self._params is None else self.param("tag")

    def replace(
        self, *, display: str | None = None, uri_text: str | None = None, params: Params | None = None
    ) -> NameAddr:
        """A copy with some parts changed."""
        return NameAddr(
            self.display if display is None else display,
            self.uri_text if uri_text is None else uri_text,
            self._params if params is None else params,
            self._tag,
        )

    def __str__(self) -> str:
        display = f"{quote_display(self.display)} " if self.display else ""
        return f"{display}<{self.uri_text}>{render_params(self.params)}"


def parse_name_addr(value: str) -> NameAddr:
    """Parse one value (not a list). Raises SipError 400.

    A display name with characters that should have been quoted is taken as it is, except for a comma: nobody can tell
    it from the end of a value (RFC 4475 section 3.1.2.15).
    """
    display = ""
    if value.startswith("<"):
        tail = value[1:]
    else:
        display, bracket, tail = _split_display(value)
        if not bracket:
            uri_text, _, params = value.partition(";")
            uri_text = uri_text.strip()
            # A URI with one of these must stand in angle brackets (RFC 3261 section 20).
            if not uri_text or "?" in uri_text or "," in uri_text or ">" in value:
                raise SipError(400, "Malformed address")
            return NameAddr("", uri_text, parse_params(params))
    end = tail.find(">")
    uri_text = tail[:end].strip() if end > 0 else ""
    if not uri_text:
        raise SipError(400, "Malformed address")
    params = tail[end + 1 :]
    if not params:
        return NameAddr(display, uri_text)
    if params.startswith(";tag="):
        # A tag and no more: From and To hardly ever have anything else.
        tag = params[5:]
        if ";" not in tag and '"' not in tag:
            return NameAddr(display, uri_text, None, tag.strip())
    blank, _, params = params.partition(";")
    if blank and not blank.isspace():
        raise SipError(400, "Text after the address")
    return NameAddr(display, uri_text, parse_params(params))


def _split_display(value: str) -> tuple[str, str, str]:
    """The display name, "<" where there is one, and what follows it. Raises SipError 400."""
    if value.startswith('"'):
        end = _closing_quote(value, 0) + 1
        blank, bracket, tail = value[end:].partition("<")
        if not bracket or blank.strip():
            raise SipError(400, "Malformed display name")
        return value[:end], bracket, tail
    display, bracket, tail = value.partition("<")
    if bracket and ('"' in display or "," in display):
        raise SipError(400, "Malformed display name")
    return display.strip(), bracket, tail


def _closing_quote(value: str, start: int) -> int:
    """Where the quoted string that starts at `start` ends. Raises SipError 400."""
    at = value.find('"', start + 1)
    if at > 0 and "\\" in value[start:at]:
        at = start + 1
        while at < len(value) and value[at] != '"':
            at += 2 if value[at] == "\\" else 1
        if at >= len(value):
            at = -1
    if at < 0:
        raise SipError(400, "Unterminated quoted string")
    return at


def quote_display(text: str) -> str:
    """A display name as it may stand before `<`: a quoted string or tokens stay, anything else is put in quotes."""
    if text.startswith('"') and len(text) > 1:
        try:
            if _closing_quote(text, 0) == len(text) - 1:
                return text
        except SipError:
            pass
    elif all(is_token(word) for word in text.split(" ") if word):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
