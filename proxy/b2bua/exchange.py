"""One offer/answer exchange across both legs (RFC 3264): the offer in the terms of both, then the answer put back."""

from __future__ import annotations

from proxy.rewrite.draft import Draft
from proxy.sdp.session import Session

__all__ = ["Exchange"]


class Exchange:
    """Holds an offer as its maker wrote it and as we sent it on, until the answer has crossed.

    Attributes:
        offered: whether an offer has crossed.
        answered: whether its answer has.
    """

    __slots__ = ("_original", "_original_body", "_sent", "answered", "offered")

    def __init__(self) -> None:
        self.offered = False
        self.answered = False
        self._original_body = b""
        self._original: Session | None = None
        self._sent: Session | None = None

    def cross(self, draft: Draft, original_body: bytes) -> None:
        """Take a draft across whose rules have run; `original_body` is its body before them.

        The first session description is the offer, the next one its answer, which is put into the terms of the offer's
        maker. Bodies that are no SDP cross as they are. Raises SdpError for an answer that is none.
        """
        session = draft.session
        if session is None:
            return
        if not self.offered:
            self.offered = True
            self._original_body = original_body
            self._original = draft.untouched_session(original_body)
            self._sent = session
        elif self._sent is not None:
            self.answered = True
            draft.step = "builtin:answer"
            # There may be a second answer, but hardly ever: only the bytes, which the message has too, are kept for it.
            original, self._original = self._original, None
            draft.map_answer(self._sent, original or Session.parse(self._original_body))

    def settle(self) -> None:
        """Let go of the descriptions once the answer has crossed, and no other one can come."""
        if self.answered:
            self._original_body = b""
            self._original = self._sent = None
