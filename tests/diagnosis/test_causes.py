"""The taxonomy, by table."""

from __future__ import annotations

import pytest

from proxy.diagnosis.causes import CAUSES, SLOW_S, Seen, call_cause, classify


@pytest.mark.parametrize(
    ("seen", "cause", "words"),
    [
        (Seen("answered", 200, "OK"), "answered", "200 OK"),
        (Seen("own", 488, "No usable crypto", "builtin:sdp"), "ours", "builtin:sdp"),
        (Seen("status", 400, "Bad Request", final_s=0.1), "refused-syntax", "after 100 ms"),
        (Seen("status", 400, "Bad Request", final_s=SLOW_S + 5), "target-slow", "only after 9.0 s"),
        (Seen("status", 400, "Invalid SDP offer", final_s=0.1), "refused-sdp", "Invalid SDP offer"),
        (Seen("status", 400, "Invalid SDP offer", final_s=9.0), "refused-sdp", "after 9.0 s"),
        (Seen("status", 400, "error code: 504", final_s=5.0), "accepted-too-late", "back end"),
        (Seen("status", 488, "Not Acceptable Here", final_s=0.2), "refused-sdp", "488"),
        (Seen("status", 403, "Forbidden", final_s=0.2), "refused-policy", "403"),
        (Seen("status", 603, "Decline", final_s=12.0), "refused-policy", "after 12.0 s"),
        (Seen("status", 486, "Busy Here"), "refused-policy", "486 Busy Here"),
        (Seen("status", 500, "Server Internal Error", final_s=0.2), "target-error", "500"),
        (Seen("status", 503, "Service Unavailable", final_s=6.0), "target-slow", "503"),
        (Seen("status", 400, "Bad Request", final_s=6.0, tapped=True), "no-webhook", "no webhook came"),
        (
            Seen("status", 400, "Bad Request", final_s=6.0, webhook_s=5.5, tapped=True),
            "accepted-too-late",
            "webhook seen at 5.5 s, no accept seen",
        ),
        (
            Seen("timeout", 408, "Request Timeout", "no answer in 8.0 s", webhook_s=0.5, accepted_s=7.9),
            "accepted-too-late",
            "accept answered at 7.9 s",
        ),
        (Seen("timeout", 408, "Request Timeout", "no answer in 8.0 s"), "target-slow", "had not rung"),
        (Seen("timeout", 408, "Request Timeout", "no webhook in 3 s"), "no-webhook", "no webhook in 3 s"),
        (Seen("timeout", 408, "Request Timeout", "ring timeout", progressed=True), "target-slow", "it had rung"),
        (Seen("transport", 503, "Service Unavailable", "connection lost"), "transport", "connection lost"),
        (Seen("hop", detail="no answer"), "target-slow", "no answer"),
        (Seen("hop", detail="connection lost"), "transport", "connection lost"),
        (Seen("hop", detail="503"), "target-error", "503"),
        (Seen("cancelled", 487, "Request Terminated"), "caller-gave-up", "caller"),
        (Seen("ended: answered too late", 200, "OK"), "caller-gave-up", "caller"),
        (Seen("unusable answer", 200, "OK", "no common codec"), "refused-sdp", "no common codec"),
        (Seen("status", 399, "Odd"), "unknown", "399 Odd"),
        (Seen("something new", 0, ""), "unknown", "something new"),
    ],
    ids=lambda value: f"{value.outcome}-{value.status}" if isinstance(value, Seen) else None,
)
def test_cause_and_evidence(seen: Seen, cause: str, words: str) -> None:
    verdict = classify(seen)
    assert verdict.cause == cause
    assert words in verdict.evidence
    assert cause in CAUSES or cause == "answered"


@pytest.mark.parametrize("status", range(300, 700))
def test_every_status_has_a_cause_of_the_taxonomy(status: int) -> None:
    for final_s in (None, 0.1, 20.0):
        assert classify(Seen("status", status, "Reason", final_s=final_s)).cause in CAUSES


def test_cause_of_a_call() -> None:
    syntax = classify(Seen("status", 400, "Bad Request", final_s=0.1))
    assert call_cause("failed", "refused", "", syntax) == "refused-syntax"
    assert call_cause("failed", "refused", "", None) == "ours"
    assert call_cause("answered", "caller", "", syntax) is None
    assert call_cause("cancelled", "caller-cancel", "", syntax) == "caller-gave-up"
    assert call_cause("answered", "trunkline", "ACK not received", syntax) == "carrier"
    assert call_cause("cancelled", "transport", "caller's connection lost", None) == "carrier"
