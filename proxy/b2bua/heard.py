"""Who hears what becomes of a request of ours that nothing else depends on."""

from __future__ import annotations

from collections.abc import Callable

from proxy.b2bua.core import Core
from proxy.b2bua.credentials import DigestClient
from proxy.sip.message import Response
from proxy.transaction.client import ClientTransaction

__all__ = ["ByeUser", "Challenged"]


class ByeUser:
    """Hears what becomes of a BYE or CANCEL of ours: it is recorded, nothing else depends on it."""

    __slots__ = ("attempt", "call_id", "core", "side")

    def __init__(self, core: Core, call_id: str, side: str, attempt: int = 0) -> None:
        self.core = core
        self.call_id = call_id
        self.side = side
        self.attempt = attempt

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """Record the answer."""
        self.core.record_message(now, self.call_id, self.side, "in", tx.flow, response, self.attempt)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Record that none came."""
        self.core.record("no-answer", now, self.call_id, {"method": tx.method}, self.side, self.attempt)

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """Record that it could not be sent."""
        self.core.record("transport-failure", now, self.call_id, {"method": tx.method}, self.side, self.attempt)


class Challenged(ByeUser):
    """The same for a request that goes out again with credentials when it is challenged, and for a BYE also when its
    connection breaks: nobody knows whether it arrived, and no session may live on.

    Args:
        again: sends it again, as a new request.
        tries: how often a broken connection may have it sent, this time included.
    """

    __slots__ = ("_again", "_digest", "_tries")

    def __init__(
        self,
        core: Core,
        call_id: str,
        side: str,
        attempt: int,
        digest: DigestClient | None,
        again: Callable[[float], None],
        tries: int = 1,
    ) -> None:
        super().__init__(core, call_id, side, attempt)
        self._digest = digest
        self._again = again
        self._tries = tries

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """Record the answer, and take a challenge."""
        super().on_response(tx, response, now)
        if response.status >= 200 and self._digest is not None and self._digest.take(response):
            self._again(now)

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """Record that it could not be sent, and send it by another connection."""
        super().on_transport_failure(tx, now)
        if self._tries > 1:
            self._again(now)
