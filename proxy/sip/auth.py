"""Digest authentication (RFC 3261 section 22, RFC 7616 and RFC 8760): challenges, credentials, and their check."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Final

from proxy.sip.errors import SipError
from proxy.sip.headers import split_values
from proxy.sip.message import Header, Message, header

__all__ = [
    "Challenge",
    "Credentials",
    "best_challenge",
    "challenge_values",
    "ha1",
    "parse_credentials",
    "response_digest",
]

_HASHES: Final[dict[str, Callable[[bytes], hashlib._Hash]]] = {
    "MD5": hashlib.md5,
    "SHA-256": hashlib.sha256,
}
_STRENGTH: Final = ("SHA-256", "MD5")
_HEX: Final = frozenset("0123456789abcdefABCDEF")


def _hash(algorithm: str, text: str) -> str:
    return _HASHES[algorithm](text.encode("utf-8", "surrogateescape")).hexdigest()


def ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """H(A1) in lower-case hex: what a user's password comes down to in one realm."""
    return _hash(algorithm, f"{username}:{realm}:{password}")


def response_digest(
    algorithm: str, secret: str, nonce: str, method: str, uri: str, nc: str = "", cnonce: str = "", qop: str = ""
) -> str:
    """The `response` value (RFC 7616 section 3.4.1); `secret` is H(A1). Without `qop` the form of RFC 2069."""
    ha2 = _hash(algorithm, f"{method}:{uri}")
    middle = f"{nc}:{cnonce}:{qop}:" if qop else ""
    return _hash(algorithm, f"{secret}:{nonce}:{middle}{ha2}")


def _fields(value: str) -> dict[str, str]:
    """The parameters of `Digest a="b", c=d`; {} for another scheme. Raises SipError 400."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "digest":
        return {}
    found: dict[str, str] = {}
    for part in split_values(rest):
        name, equals, text = part.partition("=")
        if not equals:
            continue
        text = text.strip()
        if text.startswith('"') and (len(text) == 1 or text[-1] != '"'):
            raise SipError(400, "Unterminated quoted string")
        if text.startswith('"'):
            text = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        found[name.strip().lower()] = text
    return found


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Challenge:
    """One challenge of a 401 or 407 that we can answer.

    Attributes:
        proxy: whether it came in Proxy-Authenticate.
        algorithm: "MD5" or "SHA-256".
        qop: "auth", or "" when the challenge names none.
        stale: whether only the nonce was too old.
    """

    __slots__ = ("algorithm", "nonce", "opaque", "proxy", "qop", "realm", "stale")

    def __init__(
        self, proxy: bool, realm: str, nonce: str, algorithm: str, qop: str, opaque: str | None, stale: bool
    ) -> None:
        self.proxy = proxy
        self.realm = realm
        self.nonce = nonce
        self.algorithm = algorithm
        self.qop = qop
        self.opaque = opaque
        self.stale = stale

    def answer(self, username: str, password: str, method: str, uri: str, cnonce: str, count: int) -> Header:
        """The Authorization or Proxy-Authorization header field for the `count`th request with this nonce.

        Raises ValueError when a value would break the header.
        """
        nc = f"{count:08x}"
        secret = ha1(self.algorithm, username, self.realm, password)
        digest = response_digest(self.algorithm, secret, self.nonce, method, uri, nc, cnonce, self.qop)
        parts = [
            f"Digest username={_quoted(username)}",
            f"realm={_quoted(self.realm)}",
            f"nonce={_quoted(self.nonce)}",
            f"uri={_quoted(uri)}",
            f'response="{digest}"',
            f"algorithm={self.algorithm}",
        ]
        if self.qop:
            parts += [f"qop={self.qop}", f"nc={nc}", f'cnonce="{cnonce}"']
        if self.opaque is not None:
            parts.append(f"opaque={_quoted(self.opaque)}")
        return header("Proxy-Authorization" if self.proxy else "Authorization", ", ".join(parts))


def best_challenge(response: Message) -> Challenge | None:
    """The strongest challenge of a 401 or 407 that we can answer, or None: SHA-256 before MD5 (RFC 8760 section 2.4).

    A challenge that offers only `auth-int`, or another algorithm, is passed over.
    """
    found: list[Challenge] = []
    for key, proxy in (("www-authenticate", False), ("proxy-authenticate", True)):
        for value in response.get_all(key):
            try:
                fields = _fields(value)
            except SipError:
                continue
            algorithm = fields.get("algorithm", "MD5").upper()
            offered = [part.strip().lower() for part in fields.get("qop", "").split(",") if part.strip()]
            if "nonce" not in fields or algorithm not in _HASHES or (offered and "auth" not in offered):
                continue
            found.append(
                Challenge(
                    proxy,
                    fields.get("realm", ""),
                    fields["nonce"],
                    algorithm,
                    "auth" if offered else "",
                    fields.get("opaque"),
                    fields.get("stale", "").lower() == "true",
                )
            )
    return min(found, key=lambda challenge: _STRENGTH.index(challenge.algorithm), default=None)


def challenge_values(
    realm: str, nonce: str, *, stale: bool = False, algorithms: Sequence[str] = _STRENGTH
) -> list[tuple[str, str]]:
    """The WWW-Authenticate header fields of a 401 of ours, one for each algorithm, the preferred one first
    (RFC 8760 section 2.3)."""
    tail = ", stale=true" if stale else ""
    return [
        (
            "WWW-Authenticate",
            f'Digest realm={_quoted(realm)}, nonce="{nonce}", algorithm={algorithm}, qop="auth"{tail}',
        )
        for algorithm in algorithms
    ]


class Credentials:
    """What a request's Authorization header says."""

    __slots__ = ("algorithm", "cnonce", "nc", "nonce", "qop", "realm", "response", "uri", "username")

    def __init__(self, fields: dict[str, str]) -> None:
        self.username = fields.get("username", "")
        self.realm = fields.get("realm", "")
        self.nonce = fields.get("nonce", "")
        self.uri = fields.get("uri", "")
        self.response = fields.get("response", "").lower()
        self.algorithm = fields.get("algorithm", "MD5").upper()
        self.qop = fields.get("qop", "").lower()
        self.nc = fields.get("nc", "")
        self.cnonce = fields.get("cnonce", "")

    @property
    def count(self) -> int:
        """The nonce count; 0 when it is malformed."""
        return int(self.nc, 16) if len(self.nc) == 8 and _HEX.issuperset(self.nc) else 0

    def proves(self, password: str, method: str) -> bool:
        """Whether they were made with this password for a request of this method. Only `qop=auth` counts."""
        if self.algorithm not in _HASHES or self.qop != "auth" or not self.cnonce:
            return False
        secret = ha1(self.algorithm, self.username, self.realm, password)
        wanted = response_digest(self.algorithm, secret, self.nonce, method, self.uri, self.nc, self.cnonce, self.qop)
        return hmac.compare_digest(wanted, self.response)


def parse_credentials(message: Message, realm: str) -> Credentials | None:
    """The Digest credentials of a request for one realm, or None. Raises SipError 400 for malformed ones."""
    for value in message.get_all("authorization"):
        fields = _fields(value)
        if fields and fields.get("realm") == realm:
            return Credentials(fields)
    return None
