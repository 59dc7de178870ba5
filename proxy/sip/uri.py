"""SIP, SIPS and tel URIs (RFC 3261 section 19.1, RFC 3966), lossless in text and order."""

from __future__ import annotations

from typing import Final

from proxy.sip.errors import SipError

__all__ = [
    "Params",
    "Uri",
    "parse_params",
    "parse_uri",
    "render_params",
    "split_host_port",
    "unescape",
]

Params = tuple[tuple[str, str | None], ...]

_MAX_PARAMS: Final = 256
_HEX_DIGITS: Final = frozenset("0123456789abcdefABCDEF")
_IN_IPV6: Final = frozenset("0123456789abcdefABCDEF:.")
_IN_SCHEME: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.")


def parse_params(text: str) -> Params:
    """Split `name=value;name;…` (without the first semicolon) into pairs, in order and with duplicates.

    Quoted values keep their quotes. A parameter without `=` has the value None. One semicolon too many at the very end
    is forgiven, since devices send it. Raises SipError 400 for any other empty name, an unterminated quote, or more
    parameters than anybody means.
    """
    if not text:
        return ()
    if '"' in text:
        parts = _split_quoted(text)
    elif ";" in text:
        parts = text.split(";")
    else:
        # One parameter: a tag, a branch, a transport. Most lists are no longer.
        pair = _param(text)
        if pair[0]:
            return (pair,)
        parts = [text]
    if len(parts) > _MAX_PARAMS:
        raise SipError(400, "Too many parameters")
    params: list[tuple[str, str | None]] = []
    for part in parts:
        pair = _param(part)
        if pair[0]:
            params.append(pair)
        elif pair[1] is not None or len(params) != len(parts) - 1:
            raise SipError(400, "Empty parameter name")
    return tuple(params)


def _param(text: str) -> tuple[str, str | None]:
    """One parameter; the name may be empty."""
    equals = text.find("=")
    if equals < 0:
        return text.strip(), None
    return text[:equals].strip(), text[equals + 1 :].strip()


def _split_quoted(text: str) -> list[str]:
    """Split at semicolons outside quoted strings. Raises SipError 400 for an unterminated quote."""
    parts: list[str] = []
    start = at = 0
    quoted = False
    while at < len(text):
        ch = text[at]
        if quoted:
            if ch == "\\":
                at += 1
            elif ch == '"':
                quoted = False
        elif ch == '"':
            quoted = True
        elif ch == ";":
            parts.append(text[start:at])
            start = at + 1
        at += 1
    if quoted:
        raise SipError(400, "Unterminated quoted string")
    parts.append(text[start:])
    return parts


def render_params(params: Params) -> str:
    """Write parameters back, each with its leading semicolon."""
    return "".join([f";{name}" if value is None else f";{name}={value}" for name, value in params])


def split_host_port(text: str) -> tuple[str, int | None]:
    """Split `host[:port]`; an IPv6 literal keeps its brackets.

    Raises SipError 400 for an empty host, a host with characters that no host has, or a port outside 0-65535. The
    three colons before an IPv4 part that the grammar of RFC 3261 allows are taken (RFC 5118 section 4.10).
    """
    plain = _plain_host_port(text)
    if plain[0]:
        return plain
    if text.startswith("["):
        end = text.find("]")
        host, rest = text[: end + 1], text[end + 1 :].strip()
        if end < 0 or (rest and not rest.startswith(":")):
            raise SipError(400, "Malformed IPv6 reference")
        colon, port = rest[:1], rest[1:]
        address = host[1:-1]
        if address.count(":") < 2 or not _IN_IPV6.issuperset(address):
            raise SipError(400, "Malformed IPv6 reference")
    else:
        host, colon, port = text.partition(":")
        host = host.strip()
        if not host.isascii() or not _is_host(host):
            raise SipError(400, "Malformed host")
    if not colon:
        return host, None
    port = port.strip()
    if len(port) < 6 and port.isdigit() and port.isascii():
        number = int(port)
        if number <= 65535:
            return host, number
    raise SipError(400, "Malformed port")


def _plain_host_port(text: str) -> tuple[str, int | None]:
    """The ordinary form of `host[:port]`: letters, digits, dots and hyphens, and a number. The host is empty for every
    other form, which may be right all the same."""
    colon = text.find(":")
    host = text if colon < 0 else text[:colon]
    letters = host.replace(".", "")
    if not (letters.isalnum() or letters.replace("-", "").isalnum()) or not host.isascii():
        return "", None
    if colon < 0:
        return host, None
    port = text[colon + 1 :]
    if port == "5060":
        return host, 5060
    if port == "5061":
        return host, 5061
    if len(port) < 6 and port.isdigit() and port.isascii():
        number = int(port)
        if number <= 65535:
            return host, number
    return "", None


def _is_host(text: str) -> bool:
    """Whether a text is a host name; underscores are taken, since some operators have them in names."""
    return text.replace(".", "").replace("-", "").replace("_", "").isalnum()


def unescape(text: str) -> str:
    """Replace each `%HH` by its byte, once (RFC 3261 section 19.1.2): `%2B1555` gives `+1555`.

    A `%` without two hexadecimal digits stays as it is. The result may hold any character, a NUL or a line break too:
    it is for comparing and for showing, never for building a header field.
    """
    if "%" not in text:
        return text
    first, *parts = text.encode("utf-8", "surrogateescape").split(b"%")
    out = [first]
    for part in parts:
        digits = part[:2].decode("latin-1")
        if len(digits) == 2 and _HEX_DIGITS.issuperset(digits):
            out.append(bytes((int(digits, 16),)) + part[2:])
        else:
            out.append(b"%" + part)
    return b"".join(out).decode("utf-8", "surrogateescape")


