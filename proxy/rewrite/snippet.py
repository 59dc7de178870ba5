"""Messages written as the few lines that matter: for the cases of rules, guides and tests.

A snippet is header lines, with or without a start line in front; after an empty line comes the SDP. What is missing of
a message's identity is put in, and left out again when the result is shown.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import A_TO_B, B_TO_A, Context
from proxy.sip.message import Message, canonical_key
from proxy.sip.parser import parse_message

__all__ = ["EXAMPLE_FACTS", "IDENTITY_LINES", "example_context", "message", "shown"]

IDENTITY_LINES: Final = (
    "Via: SIP/2.0/TLS 192.0.2.10:5061;branch=z9hG4bK1dc3.f822",
    "Max-Forwards: 60",
    "From: <sip:+15550100002@trunk.pstn.example.net:5060>;tag=0860",
    "To: <sip:+15550100001@edge.example.com;transport=tls>",
    "Call-ID: fb3e6e86a53e3094@192.0.2.10",
    "CSeq: 29044 {method}",
    "Contact: <sip:+15550100002@192.0.2.10:5061;transport=tls>",
)
"""What a snippet gets when it does not have it."""

EXAMPLE_FACTS: Final = (
    ("call_id", "5f2c9a"),
    ("local_host", "198.51.100.77"),
    ("target_host", "sip.api.openai.com"),
    ("transport", "tls"),
    ("source", "192.0.2.10"),
)
"""What is known beside the message, unless something else is said."""

_SESSION: Final = ("v=0", "o=- 1 1 IN IP4 203.0.113.1", "s=-", "c=IN IP4 203.0.113.1", "t=0 0")
_START: Final = "INVITE sip:+15550100001@edge.example.com SIP/2.0"


def message(snippet: str, method: str = "INVITE") -> Message:
    """A whole message from its lines that matter. A body that begins with m= gets the lines of a session in front.

    `method`: that of a response whose snippet has no CSeq. Raises MalformedMessage.
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
        sdp = [*_SESSION, *sdp]
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


def example_context(is_response: bool, **facts: Any) -> Context:
    """A context of known values; `direction` is that in which such a message mostly goes, unless it is given."""
    direction = facts.pop("direction", B_TO_A if is_response else A_TO_B)
    return Context(direction, **{**dict(EXAMPLE_FACTS), **facts})
