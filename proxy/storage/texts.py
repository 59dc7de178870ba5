"""Calls as text: plain SIP, a Mermaid diagram, an evidence bundle in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from proxy.audit.labels import label_of
from proxy.audit.plain import timestamp
from proxy.audit.redact import Redaction, Redactor
from proxy.diagnosis.causes import CAUSES
from proxy.storage.pcap import message_ends, whole_text
from proxy.storage.queries import AttemptRow, CallRow

__all__ = ["bundle", "mermaid_of", "sip_text"]

_Event = Mapping[str, Any]

_REQUEST_IDS: Final = ("x-request-id", "cf-ray", "x-envoy-request-id", "request-id", "warning", "reason", "retry-after")


def sip_text(events: Iterable[_Event]) -> str:
    """The messages as plain text, each after a line with its time and addresses (the form that sngrep saves)."""
    parts: list[str] = []
    for event in _messages(events):
        source, target = message_ends(event)
        transport = str(event.get("flow", "")).partition(":")[0].upper()
        when = str(event["time"]).replace("T", " ").removesuffix("Z")
        parts.append(f"{transport} {when} {source[0]}:{source[1]} -> {target[0]}:{target[1]}\r\n")
        parts.append(whole_text(str(event["message"])).rstrip("\r\n") + "\r\n\r\n\r\n")
    return "".join(parts)


def mermaid_of(events: Sequence[_Event], left: str = "Caller", right: str = "Target") -> str:
    """A sequence diagram of both legs, for pages that draw Mermaid."""
    lines = [
        "sequenceDiagram",
        f"    participant A as {_plain(left)}",
        "    participant T as Trunkline",
        f"    participant B as {_plain(right)}",
    ]
    for event in events:
        if event["event"] == "message":
            other = "A" if event.get("leg") == "a" else "B"
            ends = (other, "T") if event.get("direction") == "in" else ("T", other)
            lines.append(f"    {ends[0]}->>{ends[1]}: {_plain(label_of(str(event['message']))[0])}")
            changes = event.get("changes")
            if changes:
                lines.append(f"    Note over T: {len(changes)} changes")
        elif event["event"] == "attempt-end" and event.get("cause") != "answered":
            note = f"attempt {event.get('attempt')} failed: {event.get('status')} {event.get('reason')}"
            lines.append(f"    Note over T,B: {_plain(note)}")
        elif event["event"] == "retry":
            lines.append(f"    Note over T: again in {float(event.get('delay_s') or 0) * 1000:.0f} ms")
        elif event["event"] == "call-end":
            lines.append(
                f"    Note over A,B: {_plain(str(event.get('outcome')))}, {_plain(str(event.get('ended_by')))}"
            )
    return "\n".join(lines) + "\n"


def _messages(events: Iterable[_Event]) -> Iterator[_Event]:
    return (event for event in events if event.get("event") == "message")


def _plain(text: str) -> str:
    """Text without what Mermaid would take for its own."""
    return re.sub(r"[#;<>{}\"%\r\n]", " ", text).strip()


# The evidence bundle


def bundle(call: CallRow, attempts: Sequence[AttemptRow], events: Sequence[_Event], ladder: str) -> str:
    """What Twilio's and OpenAI's support ask for, in Markdown. It is masked, whether or not the store is."""
    redactor = Redactor(Redaction())
    lines = [
        f"# Call {call.id}",
        "",
        f"{_outcome(call)} All times are UTC. Phone numbers, keys and credentials are masked.",
        "",
        *_ids(call, attempts, events),
        *_timings(call, attempts),
        *_verdicts(attempts),
    ]
    # The verdicts and ids hold texts of the neighbours; the times of the ladder look like numbers.
    parts = [redactor.line(line) for line in lines]
    parts += ["## Ladder", "", *_fenced("\n".join([_masked_step(line, redactor) for line in ladder.split("\n")]))]
    parts += ["## Messages", ""]
    for number, event in enumerate(_messages(events), 1):
        source, target = message_ends(event)
        way = f"{source[0]}:{source[1]} → {target[0]}:{target[1]}"
        text = redactor.text(str(event["message"]))
        parts += [
            f"### {number}. {label_of(text)[0]}",
            "",
            f"{event['time']}, {str(event.get('flow', '')).partition(':')[0].upper()}, {way}",
            "",
            *_fenced(text.replace("\r\n", "\n").rstrip("\n"), "sip"),
        ]
    return "\n".join(parts) + "\n"


def _masked_step(line: str, redactor: Redactor) -> str:
    """A line of a ladder, which begins with its time."""
    time = len(line) - len(line.lstrip(" 0123456789."))
    return line[:time] + redactor.line(line[time:])


def _outcome(call: CallRow) -> str:
    how = f"{call.outcome or call.state} ({call.status or '-'} {call.reason or ''})".replace(" )", ")")
    return f"It began at {timestamp(call.started)} and was {how}, after {call.attempts} attempts."


def _ids(call: CallRow, attempts: Sequence[AttemptRow], events: Sequence[_Event]) -> list[str]:
    account = next((value for event in _messages(events) if (value := _header(event, "x-twilio-accountsid"))), "-")
    lines = [
        "## For Twilio's support",
        "",
        f"- Call SID (X-Twilio-CallSid): {call.call_sid or '-'}",
        f"- Account SID: {account}",
        f"- SIP Call-ID: {call.call_id or '-'}",
        f"- From, To: {call.from_uri or '-'}, {call.to_uri or '-'}",
        f"- Signaling address: {call.source or '-'} ({call.tls or 'no TLS'})",
        f"- User-Agent: {call.user_agent or '-'}",
        f"- Time of the INVITE: {timestamp(call.started)}",
        "",
        "## For OpenAI's support",
        "",
        f"- X-Trunkline-Call-ID (in the webhook's sip_headers): {call.id}",
    ]
    for attempt in attempts:
        if attempt.final:
            answer = f"{attempt.status or '-'} {attempt.reason or ''}".strip()
            lines += [
                f"- Attempt {attempt.number}: Call-ID {attempt.call_id}, Request-URI {attempt.uri}, address "
                f"{attempt.address or '-'} ({attempt.tls or 'no TLS'}), INVITE at "
                f"{timestamp(call.started + (attempt.invite_s or attempt.started_s or 0.0))}, answer {answer}",
            ]
    for event in _messages(events):
        if event.get("leg") == "b" and event.get("direction") == "in" and str(event["message"]).startswith("SIP/2.0 "):
            found = [f"{name}: {value}" for name in _REQUEST_IDS if (value := _header(event, name))]
            if found:
                lines.append(f"- In an answer to attempt {event.get('attempt', '-')}: {'; '.join(found)}")
    return [*lines, ""]


def _header(event: _Event, key: str) -> str:
    for line in str(event["message"]).partition("\r\n\r\n")[0].split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == key:
            return value.strip()
    return ""


def _timings(call: CallRow, attempts: Sequence[AttemptRow]) -> list[str]:
    lines = [
        "## Timings",
        "",
        "| | from | to 100 | to 18x | to final answer | webhook seen | accept answered |",
        "|---|---|---|---|---|---|---|",
        f"| caller | {timestamp(call.started)} | "
        f"{_ms(call.trying_s)} | {_ms(call.ringing_s)} | {_ms(call.setup_s)} | | |",
    ]
    for attempt in attempts:
        name = f"attempt {attempt.number}" + ("" if attempt.final else f", address {attempt.hop}")
        began = timestamp(call.started + (attempt.invite_s or attempt.started_s or 0.0))
        times = [_ms(value) for value in (attempt.trying_s, attempt.ringing_s, attempt.final_s)]
        hooks = [_ms(value) for value in (attempt.webhook_s, attempt.accepted_s)]
        lines.append(f"| {' | '.join([name, began, *times, *hooks])} |")
    return [*lines, "", f"Of the set-up, {_ms(call.added_s) or '-'} were not the answering target's.", ""]


def _verdicts(attempts: Sequence[AttemptRow]) -> list[str]:
    lines = ["## What was seen", ""]
    for attempt in attempts:
        if attempt.cause and attempt.cause != "answered":
            meaning = CAUSES.get(attempt.cause, "")
            lines.append(f"- Attempt {attempt.number}, {attempt.cause} ({meaning}): {attempt.evidence}")
    if len(lines) == 2:
        lines.append("- No attempt failed.")
    return [*lines, ""]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value * 1000:.0f} ms"


def _fenced(text: str, language: str = "") -> list[str]:
    """A block of code, with a fence that the text does not hold."""
    longest = max([len(run) for run in re.findall(r"`+", text)], default=0)
    fence = "`" * max(longest + 1, 3)
    return [f"{fence}{language}", text, fence, ""]
