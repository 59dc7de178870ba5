"""REFER (RFC 3515) as it crosses to the other leg: what Refer-To, Referred-By and the NOTIFYs have to say there.

An address of ours and a dialog with us mean nothing to the other leg's peer, so they are put into its own terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.b2bua.mapping import crossing_referred_by
from proxy.rewrite.draft import Draft
from proxy.sip.errors import SipError
from proxy.sip.headers import NameAddr, parse_name_addr
from proxy.sip.message import Message, Request, header
from proxy.sip.uri import Params, Uri, parse_params, parse_uri, unescape

if TYPE_CHECKING:
    from proxy.b2bua.core import Core
    from proxy.b2bua.leg import Leg

__all__ = [
    "Replaces",
    "bare_uri",
    "find_replaced",
    "is_ours",
    "map_notify",
    "map_refer",
    "parse_replaces",
    "phone_number",
    "read_refer_to",
    "record_refer",
    "sipfrag_status",
    "uri_headers",
    "wants_no_subscription",
]

_UNESCAPED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()[]/?:+$")
"""What may stand in a URI's header part as it is: hnv-unreserved and unreserved (RFC 3261 section 25.1)."""

_SEPARATORS: Final = str.maketrans("", "", "-.()")
"""Visual separators of a telephone number (RFC 3966 section 3)."""


class Replaces:
    """The dialog that an INVITE is to take the place of (RFC 3891 section 6.1).

    Attributes:
        call_id: its Call-ID.
        to_tag: the tag of the user agent that gets the INVITE.
        from_tag: the tag of its peer.
        early_only: whether it may only be replaced as long as it is not answered.
    """

    __slots__ = ("call_id", "early_only", "from_tag", "to_tag")

    def __init__(self, call_id: str, to_tag: str, from_tag: str, early_only: bool = False) -> None:
        self.call_id = call_id
        self.to_tag = to_tag
        self.from_tag = from_tag
        self.early_only = early_only

    def __str__(self) -> str:
        tail = ";early-only" if self.early_only else ""
        return f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}{tail}"


def parse_replaces(value: str) -> Replaces:
    """Read a Replaces value. Raises SipError 400."""
    call_id, _, tail = value.partition(";")
    params = {name.lower(): part for name, part in parse_params(tail)}
    to_tag, from_tag = params.get("to-tag"), params.get("from-tag")
    if not call_id.strip() or not to_tag or not from_tag:
        raise SipError(400, "Malformed Replaces")
    return Replaces(call_id.strip(), to_tag, from_tag, "early-only" in params)


def read_refer_to(request: Message) -> NameAddr:
    """The one Refer-To of a REFER, its URI parsed. Raises SipError 400 for none, several or a malformed one
    (RFC 3515 section 2.4.2)."""
    values = request.values("refer-to")
    if len(values) != 1:
        raise SipError(400, "REFER needs exactly one Refer-To")
    address = parse_name_addr(values[0])
    _ = address.uri
    return address


def wants_no_subscription(request: Message) -> bool:
    """Whether a REFER asks for no NOTIFYs (RFC 4488)."""
    return (request.get("refer-sub") or "").partition(";")[0].strip().lower() == "false"


def uri_headers(uri: Uri) -> list[tuple[str, str]]:
    """The header part of a URI as (name, value), decoded. A pair without `=` is left out."""
    pairs: list[tuple[str, str]] = []
    for part in (uri.headers or "").split("&"):
        name, equals, value = part.partition("=")
        if equals:
            pairs.append((unescape(name), unescape(value)))
    return pairs


def bare_uri(uri: Uri) -> Uri:
    """A URI as it may stand in a request line: without a header part and a `method` (RFC 3261 section 19.1.1)."""
    params = tuple([pair for pair in uri.params if pair[0].lower() != "method"])
    return Uri(uri.scheme, uri.user, uri.host, uri.port, params, uri.password, None, uri.opaque)


def phone_number(uri: Uri) -> str:
    """The number of a tel: URI, or of a SIP URI with one as its user, without visual separators and parameters:
    `+1-201-555-0123;ext=7` gives `+12015550123` (RFC 3261 section 19.1.6). Escapes stay."""
    return (uri.user or "").partition(";")[0].translate(_SEPARATORS)


def is_ours(core: Core, leg: Leg, uri: Uri) -> bool:
    """Whether a URI that a leg's peer wrote stands for us: our address, and no port or one of ours.

    Another port of our host is somebody else, such as a switch on the same machine.
    """
    host = uri.host.lower().strip("[]")
    advertised, _, port = leg.flow.advertised.rpartition(":")
    known = (core.config.public_address.lower().strip("[]"), advertised.lower().strip("[]"), leg.flow.local[0])
    return bool(host) and host in known and (uri.port is None or str(uri.port) in (port, "5060", "5061"))


def find_replaced(core: Core, replaces: Replaces) -> Leg | None:
    """The leg whose dialog with us a peer names, from where that peer sees it: the other tag is ours."""
    leg = core.legs.get((replaces.call_id, replaces.to_tag))
    return leg if leg is not None and leg.dialog.remote_tag == replaces.from_tag else None


