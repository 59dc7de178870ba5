"""Digest authentication on both sides of a call: as UAC towards a target, as UAS for sources without an address of
their own in the allow-list (RFC 3261 section 22)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Final

from proxy.sip.auth import Challenge, best_challenge, challenge_values, parse_credentials
from proxy.sip.errors import SipError
from proxy.sip.message import Header, Request, Response

__all__ = ["DigestClient", "DigestServer"]

_MAX_CHALLENGES: Final = 3
_MAX_REALMS: Final = 8
_NONCE_LIFE_S: Final = 300.0
_MAX_NONCES: Final = 10_000


class _Answer:
    """What answers one challenge, and how often it did."""

    __slots__ = ("challenge", "count")

    def __init__(self, challenge: Challenge) -> None:
        self.challenge = challenge
        self.count = 0


class DigestClient:
    """Answers the challenges that one target, and the proxies before it, put to us in one call.

    It never loops: credentials that were just refused are not offered again unless their nonce was stale, and no
    request is challenged more than three times.
    """

    __slots__ = ("_answers", "_invite_lines", "_left", "_new_id", "_password", "_username")

    def __init__(self, username: str, password: str, new_id: Callable[[], str]) -> None:
        self._username = username
        self._password = password
        self._new_id = new_id
        self._answers: dict[tuple[bool, str], _Answer] = {}
        self._invite_lines: tuple[Header, ...] = ()
        self._left = _MAX_CHALLENGES

    def take(self, response: Response) -> bool:
        """Take a final response; whether its request is worth sending again, now that there are credentials for it."""
        if response.status not in (401, 407):
            self._left = _MAX_CHALLENGES
            return False
        challenge = best_challenge(response)
        if challenge is None or not self._username or not self._left:
            return False
        key = (challenge.proxy, challenge.realm)
        known = self._answers.get(key)
        if known is not None and not challenge.stale:
            just_refused = known.count <= 1 or known.challenge.nonce == challenge.nonce
            if just_refused:
                return False
        self._left -= 1
        if known is None and len(self._answers) >= _MAX_REALMS:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = _Answer(challenge)
        return True

    def lines(self, method: str, uri: str) -> tuple[Header, ...]:
        """The credentials for a request: one header field for each realm that asked for some.

        An ACK gets those of the INVITE before it (RFC 3261 section 22.1).
        """
        if method == "ACK":
            return self._invite_lines
        found: list[Header] = []
        for answer in self._answers.values():
            answer.count += 1
            found.append(
                answer.challenge.answer(self._username, self._password, method, uri, self._new_id(), answer.count)
            )
        if method == "INVITE":
            self._invite_lines = tuple(found)
        return tuple(found)


class DigestServer:
    """Asks sources for a user name and password.

    Nonces carry their own time and proof, so that nothing is kept for a challenge; what is kept is how often a nonce
    was used, against replays.

    Args:
        users: password by user name.
        realm: our realm.
        secret: random text that nobody else knows.
        algorithms: those that we offer and take, the preferred one first.
    """

    __slots__ = ("_algorithms", "_counts", "_realm", "_secret", "_users")

    def __init__(self, users: Mapping[str, str], realm: str, secret: str, algorithms: tuple[str, ...]) -> None:
        self._algorithms = algorithms
        self._users = users
        self._realm = realm
        self._secret = secret.encode()
        self._counts: dict[str, int] = {}

    def check(self, request: Request, now: float) -> str:
        """The user that a request proves to come from.

        Raises SipError 401 with challenges when it proves none, 403 for a wrong password, 400 for broken credentials.
        """
        credentials = parse_credentials(request, self._realm)
        if credentials is None or credentials.algorithm not in self._algorithms:
            raise self._challenge(now)
        made = self._made_at(credentials.nonce)
        if made is None or not 0 <= now - made <= _NONCE_LIFE_S:
            raise self._challenge(now, stale=made is not None)
        password = self._users.get(credentials.username)
        if password is None or credentials.uri != request.uri or not credentials.proves(password, request.method):
            raise SipError(403, "Wrong user name or password")
        if credentials.count <= self._counts.get(credentials.nonce, 0):
            raise self._challenge(now, stale=True)
        if len(self._counts) >= _MAX_NONCES:
            del self._counts[next(iter(self._counts))]
        self._counts[credentials.nonce] = credentials.count
        return credentials.username

    def _challenge(self, now: float, *, stale: bool = False) -> SipError:
        made = f"{now:.3f}"
        nonce = f"{made}-{self._proof(made)}"
        challenges = challenge_values(self._realm, nonce, stale=stale, algorithms=self._algorithms)
        return SipError(401, "Unauthorized", tuple(challenges))

    def _proof(self, made: str) -> str:
        return hmac.new(self._secret, made.encode(), hashlib.sha256).hexdigest()[:32]

    def _made_at(self, nonce: str) -> float | None:
        """When a nonce of ours was made; None for one that is not ours."""
        made, _, proof = nonce.partition("-")
        if not made.replace(".", "", 1).isdigit() or not made.isascii():
            return None
        return float(made) if hmac.compare_digest(proof, self._proof(made)) else None
