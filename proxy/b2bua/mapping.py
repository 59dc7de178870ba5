"""What rules may never touch: the identity of each leg. It is built after the rules, so that no rule can break it.

A message of one leg becomes a message of the other: every header field that belongs to a hop, a dialog or an endpoint's
capabilities is taken out and ours is put in; all else crosses. Each edit is recorded by the `Draft`.
"""

from __future__ import annotations

from typing import Final

from proxy.rewrite.draft import Draft
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.headers import NameAddr, parse_name_addr
from proxy.sip.message import Header, Request, header
from proxy.sip.uri import Uri, render_params

__all__ = [
    "ALLOW_OUTSIDE_DIALOG",
    "MAX_FORWARDS",
    "add_early_answer",
    "allowed",
    "contact_line",
    "crossing_from",
    "crossing_referred_by",
    "crossing_to",
    "hide_own_refusal",
    "map_message",
    "max_forwards_line",
    "target_uri",
    "via_line",
    "withhold_early_media",
]

_ALLOW: Final = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, NOTIFY"

ALLOW_OUTSIDE_DIALOG: Final = "INVITE, ACK, CANCEL, BYE, OPTIONS"
"""What we take without one."""

MAX_FORWARDS: Final = header("Max-Forwards", "70")
"""Of a request that begins with us (RFC 3261 section 8.1.1.6)."""

_IDENTITY: Final = "builtin:identity"
_TOPOLOGY: Final = "builtin:topology"
_CAPABILITIES: Final = "builtin:capabilities"
_LENGTH: Final = "builtin:length"
_MALFORMED: Final = "builtin:malformed-header"

_OWNED: Final[dict[str, str]] = {
    "via": _TOPOLOGY,
    "record-route": _TOPOLOGY,
    "route": _TOPOLOGY,
    "path": _TOPOLOGY,
    "service-route": _TOPOLOGY,
    "contact": _IDENTITY,
    "from": _IDENTITY,
    "to": _IDENTITY,
    "call-id": _IDENTITY,
    "cseq": _IDENTITY,
    "max-forwards": _IDENTITY,
    "content-length": _LENGTH,
    "allow": _CAPABILITIES,
    "supported": _CAPABILITIES,
    "require": _CAPABILITIES,
    "proxy-require": _CAPABILITIES,
    "unsupported": _CAPABILITIES,
    "user-agent": _CAPABILITIES,
    "server": _CAPABILITIES,
    "session-expires": _CAPABILITIES,
    "min-se": _CAPABILITIES,
    "rseq": _CAPABILITIES,
    "rack": _CAPABILITIES,
    "timestamp": _CAPABILITIES,
    "replaces": _IDENTITY,
    "join": _IDENTITY,
    "target-dialog": _IDENTITY,
    "in-reply-to": _IDENTITY,
    "authorization": "builtin:credentials",
    "proxy-authorization": "builtin:credentials",
    "www-authenticate": "builtin:credentials",
    "proxy-authenticate": "builtin:credentials",
    "authentication-info": "builtin:credentials",
    "proxy-authentication-info": "builtin:credentials",
    "": _MALFORMED,
}
"""Header fields that never cross, and the built-in step that takes them out."""


def allowed(refer: str) -> str:
    """The methods that we take inside a dialog, `refer` being the setting of that name."""
    return _ALLOW if refer == "refuse" else f"{_ALLOW}, REFER"


def via_line(flow: Flow, branch: str) -> Header:
    """Our Via for a request on a flow, asking for `rport` (RFC 3581)."""
    value = f"SIP/2.0/{flow.transport.upper()} {flow.advertised};branch={branch};rport"
    return Header("via", f"Via: {value}", value)


def max_forwards_line(request: Request) -> Header:
    """The Max-Forwards of what we send on: one less than came in; 70 stands for a missing one."""
    value = request.get("max-forwards")
    return MAX_FORWARDS if value is None else Header("max-forwards", f"Max-Forwards: {max(int(value) - 1, 0)}")


def contact_line(flow: Flow) -> Header:
    """Our Contact on a flow: an address of ours by which this very transport is reached."""
    transport = "" if flow.transport == "udp" else f";transport={flow.transport}"
    value = f"<sip:trunkline@{flow.advertised}{transport}>"
    return Header("contact", f"Contact: {value}", value)


