"""Responses made from a request (RFC 3261 section 8.2.6), with the Via marks of RFC 3581."""

from __future__ import annotations

from typing import Final

from proxy.sip.headers import Via, split_values
from proxy.sip.message import Header, Request, Response, header

__all__ = ["REASON_PHRASES", "make_response", "marked_via_lines"]

REASON_PHRASES: Final = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    421: "Extension Required",
    422: "Session Interval Too Small",
    423: "Interval Too Brief",
    429: "Provide Referrer Identity",
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
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
}
"""Status code → its reason phrase in RFC 3261 section 21 and the extensions."""


def marked_via_lines(request: Request, remote: tuple[str, int]) -> list[Header]:
    """The Via header fields that a response must carry: the request's, the topmost marked with `received` where its
    host is not the address that it came from, and with `rport` where that was asked for (RFC 3261 section 18.2.1,
    RFC 3581 section 4).

    `remote` is the (IP address, port) that the request came from. The request's own `Header` objects are returned
    where nothing has to be marked.
    """
    vias = [item for item in request.headers if item.key == "via"]
    top = request.via
    marked = _marked(top, remote)
    if marked is not top:
        rest = split_values(vias[0].value)[1:]
        vias[0] = header(vias[0].name.strip(), ", ".join([str(marked), *rest]))
    return vias


def _marked(via: Via, remote: tuple[str, int]) -> Via:
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
    if asked or via.host != literal:
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
    as given; Content-Length is always written. Header fields that a broken request lacks are left out.
    """
    lines = (
        marked_via_lines(request, remote)
        if remote is not None
        else [item for item in request.headers if item.key == "via"]
    )
    for item in request.headers:
        key = item.key
        if key == "to" and to_tag and status != 100 and ";tag=" not in item.line.lower():
            lines.append(header("To", f"{item.value};tag={to_tag}"))
        elif key in ("from", "to", "call-id", "cseq") or (key == "timestamp" and status == 100):
            lines.append(item)
    for name, value in headers:
        lines.append(header(name, value))
    lines.append(header("Content-Length", str(len(body))))
    return Response(status, REASON_PHRASES.get(status, "") if reason is None else reason, lines, body)
