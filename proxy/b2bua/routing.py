"""Which targets a call may go to, and in which order: by trunk, number and headers; then priority, weight, health."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.b2bua.admission import admits
from proxy.b2bua.config import Route, StackConfig, Target, Trunk
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Request
from proxy.sip.uri import parse_uri

__all__ = ["choose_route", "fits", "order_targets", "trunk_of"]


def fits(pattern: str, text: str) -> bool:
    """Whether a text fits a pattern in which `*` stands for any run of characters."""
    pieces = pattern.split("*")
    if len(pieces) == 1:
        return pattern == text
    first, last = pieces[0], pieces[-1]
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in pieces[1:-1]:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def trunk_of(config: StackConfig, flow: Flow) -> Trunk | None:
    """The trunk that a source belongs to: the first one whose ranges and listener fit."""
    for trunk in config.trunks:
        if (not trunk.listener or trunk.listener == flow.listener) and admits(trunk.networks, flow.remote[0]):
            return trunk
    return None


def choose_route(config: StackConfig, trunk: str, request: Request) -> Route | None:
    """The first route that fits a call of this trunk; None when there are no routes at all.

    Raises SipError 404 when there are routes and none fits.
    """
    if not config.routes:
        return None
    dialed = parse_uri(request.uri).user or ""
    for route in config.routes:
        if route.trunk and route.trunk != trunk:
            continue
        if route.dialed and not fits(route.dialed, dialed):
            continue
        if route.header and not any(fits(route.header_value, value) for value in request.get_all(route.header)):
            continue
        return route
    raise SipError(404, "No route for this call")


def order_targets(targets: Sequence[Target], is_up: Callable[[str], bool], random: Callable[[], float]) -> list[Target]:
    """Targets in the order in which to try them: by priority (low first), within one by weight at random (RFC 2782's
    way), those that are down last."""
    up = [target for target in targets if is_up(target.name)]
    down = [target for target in targets if not is_up(target.name)]
    return [*_ordered(up, random), *_ordered(down, random)]


def _ordered(targets: list[Target], random: Callable[[], float]) -> list[Target]:
    ordered: list[Target] = []
    for priority in sorted({target.priority for target in targets}):
        left = [target for target in targets if target.priority == priority]
        while left:
            if len(left) == 1:
                ordered.append(left.pop())
                break
            point = random() * sum([target.weight for target in left])
            for target in left:
                point -= target.weight
                if point < 0:
                    break
            left.remove(target)
            ordered.append(target)
    return ordered
