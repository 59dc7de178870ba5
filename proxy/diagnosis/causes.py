"""The cause of a failed attempt, by what was seen of it. docs/diagnosis.md explains the taxonomy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CAUSES", "Seen", "Verdict", "call_cause", "classify"]

CAUSES: Final = {
    "ours": "refused by Trunkline itself, by a rule or because no body that the target takes could be made",
    "carrier": "the caller's side broke off: its connection was lost, or our 200 was never acknowledged",
    "refused-syntax": "the target refused the request at once, as one that it does not understand",
    "refused-sdp": "the target refused the offer",
    "refused-policy": "the target or its application said no: forbidden, not found, busy, declined",
    "target-error": "the target failed by itself (5xx)",
    "target-slow": "the target did not answer in time, or refused only after a long wait",
    "no-webhook": "the target took the INVITE, and the webhook never came",
    "accepted-too-late": "the webhook came, and the target gave up before the application's accept took effect",
    "transport": "the target could not be reached, or the connection broke",
    "caller-gave-up": "the caller hung up before the answer",
    "unknown": "none of the above",
}
"""What each cause means, in words."""

SLOW_S: Final = 4.0
"""A refusal that comes later than this was not decided by looking at the request (docs/diagnosis.md)."""

_SYNTAX: Final = frozenset((400, 405, 414, 416, 420, 421, 423, 439, 481, 482, 483, 484, 485, 493, 494, 505, 513))
_SDP: Final = frozenset((406, 415, 488, 606))
_POLICY: Final = frozenset(
    (401, 402, 403, 404, 407, 410, 429, 433, 436, 437, 438, 480, 486, 491, 600, 603, 604, 607, 608)
)
_LATE: Final = frozenset((400, 408, 480, 500, 502, 503, 504))
_SDP_WORDS: Final = ("sdp", "codec", "media", "offer", "crypto", "srtp")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of an attempt; the fields are those of `AttemptFacts`.

    Attributes:
        progressed: a 18x came.
        webhook_s, accepted_s: when webhook and accept were seen, after the INVITE.
        tapped: whether webhooks pass through Trunkline, so that one that is missing means something.
    """

    outcome: str
    status: int = 0
    reason: str = ""
    detail: str = ""
    final_s: float | None = None
    progressed: bool = False
    webhook_s: float | None = None
    accepted_s: float | None = None
    tapped: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A cause and the evidence for it in a sentence; for success the cause is `answered`."""

    cause: str
    evidence: str


def classify(seen: Seen) -> Verdict:
    """The cause of an attempt's failure."""
    answer = f"{seen.status} {seen.reason}".strip()
    match seen.outcome:
        case "answered":
            return Verdict("answered", answer)
        case "own":
            return Verdict("ours", f"{answer}, by {seen.detail or 'Trunkline'}; nothing was sent")
        case "cancelled" | "ended: answered too late":
            return Verdict("caller-gave-up", seen.detail or "the caller ended the call before the answer")
        case "transport":
            return Verdict("transport", seen.detail or answer)
        case "hop":
            cause = "target-error" if seen.detail == "503" else "transport"
            return Verdict("target-slow" if seen.detail in ("no answer", "timeout") else cause, seen.detail)
        case "unusable answer":
            return Verdict("refused-sdp", f"{answer}, whose body can't be used: {seen.detail}")
        case "timeout" if seen.detail.startswith("no webhook"):
            return Verdict("no-webhook", seen.detail)
        case "timeout":
            return _slow(seen, seen.detail or "no answer")
        case "status":
            return _refused(seen, answer)
        case _:
            return Verdict("unknown", " ".join([part for part in (seen.outcome, answer, seen.detail) if part]))


def _refused(seen: Seen, answer: str) -> Verdict:
    text = seen.reason.lower()
    after = "" if seen.final_s is None else f" after {_seconds(seen.final_s)}"
    if "error code: 504" in text or "error code 504" in text:
        return Verdict("accepted-too-late", f"{answer}{after}: the target's own back end timed out on the accept")
    if seen.status in _SDP or (seen.status == 400 and any(word in text for word in _SDP_WORDS)):
        return Verdict("refused-sdp", f"{answer}{after}")
    if seen.final_s is not None and seen.final_s >= SLOW_S and seen.status in _LATE:
        return _slow(seen, f"{answer} only{after}")
    if seen.status in _SYNTAX:
        return Verdict("refused-syntax", f"{answer}{after}")
    if seen.status in _POLICY:
        return Verdict("refused-policy", f"{answer}{after}")
    if 500 <= seen.status < 600:
        return Verdict("target-error", f"{answer}{after}")
    if seen.status == 408:
        return Verdict("target-slow", f"{answer}{after}")
    if seen.status == 487:
        return Verdict("caller-gave-up", f"{answer}{after}")
    return Verdict("unknown", f"{answer}{after}")


def _slow(seen: Seen, what: str) -> Verdict:
    """It took too long: by whose fault the webhook tells, where it passes through us."""
    if seen.webhook_s is not None:
        accepted = "no accept seen" if seen.accepted_s is None else f"accept answered at {_seconds(seen.accepted_s)}"
        return Verdict("accepted-too-late", f"{what}; webhook seen at {_seconds(seen.webhook_s)}, {accepted}")
    if seen.tapped:
        return Verdict("no-webhook", f"{what}; no webhook came")
    rang = "it had rung" if seen.progressed else "it had not rung"
    return Verdict("target-slow", f"{what}; {rang}")


def call_cause(outcome: str, ended_by: str, detail: str, last: Verdict | None) -> str | None:
    """The cause of a call that was not answered; None for one that was, and was not torn down by a fault."""
    if "connection lost" in detail or "ACK not received" in detail:
        return "carrier"
    if outcome == "answered":
        return None
    if outcome == "cancelled":
        return "caller-gave-up"
    if last is None or last.cause == "answered":
        return "ours" if ended_by in ("refused", "trunkline") else "unknown"
    return last.cause


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
