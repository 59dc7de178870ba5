"""`when`: the conditions of a rule, compiled to tests."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from proxy.rewrite.condition import Condition, all_of, any_of, number_test
from proxy.rewrite.header_tests import HEADER_TESTS, HeaderKind, RequestUriKind
from proxy.rewrite.names import METHODS, glob_test
from proxy.rewrite.nodes import Node, Report, flow
from proxy.rewrite.schema import (
    Field,
    Flag,
    Keys,
    Listing,
    Many,
    NumberTest,
    Percent,
    Schema,
    StatusTest,
    Text,
    Values,
    Word,
)
from proxy.rewrite.sdp_facts import SDP_FACTS, SdpFacts
from proxy.rewrite.templates import message_size
from proxy.sdp.session import Session

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = ["HEADER_TESTS", "SDP_FACTS", "WHEN_KEYS", "Condition", "MethodName", "When", "WhenKind", "when_schema"]

REQUEST: Final = "request"
RESPONSE: Final = "response"


class When:
    """The conditions of a rule: what is known before any message comes, and what must be tested on each.

    Attributes:
        direction, message: the only direction, the only kind (`request`, `response`) of message; None for both.
        methods: the only methods; None for all.
        needs_sdp: whether the body must be SDP.
        conditions: all must hold.
    """

    __slots__ = ("conditions", "direction", "message", "methods", "needs_sdp")

    def __init__(
        self,
        direction: str | None = None,
        message: str | None = None,
        methods: frozenset[str] | None = None,
        needs_sdp: bool = False,
        conditions: tuple[Condition, ...] = (),
    ) -> None:
        self.direction = direction
        self.message = message
        self.methods = methods
        self.needs_sdp = needs_sdp
        self.conditions = conditions

    def static_conditions(self) -> list[Condition]:
        """What is known before any message comes, as conditions."""
        direction, message, methods = self.direction, self.message, self.methods
        found: list[Condition] = []
        if direction is not None:
            told = f"direction: {direction}"
            found.append(Condition(lambda draft, context: context.direction == direction, label=lambda: told))
        if message is not None:
            kind = f"message: {message}"
            is_response = message == RESPONSE
            found.append(Condition(lambda draft, context: (draft.status != 0) is is_response, label=lambda: kind))
        if methods is not None:
            names = f"method: {', '.join(sorted(methods))}"
            found.append(Condition(lambda draft, context: draft.method in methods, label=lambda: names))
        if self.needs_sdp:
            found.append(Condition(lambda draft, context: draft.has_sdp(), label=lambda: "has-sdp: true"))
        return found

    def as_condition(self) -> Condition:
        """All of it as one condition, for use inside `all`, `any` and `not`."""
        tests = [condition.test for condition in (*self.static_conditions(), *self.conditions)]
        needs = next((condition.needs for condition in self.conditions if condition.needs is not None), None)
        return Condition(all_of(tests), needs)


# Facts of the message and its surroundings


def _status(ranges: list[tuple[int, int]]) -> Condition:
    return Condition(number_test(ranges, lambda draft, context: draft.status))


def _attempt(ranges: list[tuple[int, int]]) -> Condition:
    return Condition(number_test(ranges, lambda draft, context: context.attempt))


def _size(ranges: list[tuple[int, int]]) -> Condition:
    return Condition(number_test(ranges, lambda draft, context: message_size(draft)))


def _transport(names: list[str]) -> Condition:
    wanted = frozenset(names)
    return Condition(lambda draft, context: context.transport in wanted)


def _named(names: list[str], fact: Callable[[Context], str]) -> Condition:
    globs = [glob_test(name) for name in names]
    if len(globs) == 1:
        (glob,) = globs
        return Condition(lambda draft, context: glob(fact(context)))
    return Condition(lambda draft, context: any(test(fact(context)) for test in globs))


def _trunk(names: list[str]) -> Condition:
    return _named(names, lambda context: context.trunk)


def _target(names: list[str]) -> Condition:
    return _named(names, lambda context: context.target)


def _tag(names: list[str]) -> Condition:
    globs = [glob_test(name) for name in names]
    return Condition(lambda draft, context: any(glob(tag) for tag in context.tags or () for glob in globs))


Range = tuple[int, int, int]
"""An IP version, and the first and last address as numbers."""


def _source(ranges: list[Range]) -> Condition:
    def holds(draft: Draft, context: Context) -> bool:
        try:
            address = ipaddress.ip_address(context.source)
        except ValueError:
            return False
        number = int(address)
        return any(address.version == version and first <= number <= last for version, first, last in ranges)

    return Condition(holds)


class RangeKind:
    """A range of IP addresses."""

    allowed: str = "an IP address, or a range such as 192.0.2.0/24"

    def read(self, node: Node, report: Report) -> Range | None:
        """Read a range."""
        try:
            network = ipaddress.ip_network(node.text if node.is_scalar else "", strict=False)
        except ValueError:
            report.add(node, "is not a range of addresses", self.allowed)
            return None
        return network.version, int(network.network_address), int(network.broadcast_address)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "string", "pattern": r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"}


class ShareKind:
    """A share of calls: a percentage, or `{percent: …, group: …}`."""

    _percent: Final = Percent()
    _fields: Final = Keys(
        {
            "percent": Field(_percent, True, "The share of calls."),
            "group": Field(Text(limit=80), help="Shares of one group hit the same calls; others are independent."),
        }
    )
    allowed: str = f"{_percent.allowed}; or percent and group"

    def read(self, node: Node, report: Report) -> tuple[int, str] | None:
        """Read a share: hundredths of a percent, and the group."""
        if node.kind == "mapping":
            values = self._fields.read(node, report)
            return None if values is None else (values["percent"], values.get("group", ""))
        percent = self._percent.read(node, report)
        return None if percent is None else (percent, "")

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"anyOf": [self._percent.schema(), self._fields.schema()]}


def _share(share: tuple[int, str]) -> Condition:
    """Whether a call belongs to the share: by a hash of its id, so that it is the same for all its messages."""
    hundredths, group = share
    salt = group.encode("utf-8", "surrogateescape")
    return Condition(
        lambda draft, context: crc32(context.call_id.encode("utf-8", "surrogateescape") + salt) % 10_000 < hundredths
    )


def _has_no_sdp(draft: Draft, context: Context) -> bool:
    return not draft.has_sdp()


class SdpKind:
    """`sdp`: facts of the session description; all must hold. Without SDP none does."""

    _facts: Final = SdpFacts()
    allowed: str = _facts.allowed

    def read(self, node: Node, report: Report) -> Condition | None:
        """Read the facts."""
        holds: Callable[[Session], bool] | None = self._facts.read(node, report)
        if holds is None:
            return None

        def test(draft: Draft, context: Context) -> bool:
            session = draft.session
            return session is not None and holds(session)

        return Condition(test)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return self._facts.schema()


class MethodName:
    """A SIP method."""

    allowed: str = ", ".join(METHODS)
    _word: Final = Word(METHODS, "is not a method")

    def read(self, node: Node, report: Report) -> str | None:
        """Read a method."""
        return self._word.read(node, report)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return self._word.schema()


# The whole of `when`


class WhenKind:
    """`when`: a mapping of conditions that must all hold."""

    allowed: str = "a mapping of conditions"

    def read(self, node: Node, report: Report) -> When | None:
        """Read the conditions."""
        values = _WHEN.read(node, report)
        if values is None:
            return None
        message = values.get("message")
        if "status" in values:
            if message == REQUEST:
                report.add(node, "has a status, which no request has", "message: response")
                return None
            message = RESPONSE
        methods = frozenset(values["method"]) if "method" in values else None
        needs_sdp = values.get("has-sdp", False) or "sdp" in values
        return When(values.get("direction"), message, methods, needs_sdp, tuple(_conditions(values, node)))

    def schema(self) -> Schema:
        """As JSON Schema: conditions may hold conditions."""
        return {"$ref": "#/$defs/when"}


def when_schema() -> Schema:
    """`when` as JSON Schema, for the definitions."""
    return _WHEN.schema()


def _label(key: str, node: Node | None, at: int | None = None) -> Callable[[], str]:
    """What a condition says in the file; made only when someone asks."""

    def label() -> str:
        if node is None:
            return key
        shown = node.items[at] if at is not None and node.kind == "list" and at < len(node.items) else node
        return f"{key}: {flow(shown)}"

    return label


def _conditions(values: Values, node: Node) -> Iterable[Condition]:
    """The conditions that must be tested on each message, the cheap ones first."""
    for name, compiled in _COMPILED.items():
        if name in values:
            yield compiled(values[name]).named(_label(name, node.value(name)))
    if not values.get("has-sdp", True):
        yield Condition(_has_no_sdp, label=_label("has-sdp", node.value("has-sdp")))
    if "request-uri" in values:
        yield values["request-uri"].named(_label("request-uri", node.value("request-uri")))
    for at, condition in enumerate(values.get("header", ())):
        yield condition.named(_label("header", node.value("header"), at))
    for at, when in enumerate(values.get("all", ())):
        yield when.as_condition().named(_label("all", node.value("all"), at))
    if "any" in values:
        yield _some_of(values["any"]).named(_label("any", node.value("any")))
    if "not" in values:
        negated = values["not"].as_condition().test
        yield Condition(lambda draft, context: not negated(draft, context), label=_label("not", node.value("not")))
    if "sdp" in values:
        yield values["sdp"].named(_label("sdp", node.value("sdp")))


def _some_of(whens: list[When]) -> Condition:
    inner = [when.as_condition() for when in whens]
    needs = [condition.needs for condition in inner]
    known = [keys for keys in needs if keys is not None]
    union = frozenset().union(*known) if len(known) == len(needs) else None
    return Condition(any_of([condition.test for condition in inner]), union)


_COMPILED: Final[dict[str, Callable[[Any], Condition]]] = {
    "attempt": _attempt,
    "status": _status,
    "transport": _transport,
    "trunk": _trunk,
    "target": _target,
    "tag": _tag,
    "share": _share,
    "source": _source,
    "size": _size,
}

_WHEN: Final = Keys(
    {
        "direction": Field(Word(("a-to-b", "b-to-a")), help="a-to-b: from the trunk to the target."),
        "message": Field(Word((REQUEST, RESPONSE)), help="Requests or responses alone. Default: both."),
        "method": Field(Many(MethodName()), help="The method; of a response, that of its request."),
        "status": Field(Many(StatusTest()), help='The status of a response: 200, 4xx, "200-299", ">=400".'),
        "attempt": Field(Many(NumberTest()), help='The number of the attempt: 1, ">=2", "2-4".'),
        "transport": Field(Many(Word(("udp", "tcp", "tls"))), help="How the message came in."),
        "source": Field(Many(RangeKind()), help="The address that the message came from: 192.0.2.7, 192.0.2.0/24."),
        "trunk": Field(Many(Text(limit=200)), help="The name of the trunk, or user, that the call came from."),
        "target": Field(Many(Text(limit=200)), help="The name of the target of this attempt."),
        "tag": Field(Many(Text(limit=200)), help="A tag that a rule gave to the call."),
        "share": Field(ShareKind(), help="A share of calls, the same for all messages of a call: 10, or 0.5%."),
        "size": Field(Many(NumberTest()), help='The size of the message in bytes: ">1300".'),
        "request-uri": Field(RequestUriKind(), help="A condition on the Request-URI."),
        "header": Field(Many(HeaderKind()), help="A condition on a header, or a list that must hold together."),
        "has-sdp": Field(Flag(), help="Whether the body is SDP."),
        "sdp": Field(SdpKind(), help="Facts of the SDP, which must all hold."),
        "all": Field(Listing(WhenKind()), help="Conditions that must all hold."),
        "any": Field(Listing(WhenKind()), help="Conditions of which one must hold."),
        "not": Field(WhenKind(), help="Conditions that must not all hold."),
    },
    "is not a condition",
)

WHEN_KEYS: Final = tuple(_WHEN.known)
"""The names of all conditions."""
