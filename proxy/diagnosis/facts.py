"""What diagnosis knows of one attempt."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AttemptFacts"]


class AttemptFacts(NamedTuple):
    """One attempt at a target, or one address of a target that failed within it.

    Attributes:
        call: our id of the call.
        time: when the attempt began, Unix seconds.
        number: from 1 on. hop: 0 for the attempt's outcome, from 1 on for addresses that failed before it.
        outcome: `answered`, `status`, `timeout`, `transport`, `own`, `cancelled`, `hop`, `ended: …`; None: it runs.
        status, reason: the final answer. cause: of the taxonomy in docs/diagnosis.md.
        target: its name. address: `transport:address:port`.
        rules, rules_version: what normalized the INVITE.
        final_s: from the INVITE to its final answer. connection_age_s: of the connection to the target, at the INVITE.
        source, user_agent, invite_bytes, source_tls, source_age_s: of the caller's INVITE and its connection.
        tags: of the call. call_outcome: `answered`, `failed` or `cancelled`.
        tls: of the connection to the target.
        shape: features of the caller's INVITE. sent: those of ours. answer: those of the final answer.
    """

    call: str
    time: float
    number: int
    hop: int
    outcome: str | None = None
    status: int | None = None
    reason: str | None = None
    cause: str | None = None
    target: str | None = None
    address: str | None = None
    rules: str | None = None
    rules_version: str | None = None
    final_s: float | None = None
    connection_age_s: float | None = None
    source: str | None = None
    user_agent: str | None = None
    invite_bytes: int | None = None
    source_tls: str | None = None
    tags: tuple[str, ...] = ()
    call_outcome: str | None = None
    source_age_s: float | None = None
    tls: str | None = None
    shape: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
