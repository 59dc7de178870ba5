"""Where a REFER wants a call to go, and by which way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.b2bua.admission import admits
from proxy.b2bua.config import Reach, Target
from proxy.b2bua.core import Core
from proxy.b2bua.leg import Leg, way_to
from proxy.b2bua.mapping import target_uri
from proxy.b2bua.refer import (
    Replaces,
    bare_uri,
    find_replaced,
    is_ours,
    parse_replaces,
    phone_number,
    uri_headers,
)
from proxy.b2bua.routing import fits
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.headers import NameAddr
from proxy.sip.message import Header, header
from proxy.sip.uri import Uri, parse_uri, unescape

if TYPE_CHECKING:
    from proxy.b2bua.call import Call

__all__ = ["Goal", "find_goal"]

_NAME: Final = "transfer"
_USUAL_PORTS: Final = frozenset((None, 5060, 5061))
_CARRIED: Final = frozenset(("subject", "priority", "user-to-user"))
"""Header fields beside X- ones that the header part of Refer-To may add (RFC 3261 section 19.1.5 warns of others)."""


class Goal:
    """The transfer target.

    Attributes:
        uri: the Request-URI.
        way: what is resolved to get there.
        target: the target of the settings that leads there, for its credentials and for the rules; else one made up.
        flow: a flow that leads there already, or None.
        routes: Route header fields.
        replaces: the Replaces value, "" for none.
        headers: what the header part of Refer-To adds.
    """

    __slots__ = ("flow", "headers", "replaces", "routes", "target", "uri", "way")

    def __init__(self, uri: Uri, way: Uri, target: Target) -> None:
        self.uri = uri
        self.way = way
        self.target = target
        self.flow: Flow | None = None
        self.routes: list[Header] = []
        self.replaces = ""
        self.headers: list[Header] = []


def find_goal(call: Call, leg: Leg, refer_to: NameAddr) -> Goal:
    """What a Refer-To of this leg's peer means. Raises SipError for what can't be done, or may not be."""
    core, uri = call.core, refer_to.uri
    method = uri.param("method")
    if method is not None and method.upper() != "INVITE":
        raise SipError(403, "Only an INVITE can be asked for")
    if uri.scheme == "tel":
        return _by_number(core, phone_number(uri))
    if uri.scheme not in ("sip", "sips"):
        raise SipError(416, "Unsupported URI Scheme")
    fields = uri_headers(uri)
    values = [value for name, value in fields if name.lower() == "replaces"]
    replaces = parse_replaces(values[0]) if values else None
    replaced = None if replaces is None else find_replaced(core, replaces)
    if replaces is not None and replaced is not None:
        goal = _replacing(call, replaces, replaced)
    elif is_ours(core, leg, uri):
        goal = _by_number(core, phone_number(uri))
    else:
        _check_reach(core.config.refer_reach, uri)
        goal = _plain(core, bare_uri(uri))
        goal.replaces = "" if replaces is None else str(replaces)
    for name, value in fields:
        if name.lower() in _CARRIED or name.lower().startswith("x-"):
            try:
                goal.headers.append(header(name, value))
            except ValueError:
                raise SipError(400, "Malformed header in Refer-To") from None
    return goal


def _check_reach(reach: Reach, uri: Uri) -> None:
    """Raise SipError 403 for a host that nobody may have us call: REFERs come from outside, and a URI can name any."""
    if reach.anywhere:
        return
    for name in (uri.host, uri.param("maddr")):
        if name is not None and not _reaches(reach, name.lower().rstrip(".").strip("[]"), uri.port):
            raise SipError(403, f"Refer-To host {name} not allowed")


def _reaches(reach: Reach, host: str, port: int | None) -> bool:
    usual = port in _USUAL_PORTS
    if any((usual or port == allowed) and fits(pattern, host) for pattern, allowed in reach.hosts):
        return True
    return usual and admits(reach.networks, host)


def _plain(core: Core, uri: Uri) -> Goal:
    """A URI that says itself where it leads. A target of the settings at the same host lends its credentials."""
    for target in core.config.targets.values():
        if target.username and target.uri.host.lower() == uri.host.lower():
            return Goal(uri, uri, target)
    return Goal(uri, uri, Target(_NAME, uri))


def _by_number(core: Core, number: str) -> Goal:
    """A number: at the host that is set for them, else by a route for it, else by a target that takes any number."""
    config, number = core.config, unescape(number)
    if not number.isascii() or not number.lstrip("+").replace("*", "").replace("#", "").isalnum():
        raise SipError(404, "No number that could be called")
    user = number.replace("#", "%23")
    if config.refer_tel_host:
        return _plain(core, parse_uri(f"sip:{user}@{config.refer_tel_host}"))
    names = [
        route.targets[0]
        for route in config.routes
        if route.dialed and not route.trunk and not route.header and route.targets and fits(route.dialed, number)
    ]
    names += [name for name, target in config.targets.items() if target.uri.user is None]
    if not names:
        raise SipError(404, "No route to this number")
    target = config.targets[names[0]]
    return Goal(parse_uri(target_uri(target.uri, user)), target.uri, target)


def _replacing(call: Call, replaces: Replaces, replaced: Leg) -> Goal:
    """The peer at the other end of another call of ours, which is to replace its dialog with us."""
    other = replaced.peer
    if replaced.call is call or other is None or not other.confirmed:
        raise SipError(400, "Replaces names no other call that is up")
    dialog = other.dialog
    text, routes = dialog.request_lines()
    uri = parse_uri(text)
    goal = Goal(uri, way_to(dialog, other.flow), Target(_NAME, uri))
    goal.flow = other.flow
    goal.routes = routes
    goal.replaces = str(Replaces(dialog.call_id, dialog.remote_tag, dialog.local_tag, replaces.early_only))
    return goal
