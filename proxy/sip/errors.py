"""The one protocol error of the SIP core."""

from __future__ import annotations

__all__ = ["SipError"]


class SipError(Exception):
    """A message that can't be processed as it stands.

    Attributes:
        status: the SIP status code that answers it, where an answer is possible.
        reason: the reason phrase; one line that names the fault.
        headers: extra header fields that the answer must carry, as (name, value).
    """

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers
