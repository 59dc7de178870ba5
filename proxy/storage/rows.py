"""Rows of the store in the making: what is known of a call and of its attempts so far."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

from proxy.storage.schema import ATTEMPT_COLUMNS, CALL_COLUMNS

__all__ = ["AttemptRecord", "Batch", "CallRecord", "attempt_values", "call_values"]


class AttemptRecord:
    """An attempt (`hop` 0), or an address that failed within it. The attributes are the columns of `attempts`."""

    def __init__(self, call: int, number: int) -> None:
        self.call = call
        self.number = number
        self.hop = 0
        self.started_s: float | None = None
        self.target: str | None = None
        self.address: str | None = None
        self.uri: str | None = None
        self.rules: str | None = None
        self.rules_version: str | None = None
        self.call_id: str | None = None
        self.status: int | None = None
        self.reason: str | None = None
        self.outcome: str | None = None
        self.detail: str | None = None
        self.next: str | None = None
        self.cause: str | None = None
        self.evidence: str | None = None
        self.invite_s: float | None = None
        self.trying_s: float | None = None
        self.ringing_s: float | None = None
        self.final_s: float | None = None
        self.webhook_s: float | None = None
        self.accepted_s: float | None = None
        self.duration_s: float | None = None
        self.invite_bytes: int | None = None
        self.shape: int | None = None
        self.answer_shape: int | None = None
        self.tls: str | None = None
        self.connection_age_s: float | None = None

    def failed_hop(self, hop: int) -> AttemptRecord:
        """The row of an address that failed; the attempt goes on with another one."""
        failed = AttemptRecord(self.call, self.number)
        for name, _ in ATTEMPT_COLUMNS:
            setattr(failed, name, getattr(self, name))
        failed.hop = hop
        failed.outcome = "hop"
        self.invite_s = self.trying_s = self.final_s = self.answer_shape = None
        return failed


class CallRecord:
    """A call. The attributes are the columns of `calls`."""

    def __init__(self, key: int, name: str) -> None:
        self.key = key
        self.id = name
        self.call_id: str | None = None
        self.call_sid: str | None = None
        self.from_uri: str | None = None
        self.to_uri: str | None = None
        self.uri: str | None = None
        self.user_agent: str | None = None
        self.source: str | None = None
        self.trunk: str | None = None
        self.tls: str | None = None
        self.connection_age_s: float | None = None
        self.state = "trying"
        self.outcome: str | None = None
        self.status: int | None = None
        self.reason: str | None = None
        self.ended_by: str | None = None
        self.detail: str | None = None
        self.cause: str | None = None
        self.attempts = 0
        self.target: str | None = None
        self.rules: str | None = None
        self.rules_version: str | None = None
        self.tags: str | None = None
        self.rule_hits: int | None = None
        self.shape: int | None = None
        self.invite_bytes: int | None = None
        self.trying_s: float | None = None
        self.ringing_s: float | None = None
        self.setup_s: float | None = None
        self.added_s: float | None = None
        self.talk_s: float | None = None
        self.duration_s: float | None = None
        self.incomplete = 0


class Batch:
    """What is to be written in one transaction.

    Attributes:
        calls, attempts: rows, in the order of the columns.
        chunks: (call, packed events). names: (span, name, call). sets: texts by id. notes: (key, kind, fields).
        lost: ends of calls whose process died: outcome, status, reason, ended_by, detail, setup_s, talk_s, duration_s,
            cause, id.
        counts: how often, by (minute, kind, name, value).
        size: bytes, roughly.
        events: how many events it stands for. dropped: how many more were dropped before it.
        moment: of the last event, Unix time.
    """

    __slots__ = (
        "attempts",
        "calls",
        "chunks",
        "counts",
        "dropped",
        "events",
        "lost",
        "moment",
        "names",
        "notes",
        "sets",
        "size",
    )

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.attempts: list[tuple[Any, ...]] = []
        self.chunks: list[tuple[int, bytes]] = []
        self.names: list[tuple[int, int, int]] = []
        self.sets: dict[int, str] = {}
        self.notes: list[tuple[int, str, str]] = []
        self.lost: list[tuple[Any, ...]] = []
        self.counts: dict[tuple[int, str, str, str], int] = {}
        self.size = 0
        self.events = 0
        self.dropped = 0
        self.moment = 0.0


call_values: Final = attrgetter(*[name for name, _ in CALL_COLUMNS])
"""The values of a call's row, in the order of the columns."""

attempt_values: Final = attrgetter(*[name for name, _ in ATTEMPT_COLUMNS])
"""The values of an attempt's row, in the order of the columns."""
