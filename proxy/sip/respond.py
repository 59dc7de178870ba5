"""Responses made from a request (RFC 3261 section 8.2.6), with the Via marks of RFC 3581."""

from __future__ import annotations

from typing import Final

from proxy.sip.errors import SipError
from proxy.sip.headers import Via, is_token, split_first
from proxy.sip.message import Header, Request, Response, header, read_header, read_value

__all__ = ["REASON_PHRASES", "make_response", "marked_via_lines"]

REASON_PHRASES: Final = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    199: "Early Dialog Terminated",
    200: "OK",
    202: "Accepted",
    204: "No Notification",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    410: "Gone",
    412: "Conditional Request Failed",
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    417: "Unknown Resource-Priority",
    420: "Bad Extension",
    421: "Extension Required",
    422: "Session Interval Too Small",
    423: "Interval Too Brief",
    424: "Bad Location Information",
    428: "Use Identity Header",
    429: "Provide Referrer Identity",
    430: "Flow Failed",
    433: "Anonymity Disallowed",
    436: "Bad Identity Info",
    437: "Unsupported Credential",
    438: "Invalid Identity Header",
    439: "First Hop Lacks Outbound Support",
    440: "Max-Breadth Exceeded",
    469: "Bad Info Package",
    470: "Consent Needed",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    485: "Ambiguous",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    493: "Undecipherable",
    494: "Security Agreement Required",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    555: "Push Notification Service Not Supported",
    580: "Precondition Failure",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
    607: "Unwanted",
    608: "Rejected",
}
"""Status code → its reason phrase in RFC 3261 section 21 and the extensions."""


def marked_via_lines(request: Request, remote: tuple[str, int]) -> list[Header]:
    """The Via header fields that a response must carry: the request's, the topmost marked with `received` where its
    host is not the address that it came from, and with `rport` where that was asked for (RFC 3261 section 18.2.1,
    RFC 3581 section 4).

    `remote` is the (IP address, port) that the request came from. The request's own lines are returned where nothing
    has to be marked, and where the topmost Via can't be understood: such a response still finds its way by the flow.
    """
    return [read_header(line) for line in _via_lines(request, remote)]


def _via_lines(request: Request, remote: tuple[str, int]) -> list[str]:
    lines = request.lines("via")
    try:
        top = request.via
    except SipError:
        return lines
    marked = _marked(top, remote)
    if marked is not top:
        item = read_header(lines[0])
        rest = split_first(item.value)[1]
        lines[0] = f"{item.name}: {marked}, {rest}" if rest else f"{item.name}: {marked}"
    return lines


def _marked(via: Via, remote: tuple[str, int]) -> Via:
    """The Via with its marks; itself when it needs none."""
    host, port = remote
    literal = f"[{host}]" if ":" in host else host
    asked = any(name.lower() == "rport" and not value for name, value in via.params)
    if not asked and via.host == literal:
        return via
    params = [
        (name, str(port) if asked and name.lower() == "rport" else value)
        for name, value in via.params
        if name.lower() != "received"
    ]
    params.append(("received", host))
    return via.with_params(tuple(params))


def make_response(
    request: Request,
    status: int,
    reason: str | None = None,
    *,
    remote: tuple[str, int] | None = None,
    to_tag: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
) -> Response:
    """Build a response of our own.

    `remote` marks the topmost Via. `to_tag` is added to a To that has no tag yet (never to a 100). `headers` are added
    as given; Content-Length is always written. What a broken request lacks is left out, what it has twice stands once,
    and what is malformed in it is given back as it came. Raises ValueError for a `to_tag` that is no token, and for a
    line break or NUL in the reason phrase or in `headers`.
    """
    if to_tag and not is_token(to_tag):
        raise ValueError(f"not a tag: {to_tag!r}")
    lines = request.lines("via") if remote is None else _via_lines(request, remote)
    for key in ("from", "to", "call-id", "cseq"):
        own = request.lines(key)[:1]
        if key == "to" and own and to_tag and status != 100 and not _has_tag(request):
            own = [f"To: {read_value(own[0])};tag={to_tag}"]
        lines.extend(own)
    if status == 100:
        lines.extend(request.lines("timestamp")[:1])
    lines.extend([header(name, value).line for name, value in headers])
    lines.append(f"Content-Length: {len(body)}")
    response = Response(status, REASON_PHRASES.get(status, "") if reason is None else reason, None, body)
    response.set_lines(lines)
    return response


def _has_tag(request: Request) -> bool:
    try:
        return request.to.tag is not None
    except SipError:
        return True
