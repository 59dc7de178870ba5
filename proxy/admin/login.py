"""Login by token: a cookie for browsers, a bearer token for programs."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qs

__all__ = ["COOKIE", "Login"]

COOKIE: Final = "trunkline_session"
_SESSION_S: Final = 12 * 3600
_MAX_TRIES: Final = 10
_TRIES_S: Final = 60.0


class Login:
    """Who may read.

    A session is its end and a signature under the token, so that nothing has to be kept, and a new token ends all.

    Args:
        token: the secret.
        clock: Unix seconds.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.time) -> None:
        self._token = token.encode()
        self._key = sha256(b"trunkline session\0" + self._token).digest()
        self._clock = clock
        self._failures: list[float] = []

    def allows(self, cookie: str | None, authorization: str | None) -> bool:
        """Whether a request with this session cookie or Authorization header may read."""
        if authorization is not None:
            scheme, _, given = authorization.partition(" ")
            return scheme.lower() == "bearer" and not self.locked() and self._is_token(given.strip())
        end, _, signature = (cookie or "").partition(".")
        if not end.isascii() or not end.isdigit() or len(end) > 12 or int(end) < self._clock():
            return False
        return hmac.compare_digest(signature.encode(), self._sign(end).encode())

    def locked(self) -> bool:
        """Whether there were so many wrong tokens within the last minute that none is looked at any more."""
        limit = self._clock() - _TRIES_S
        self._failures = [at for at in self._failures if at > limit]
        return len(self._failures) >= _MAX_TRIES

    def session(self, form: bytes) -> str | None:
        """A new session for a form that holds the token; None when it does not."""
        given = parse_qs(form.decode("utf-8", "replace")).get("token", [""])[0]
        if not self._is_token(given.strip()):
            return None
        end = str(int(self._clock()) + _SESSION_S)
        return f"{end}.{self._sign(end)}"

    def _is_token(self, given: str) -> bool:
        if hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            return True
        self._failures.append(self._clock())
        return False

    def _sign(self, end: str) -> str:
        return hmac.new(self._key, end.encode(), sha256).hexdigest()
