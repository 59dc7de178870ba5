"""What the webhook tap tells the stack: which call's webhook came, and what the application answered."""

from __future__ import annotations

from proxy.b2bua.core import Core

__all__ = ["Webhooks"]


class Webhooks:
    """Puts webhooks on the record of their call and attempt, which our headers in the INVITE name."""

    __slots__ = ("_core",)

    def __init__(self, core: Core) -> None:
        self._core = core

    def arrived(self, call_id: str, attempt: int, fields: dict[str, object], now: float) -> None:
        """A webhook with a good signature came. An unknown call is one that has ended, or is not ours."""
        core = self._core
        core.webhooks_seen += 1
        call = core.calls.get(call_id)
        core.record("webhook", now, "" if call is None else call_id, self._named(call_id, fields), "b", attempt)
        if call is not None and call.attempt is not None and attempt in (0, call.attempt.number):
            call.attempt.webhook_seen()

    def answered(self, call_id: str, attempt: int, fields: dict[str, object], now: float) -> None:
        """The application answered it, or did not."""
        known = call_id if call_id in self._core.calls else ""
        self._core.record("webhook-answered", now, known, self._named(call_id, fields), "b", attempt)

    def refused(self, call_id: str, attempt: int, fields: dict[str, object], now: float) -> None:
        """One without a good signature came; nothing in it is believed."""
        self._core.record("webhook-refused", now, "", dict(fields))

    def _named(self, call_id: str, fields: dict[str, object]) -> dict[str, object]:
        return dict(fields) if call_id in self._core.calls else {**fields, "for_call": call_id[:64]}