def map_refer(draft: Draft, request: Request, core: Core, from_leg: Leg, to_leg: Leg) -> None:
    """Put Refer-To and Referred-By of a REFER into the terms of the leg that it crosses to. Raises SipError.

    What stands for us is told from the REFER as it came, before the rules.
    """
    uri = read_refer_to(request).uri
    positions = draft.positions("refer-to")
    if len(positions) != 1:
        raise SipError(400, "REFER needs exactly one Refer-To")
    item = draft.headers[positions[0]]
    address = parse_name_addr(item.value)
    mapped = _mapped_target(uri, address.uri, core, from_leg, to_leg)
    if mapped is not address.uri:
        draft.step = "builtin:refer-to"
        new = address.replace(uri_text=mapped.text)
        draft.replace(positions[0], header(item.name, str(new)))
    map_referred_by(draft, core)


def map_referred_by(draft: Draft, core: Core) -> None:
    """The host of who refers is his own affair, as that of a From is; one that can't be understood does not cross."""
    for at in reversed(draft.positions("referred-by")):
        item = draft.headers[at]
        try:
            value = crossing_referred_by(item.value, core.config.public_address)
        except SipError:
            draft.step = "builtin:malformed-header"
            draft.remove(at)
            continue
        draft.step = "builtin:identity"
        draft.replace(at, header(item.name, value))


def _mapped_target(uri: Uri, ruled: Uri, core: Core, from_leg: Leg, to_leg: Leg) -> Uri:
    """Where the other leg's peer is to go: `uri` is what came, `ruled` what the rules made of it."""
    config = core.config
    if uri.scheme == "tel":
        if not config.refer_tel_host:
            return ruled
        return parse_uri(f"sip:{phone_number(uri)}@{config.refer_tel_host}")
    if uri.scheme not in ("sip", "sips"):
        return ruled
    for name, value in uri_headers(uri):
        if name.lower() == "replaces":
            replaced = find_replaced(core, parse_replaces(value))
            other = None if replaced is None else replaced.peer
            if other is not None:
                return _replacing(uri, other)
    if not is_ours(core, from_leg, uri):
        return ruled
    peer = parse_name_addr(to_leg.dialog.remote).uri
    params: Params = tuple([pair for pair in uri.params if pair[0].lower() not in ("transport", "maddr", "lr")])
    return Uri(uri.scheme, uri.user, peer.host, peer.port, params, uri.password, uri.headers)


def _replacing(uri: Uri, other: Leg) -> Uri:
    """A URI that has its Replaces name the dialog of the other leg of that call, at that leg's peer."""
    dialog = other.dialog
    target = parse_uri(dialog.remote_target)
    parts: list[str] = []
    for part in (uri.headers or "").split("&"):
        name, _, value = part.partition("=")
        if unescape(name).lower() == "replaces":
            early = parse_replaces(unescape(value)).early_only
            # The one who gets the INVITE is the other leg's peer: To is its tag, From is ours.
            value = _escaped(str(Replaces(dialog.call_id, dialog.remote_tag, dialog.local_tag, early)))
            part = f"{name}={value}"
        parts.append(part)
    return Uri(target.scheme, target.user, target.host, target.port, target.params, target.password, "&".join(parts))


def _escaped(text: str) -> str:
    """A value as it may stand in a URI's header part."""
    return "".join(
        [
            ch if ch in _UNESCAPED else "".join([f"%{byte:02X}" for byte in ch.encode("utf-8", "surrogateescape")])
            for ch in text
        ]
    )


def map_notify(draft: Draft, seqs: dict[tuple[str, int], int], from_leg: Leg) -> None:
    """Have the `id` of a NOTIFY about a REFER name the REFER of the leg that the NOTIFY crosses to (RFC 3515 section
    2.4.6). `seqs`: for the leg that a REFER went out on and its CSeq number there, the number that it came with."""
    at = next(iter(draft.positions("event")), None)
    if at is None:
        return
    item = draft.headers[at]
    package, _, tail = item.value.partition(";")
    if package.strip().lower() != "refer":
        return
    parts: list[str] = []
    for part in tail.split(";"):
        name, _, number = part.partition("=")
        number = number.strip()
        if name.strip().lower() == "id" and number.isdigit() and number.isascii() and len(number) < 11:
            part = f"id={seqs.get((from_leg.side, int(number)), int(number))}"
        parts.append(part)
    draft.step = "builtin:refer-id"
    draft.replace(at, header(item.name, ";".join([package, *parts]) if tail else item.value))


def sipfrag_status(request: Request) -> tuple[int, str] | None:
    """The status that a NOTIFY about a REFER reports, and its reason phrase; None for any other NOTIFY."""
    if (request.get("event") or "").partition(";")[0].strip().lower() != "refer":
        return None
    line = request.body.decode("utf-8", "surrogateescape").partition("\n")[0].strip()
    parts = line.split(None, 2)
    if len(parts) < 2 or parts[0].upper() != "SIP/2.0" or not (len(parts[1]) == 3 and parts[1].isdigit()):
        return None
    return int(parts[1]), parts[2] if len(parts) > 2 else ""


def record_refer(core: Core, leg: Leg, now: float, request: Request, state: str, **fields: object) -> None:
    """Record that a REFER came, or what became of it, with the leg that it came from and where it wants us to go."""
    facts: dict[str, object] = {
        "state": state,
        "mode": core.config.refer,
        "refer_to": request.get("refer-to"),
        "referred_by": request.get("referred-by"),
        "cseq": request.cseq.number,
        **fields,
    }
    core.record("refer", now, leg.call.id, facts, leg.side, leg.call.attempt_number)
