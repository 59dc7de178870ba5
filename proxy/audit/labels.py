"""What a message is in a few words, for the arrows of ladders."""

from __future__ import annotations

__all__ = ["label_of"]


def label_of(message: str) -> tuple[str, int]:
    """The words on an arrow, and the status (0 for a request)."""
    head, _, body = message.partition("\r\n\r\n")
    first = head.partition("\r\n")[0]
    # Some answers have SDP without a Content-Type, so the body itself is asked.
    content = " (SDP)" if body.startswith("v=") else " (body)" if body else ""
    if not first.startswith("SIP/2.0 "):
        return first.partition(" ")[0] + content, 0
    status, _, reason = first.removeprefix("SIP/2.0 ").partition(" ")
    method = next((line.split()[-1] for line in head.split("\r\n") if line.lower().startswith("cseq:")), "")
    to = "" if method in ("INVITE", "") else f" ({method})"
    return f"{status} {reason}".rstrip() + to + content, int(status) if status.isdigit() else 0