class Uri:
    """One URI, immutable by convention: build changed ones with `replace`.

    For `sip` and `sips`: `user`, `password`, `host` (IPv6 with brackets), `port`, `params`, `headers` (what follows
    `?`). For `tel`: `user` is the number, `host` is empty. For any other scheme all of the rest is in `opaque`. Every
    part is as written, escapes included (`unescape` decodes them); the scheme is in lower case.
    """

    __slots__ = ("headers", "host", "opaque", "params", "password", "port", "scheme", "text", "user")

    def __init__(
        self,
        scheme: str,
        user: str | None,
        host: str,
        port: int | None = None,
        params: Params = (),
        password: str | None = None,
        headers: str | None = None,
        opaque: str | None = None,
        text: str | None = None,
    ) -> None:
        self.scheme = scheme
        self.user = user
        self.password = password
        self.host = host
        self.port = port
        self.params = params
        self.headers = headers
        self.opaque = opaque
        self.text = text if text is not None else self._render()

    def _render(self) -> str:
        if self.opaque is not None:
            return f"{self.scheme}:{self.opaque}"
        parts = [self.scheme, ":"]
        if self.user is not None:
            parts.append(self.user)
            if self.password is not None:
                parts.append(f":{self.password}")
            if self.host:
                parts.append("@")
        parts.append(self.host)
        if self.port is not None:
            parts.append(f":{self.port}")
        parts.append(render_params(self.params))
        if self.headers is not None:
            parts.append(f"?{self.headers}")
        return "".join(parts)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Uri({self.text!r})"

    def param(self, name: str) -> str | None:
        """The first value of a URI parameter ("" when it stands without a value), or None when it is absent.

        `name` is in lower case.
        """
        for key, value in self.params:
            if key == name or key.lower() == name:
                return value if value is not None else ""
        return None

    def replace(
        self,
        *,
        scheme: str | None = None,
        user: str | None = None,
        host: str | None = None,
        port: int | None = -1,
        params: Params | None = None,
    ) -> Uri:
        """A copy with some parts changed; `port=None` removes the port, -1 keeps it. `user=""` removes the user."""
        return Uri(
            self.scheme if scheme is None else scheme,
            self.user if user is None else (user or None),
            self.host if host is None else host,
            self.port if port == -1 else port,
            self.params if params is None else params,
            self.password if user is None else None,
            self.headers,
            self.opaque,
        )

    def without_duplicate_params(self) -> Uri:
        """The same URI with each parameter once (the first one stays); itself when nothing is doubled."""
        seen: set[str] = set()
        kept: list[tuple[str, str | None]] = []
        for pair in self.params:
            key = pair[0].lower()
            if key not in seen:
                seen.add(key)
                kept.append(pair)
        return self if len(kept) == len(self.params) else self.replace(params=tuple(kept))


def parse_uri(text: str) -> Uri:
    """Parse a URI as it stands in a request line or between angle brackets.

    Raises SipError 400 where a SIP URI can't be understood. An unknown scheme is not an error here.
    """
    uri = _plain_uri(text)
    if uri is not None:
        return uri
    scheme, colon, rest = text.partition(":")
    if not colon or " " in text or "<" in text or ">" in text or '"' in text:
        raise SipError(400, "Malformed URI")
    if not text.isprintable() and _has_control(text):
        raise SipError(400, "Malformed URI")
    if scheme != "sip":
        scheme = scheme.lower()
        if scheme == "tel":
            number, _, tail = rest.partition(";")
            if not number:
                raise SipError(400, "Malformed tel URI")
            return Uri(scheme, number, "", None, parse_params(tail), text=text)
        if scheme not in ("sip", "sips"):
            if not scheme or not _IN_SCHEME.issuperset(scheme) or not scheme[0].isalpha():
                raise SipError(400, "Malformed URI")
            return Uri(scheme, None, "", opaque=rest, text=text)
    user: str | None = None
    password: str | None = None
    # A user part may hold ";", "?" and "/", and only there may an "@" follow; so it is cut off first.
    userinfo, at, after = rest.partition("@")
    if at:
        user, colon, secret = userinfo.partition(":")
        if not user:
            raise SipError(400, "Empty user in URI")
        if colon:
            password = secret
        rest = after
    headers: str | None = None
    if "?" in rest:
        rest, _, headers = rest.partition("?")
    hostport, _, tail = rest.partition(";")
    host, port = split_host_port(hostport)
    return Uri(scheme, user, host, port, parse_params(tail) if tail else (), password, headers, None, text)


def _plain_uri(text: str) -> Uri | None:
    """The URI where it has the form that nearly all have, `sip:user@host:port;name=value` with a number or a word for
    user; None for every other one. Each part is made of letters and digits but for the marks that are named here, so
    that nothing that `parse_uri` refuses can be in it."""
    at = text.find("@")
    if at < 5 or not text.startswith("sip:"):
        return None
    user = text[4:at]
    if not user.isalnum() and not (user[0] == "+" and user[1:].isalnum()):
        return None
    semicolon = text.find(";", at)
    host, port = _plain_host_port(text[at + 1 :] if semicolon < 0 else text[at + 1 : semicolon])
    if not host:
        return None
    params: Params = ()
    if semicolon >= 0:
        tail = text[semicolon + 1 :]
        if not tail.replace("=", "").isalnum() or tail[0] == "=":
            return None
        params = (_param(tail),)
    return Uri("sip", user, host, port, params, None, None, None, text)


def _has_control(text: str) -> bool:
    """Whether a text has a control character. (One with raw non-ASCII bytes has not, but is not printable either.)"""
    return any(ch < " " or ch == "\x7f" for ch in text)