def target_uri(target: Uri, dialed: str | None) -> str:
    """The Request-URI of leg B: the target's URI as configured; one without a user takes the dialed one.

    URI parameters that only say how to reach the target stay, as a UAC of RFC 3261 section 8.1.1.1 has them.
    """
    if target.user is None and dialed:
        return target.replace(user=dialed).text
    return target.text


def _address_of(draft: Draft, key: str) -> NameAddr:
    item = draft.find(key)
    if item is None:
        raise SipError(400, f"Missing {key.capitalize()} header")
    source = draft.source
    if source.keys().get(key) is item.line:
        return source.from_ if key == "from" else source.to
    return parse_name_addr(item.value)


def crossing_from(draft: Draft, local_host: str, tag: str) -> str:
    """The From of the other leg: display name and user cross, the host is ours.

    An anonymous caller's `anonymous.invalid` stays, for it says something (RFC 3323 section 4.1.1.3).
    """
    address = _address_of(draft, "from")
    return _with_host(address, local_host, f";tag={tag}")


def crossing_to(draft: Draft, target: Uri) -> str:
    """The To of leg B: who was dialed, at the target's host."""
    host = target.host if target.port is None else f"{target.host}:{target.port}"
    return _with_host(_address_of(draft, "to"), host, "")


def crossing_referred_by(value: str, local_host: str) -> str:
    """A Referred-By (RFC 3892) for the other leg: who referred, at our host. Raises SipError 400."""
    address = parse_name_addr(value)
    return _with_host(address, local_host, render_params(address.params))


def _with_host(address: NameAddr, host: str, params: str) -> str:
    uri = address.uri
    if uri.host.lower() == "anonymous.invalid":
        host = uri.host
    user = f"{uri.user}@" if uri.user else ""
    display = f"{address.display} " if address.display else ""
    return f"{display}<sip:{user}{host}>{params}"


_MOVED: Final = (480, "Temporarily Unavailable")
_ABOUT_US: Final = {
    401: (403, "Forbidden"),
    407: (403, "Forbidden"),
    420: (500, "Server Internal Error"),
    421: (500, "Server Internal Error"),
    422: (500, "Server Internal Error"),
}


def hide_own_refusal(draft: Draft) -> bool:
    """Give a refusal that is about what we said, not the other leg, a status that means something there: a challenge,
    what we support and require, or where we should go instead. It would be malformed without the header fields that
    don't cross (RFC 3261 sections 21.3, 21.4 and 22, RFC 4028 section 6). True when it was one."""
    status = _MOVED if 300 <= draft.status < 400 else _ABOUT_US.get(draft.status)
    if status is None:
        return False
    draft.step = "builtin:own-refusal"
    draft.set_status(*status)
    return True


def withhold_early_media(draft: Draft) -> None:
    """Make a plain 180 of a provisional response with SDP."""
    draft.step = "builtin:early-media"
    draft.set_status(180, "Ringing")
    draft.remove_all("content-type")
    draft.set_body(b"")


def add_early_answer(draft: Draft, session: bytes) -> None:
    """Put the answer into a 2xx that leaves it out, since a reliable provisional response had it: the other leg has
    heard of that one unreliably, or not at all (RFC 3261 section 13.2.1)."""
    draft.step = "builtin:early-answer"
    draft.append(header("Content-Type", "application/sdp"))
    draft.set_body(session)


def map_message(
    draft: Draft, block: list[Header], capabilities: list[Header], routes: list[Header] | None = None
) -> None:
    """Take out of a draft what never crosses, and put in what is ours.

    `block` goes on top: Via, Max-Forwards, From, To, Call-ID, CSeq, Contact (and for responses Record-Route).
    `routes` follows the topmost Via lines' block as Route fields. `capabilities` (Allow, Supported, User-Agent …) and
    Content-Length go to the end.
    """
    draft.remove_owned(_OWNED)
    draft.step = _IDENTITY
    draft.insert_all(0, block)
    if routes:
        draft.step = _TOPOLOGY
        draft.insert_all(len(block), routes)
    draft.step = _CAPABILITIES
    for item in capabilities:
        draft.append(item)
    draft.step = _LENGTH
    draft.append(Header("content-length", f"Content-Length: {len(draft.body)}"))
