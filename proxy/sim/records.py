"""What the simulated OpenAI side saw: one record for each INVITE that began a call, and the sums."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from typing import Any, Final

from proxy.sip.message import Request

__all__ = ["KEY_HEADERS", "CallRecord", "Records", "call_key"]

KEY_HEADERS: Final = ("x-twilio-callsid", "x-trunkline-call-id")
_ATTEMPT_HEADER: Final = "x-trunkline-attempt"


def call_key(request: Request) -> str:
    """What names a caller's call over all attempts: X-Twilio-CallSid, else X-Trunkline-Call-ID, else the Call-ID."""
    for name in KEY_HEADERS:
        value = request.get(name)
        if value:
            return value
    return request.get("call-id") or ""


@dataclass(slots=True)
class CallRecord:
    """One INVITE that began a call.

    Attributes:
        key: see `call_key`.
        attempt: how many INVITEs with this key came before.
        attempt_header: the value of X-Trunkline-Attempt, "" when absent.
        rtc_id: the id that the HTTP API knows the call by.
        invite: the INVITE as it came.
        fault: the fault that was shown, "" for none.
        status, reason: of the final response; 0 while there is none.
        answered: whether a 2xx was sent. `acked`: whether its ACK came.
        cancelled: whether a CANCEL came before the final response.
        ended_by: "caller" or "target" by BYE, "lost" when a BYE could not be delivered, "" while not ended.
        bye_reason: the Reason of the caller's BYE.
        webhook: the HTTP status that the webhook got, 0 for none, or what went wrong.
        answer_in_ack: whether the ACK carried a session description, as it must after a late offer.
        refers, reinvites_sent, reinvites_received: in-dialog requests that were answered 2xx.
        started_at, answered_at, ended_at: seconds of the loop's clock; 0 for never.
    """

    key: str
    attempt: int
    attempt_header: str
    rtc_id: str
    sip_call_id: str
    transport: str
    source: str
    invite: bytes
    started_at: float
    fault: str = ""
    status: int = 0
    reason: str = ""
    answered: bool = False
    acked: bool = False
    cancelled: bool = False
    ended_by: str = ""
    bye_reason: str = ""
    webhook: int | str = 0
    answer_in_ack: bool = False
    refers: int = 0
    reinvites_sent: int = 0
    reinvites_received: int = 0
    answered_at: float = 0.0
    ended_at: float = 0.0

    @property
    def in_progress(self) -> bool:
        """Whether the call is not over yet."""
        return not self.ended_at

    def to_dict(self) -> dict[str, Any]:
        """All fields; the INVITE as text, its bytes that are not UTF-8 as replacement characters."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["invite"] = self.invite.decode("utf-8", "replace")
        return values


class Records:
    """The records in the order of their INVITEs; of more than `limit`, the oldest that are over are dropped."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0
        self.all: list[CallRecord] = []
        self._attempts: Counter[str] = Counter()

    def add(self, request: Request, rtc_id: str, transport: str, source: str, invite: bytes, now: float) -> CallRecord:
        """Begin the record of an INVITE."""
        key = call_key(request)
        attempt = self._attempts[key]
        self._attempts[key] = attempt + 1
        record = CallRecord(
            key,
            attempt,
            request.get(_ATTEMPT_HEADER) or "",
            rtc_id,
            request.call_id,
            transport,
            source,
            invite,
            now,
        )
        self.all.append(record)
        if len(self.all) > self.limit:
            self._drop()
        return record

    def clear(self) -> None:
        """Forget everything."""
        self.all.clear()
        self._attempts.clear()
        self.dropped = 0

    def _drop(self) -> None:
        keep_from = len(self.all) - self.limit * 9 // 10
        kept = [record for at, record in enumerate(self.all) if at >= keep_from or record.in_progress]
        self.dropped += len(self.all) - len(kept)
        self.all = kept
        names = {record.key for record in kept}
        self._attempts = Counter({key: count for key, count in self._attempts.items() if key in names})

    def report(self) -> dict[str, Any]:
        """The sums over all records.

        `answered_twice` lists the keys of calls that more than one attempt was answered for, not counting a 200 that
        crossed with a CANCEL; those are `late_answers`. `left_alive` lists keys of answered calls that nobody ended.
        """
        answered = [record for record in self.all if record.answered]
        per_key: defaultdict[str, int] = defaultdict(int)
        for record in answered:
            per_key[record.key] += not record.cancelled
        outcomes = Counter(f"{record.status} {record.reason}" if record.status else "none" for record in self.all)
        return {
            "invites": len(self.all) + self.dropped,
            "records_dropped": self.dropped,
            "calls": len(self._attempts),
            "answered": len(answered),
            "answered_calls": sum(count > 0 for count in per_key.values()),
            "answered_twice": sorted(key for key, count in per_key.items() if count > 1),
            "late_answers": sum(record.cancelled for record in answered),
            "unacked": sorted(record.key for record in answered if not record.acked),
            "left_alive": sorted(record.key for record in answered if not record.ended_by),
            "cancelled": sum(record.cancelled for record in self.all),
            "outcomes": dict(sorted(outcomes.items())),
            "faults": dict(sorted(Counter(record.fault for record in self.all if record.fault).items())),
            "ended_by": dict(sorted(Counter(record.ended_by for record in answered if record.ended_by).items())),
            "webhooks": dict(sorted(Counter(str(record.webhook) for record in self.all if record.webhook).items())),
            "refers": sum(record.refers for record in self.all),
            "reinvites_sent": sum(record.reinvites_sent for record in self.all),
            "reinvites_received": sum(record.reinvites_received for record in self.all),
        }
