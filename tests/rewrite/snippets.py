"""Messages written as the few lines that matter, and rules applied to them with every edit checked."""

from __future__ import annotations

from textwrap import indent
from typing import Any

from proxy.audit.records import replay
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, Context, RuleSet
from proxy.rulefiles import load_text
from proxy.sip.message import Message, canonical_key
from proxy.sip.parser import parse_message

__all__ = ["IDENTITY_LINES", "apply", "context", "message", "rule_set", "rules", "shown"]

IDENTITY_LINES = (
    "Via: SIP/2.0/TLS 192.0.2.10:5061;branch=z9hG4bK1dc3.f822",
    "Max-Forwards: 60",
    "From: <sip:+15550100002@trunk.pstn.example.net:5060>;tag=0860",
    "To: <sip:+15550100001@edge.example.com;transport=tls>",
    "Call-ID: fb3e6e86a53e3094@192.0.2.10",
    "CSeq: 29044 {method}",
    "Contact: <sip:+15550100002@192.0.2.10:5061;transport=tls>",
)
_SESSION = ["v=0", "o=- 1 1 IN IP4 203.0.113.1", "s=-", "c=IN IP4 203.0.113.1", "t=0 0"]
_START = "INVITE sip:+15550100001@edge.example.com SIP/2.0"


def rules(text: str) -> RuleSet:
    """A rule set of the rules in `text`, a YAML list."""
    return load_text(f"version: 1\nname: test\nrules:\n{indent(text.strip(chr(10)), '  ')}\n", "test.yaml")


def rule_set(do: str, when: str = "{}") -> RuleSet:
    """A rule set of one rule, `do` being one action in flow style and `when` its conditions."""
    return rules(f"- id: one\n  why: For the test.\n  when: {when}\n  do:\n    - {do}")


def message(snippet: str, method: str = "INVITE") -> Message:
    """A whole message from its lines that matter: start line and identity are put in where they are missing.

    After an empty line comes the SDP; one that begins with m= gets the lines of the session in front.
    """
    head, _, body = snippet.strip("\n").partition("\n\n")
    if head.startswith(("m=", "v=")):
        head, body = "", head
    lines = head.split("\n") if head else []
    start = lines.pop(0) if _has_start_line(lines) else _START
    if not start.startswith("SIP/2.0 "):
        method = start.partition(" ")[0]
    present = {canonical_key(line.partition(":")[0]) for line in lines}
    identity = [line.format(method=method) for line in IDENTITY_LINES]
    identity = [line for line in identity if canonical_key(line.partition(":")[0]) not in present]
    sdp = body.split("\n") if body else []
    if body.startswith("m="):
        sdp = _SESSION + sdp
    data = "".join([f"{line}\r\n" for line in [start, *identity, *lines]]) + "\r\n"
    data += "".join([f"{line}\r\n" for line in sdp])
    return parse_message(data.encode("utf-8", "surrogateescape"))


def _has_start_line(lines: list[str]) -> bool:
    return bool(lines) and (lines[0].startswith("SIP/2.0 ") or lines[0].endswith(" SIP/2.0"))


def shown(draft: Draft, before: str) -> str:
    """A draft as the lines that matter, in the form in which `before` was written."""
    hidden = [line.format(method=draft.method) for line in IDENTITY_LINES]
    lines = [item.line.replace("\r\n", "\n") for item in draft.headers if item.line not in hidden]
    if _has_start_line(before.strip("\n").split("\n")):
        lines.insert(0, draft.start_line)
    sdp = draft.body.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    if "v=0" not in before:
        sdp = sdp[sdp.find("m=") :] if "m=" in sdp else sdp
    return "\n".join([*lines, *(["", sdp] if lines and sdp else [sdp] if sdp else [])]).strip("\n")


def context(direction: str = A_TO_B, **facts: Any) -> Context:
    """A context with values that the tests know."""
    known: dict[str, Any] = {
        "call_id": "5f2c9a",
        "local_host": "198.51.100.77",
        "target_host": "sip.api.openai.com",
        "transport": "tls",
        "source": "192.0.2.10",
    }
    return Context(direction, **{**known, **facts})


def apply(rule_set: RuleSet, whole: Message, facts: Context | None = None) -> Draft:
    """Apply a rule set, and check that the records say exactly what was done and that the result parses."""
    draft = Draft(whole)
    rule_set.apply(draft, facts or context(B_TO_A if draft.status else A_TO_B))
    after = draft.finish()
    start_line, lines, body = replay(whole.start_line, [item.line for item in whole.headers], whole.body, draft.changes)
    assert start_line == after.start_line
    assert lines == [item.line for item in after.headers]
    assert body == after.body
    assert all(change.step.startswith(f"rule:{rule_set.name}/") for change in draft.changes)
    head_and_body = after.serialize()
    again = parse_message(head_and_body)
    assert [item.line for item in again.headers] == lines
    return draft
