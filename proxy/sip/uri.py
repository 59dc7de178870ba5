"""SIP, SIPS and tel URIs (RFC 3261 section 19.1, RFC 3966), lossless in text and order."""

from __future__ import annotations

from proxy.sip.errors import SipError

__all__ = ["Params", "Uri", "parse_params", "parse_uri", "split_host_port"]

Params = tuple[tuple[str, str | None], ...]

_NOT_IN_URI = frozenset(' <>"\t\r\n\x00')


def parse_params(text: str) -> Params:
    """Split `name=value;name;…` (without the first semicolon) into pairs, in order and with duplicates.

    Quoted values keep their quotes. A parameter without `=` has the value None. Raises SipError 400 for an empty
    name or an unterminated quote.
    """
    if not text:
        return ()
    parts = text.split(";") if '"' not in text else _split_quoted(text)
    params: list[tuple[str, str | None]] = []
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip()
        if not name:
            raise SipError(400, "Empty parameter name")
        params.append((name, value.strip() if equals else None))
    return tuple(params)


def _split_quoted(text: str) -> list[str]:
    """Split at semicolons outside quoted strings."""
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

    Raises SipError 400 for an empty host, a host with characters that no host has, or a port outside 0-65535.
    """
    if text.startswith("["):
        end = text.find("]")
        if end < 0:
            raise SipError(400, "Unterminated IPv6 reference")
        host, rest = text[: end + 1], text[end + 1 :].strip()
        if rest and not rest.startswith(":"):
            raise SipError(400, "Malformed host")
        port_text = rest[1:] if rest else None
        if not host[1:-1].replace(":", "").replace(".", "").isalnum():
            raise SipError(400, "Malformed IPv6 reference")
    else:
        host, colon, rest = text.partition(":")
        port_text = rest if colon else None
        host = host.strip()
        if not host or not host.isascii() or not host.replace(".", "").replace("-", "").replace("_", "").isalnum():
            raise SipError(400, "Malformed host")
    if port_text is None:
        return host, None
    port_text = port_text.strip()
    if not port_text.isdigit() or not port_text.isascii() or len(port_text) > 5 or int(port_text) > 65535:
        raise SipError(400, "Malformed port")
    return host, int(port_text)


class Uri:
    """One URI, immutable by convention: build changed ones with `replace`.

    For `sip` and `sips`: `user`, `password`, `host` (IPv6 with brackets), `port`, `params`, `headers` (the text after `?`).
    For `tel`: `user` is the number, `host` is empty. For any other scheme all of the rest is in `opaque`.
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
        """The first value of a URI parameter ("" when it stands without a value), or None when it is absent."""
        name = name.lower()
        for key, value in self.params:
            if key.lower() == name:
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
    scheme, colon, rest = text.partition(":")
    if not colon or not scheme or not _NOT_IN_URI.isdisjoint(text):
        raise SipError(400, "Malformed URI")
    lowered = scheme.lower()
    if lowered == "tel":
        number, semicolon, tail = rest.partition(";")
        if not number:
            raise SipError(400, "Malformed tel URI")
        return Uri(lowered, number, "", None, parse_params(tail) if semicolon else (), text=text)
    if lowered not in ("sip", "sips"):
        return Uri(lowered, None, "", opaque=rest, text=text)
    user: str | None = None
    password: str | None = None
    at = rest.find("@")
    if at >= 0:
        user, colon, secret = rest[:at].partition(":")
        password = secret if colon else None
        if not user:
            raise SipError(400, "Empty user in URI")
        rest = rest[at + 1 :]
    headers: str | None = None
    if "?" in rest:
        rest, _, headers = rest.partition("?")
    hostport, semicolon, tail = rest.partition(";")
    host, port = split_host_port(hostport)
    return Uri(lowered, user, host, port, parse_params(tail) if semicolon else (), password, headers, text=text)
