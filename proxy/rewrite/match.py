"""`when`: the conditions of a rule, compiled to tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from proxy.rewrite.names import METHODS, AnyHeaderName, Names, glob_test
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.patterns import Pattern, PatternKind
from proxy.rewrite.schema import Field, Flag, Keys, Listing, Many, NumberTest, StatusTest, Values, Word
from proxy.rewrite.templates import Render, Template, TemplateKind
from proxy.sdp.address import is_private_address
from proxy.sdp.session import Session

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = ["HEADER_TESTS", "SDP_FACTS", "WHEN_KEYS", "Condition", "Test", "When", "WhenKind"]

Test = Callable[["Draft", "Context"], bool]
"""Tells whether a condition holds for a message. May raise SdpError for a body that is no usable SDP."""

REQUEST: Final = "request"
RESPONSE: Final = "response"


class Condition:
    """One compiled condition.

    Attributes:
        test: whether it holds.
        needs: the header keys of which one must be present for it to hold; None when that can't be told.
    """

    __slots__ = ("needs", "test")

    def __init__(self, test: Test, needs: frozenset[str] | None = None) -> None:
        self.test = test
        self.needs = needs


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

    def as_condition(self) -> Condition:
        """All of it as one condition, for use inside `all`, `any` and `not`."""
        tests: list[Test] = []
        direction, message, methods = self.direction, self.message, self.methods
        if direction is not None:
            tests.append(lambda draft, context: context.direction == direction)
        if message is not None:
            is_response = message == RESPONSE
            tests.append(lambda draft, context: (draft.status != 0) is is_response)
        if methods is not None:
            tests.append(lambda draft, context: draft.method in methods)
        if self.needs_sdp:
            tests.append(lambda draft, context: draft.has_sdp())
        tests += [condition.test for condition in self.conditions]
        needs = next((condition.needs for condition in self.conditions if condition.needs is not None), None)
        return Condition(_all_of(tests), needs)


def _all_of(tests: Iterable[Test]) -> Test:
    every = tuple(tests)
    if len(every) == 1:
        return every[0]

    def holds(draft: Draft, context: Context) -> bool:
        return all(test(draft, context) for test in every)

    return holds


def _any_of(tests: Iterable[Test]) -> Test:
    every = tuple(tests)

    def holds(draft: Draft, context: Context) -> bool:
        return any(test(draft, context) for test in every)

    return holds


# Facts of the message and its surroundings


def _number_test(ranges: list[tuple[int, int]], number: Callable[[Draft, Context], int]) -> Test:
    if len(ranges) == 1:
        low, high = ranges[0]
        return lambda draft, context: low <= number(draft, context) <= high
    return _any_of([_number_test([one], number) for one in ranges])


def _status(ranges: list[tuple[int, int]]) -> Condition:
    return Condition(_number_test(ranges, lambda draft, context: draft.status))


def _attempt(ranges: list[tuple[int, int]]) -> Condition:
    return Condition(_number_test(ranges, lambda draft, context: context.attempt))


def _transport(names: list[str]) -> Condition:
    wanted = frozenset(names)
    return Condition(lambda draft, context: context.transport in wanted)


def _has_no_sdp(draft: Draft, context: Context) -> bool:
    return not draft.has_sdp()


# Header fields

HEADER_TESTS: Final = ("present", "absent", "equals", "contains", "matches")


class HeaderKind:
    """`{name: …, present|absent|equals|contains|matches: …}`: a condition on the instances of a header."""

    _fields: Final = Keys(
        {
            "name": Field(AnyHeaderName(), required=True),
            "present": Field(Flag()),
            "absent": Field(Flag()),
            "equals": Field(Many(TemplateKind(allow_empty=True))),
            "contains": Field(Many(TemplateKind())),
            "matches": Field(Many(PatternKind())),
        },
        "is not a test of a header",
    )
    allowed: str = f"a header's name and one of {', '.join(HEADER_TESTS)}"

    def read(self, node: Node, report: Report) -> Condition | None:
        """Read a condition on a header."""
        values = self._fields.read(node, report)
        if values is None:
            return None
        names = Names([values.pop("name")], reaches_all=True)
        if len(values) != 1:
            report.add(node, "needs exactly one test of the header", ", ".join(HEADER_TESTS))
            return None
        ((what, value),) = values.items()
        if what in ("present", "absent"):
            return _presence(names, wanted=value is (what == "present"))
        if what == "matches":
            return Condition(_some_value(names, _matching(value)), names.needs)
        return Condition(_some_value(names, _comparing(what, value)), names.needs)


def _presence(names: Names, wanted: bool) -> Condition:
    meant = names.test()
    if len(names.keys) == 1 and not names.globs:
        (key,) = names.keys
        return Condition(lambda draft, context: (draft.find(key) is not None) is wanted, names.keys if wanted else None)
    if wanted:
        return Condition(lambda draft, context: any(meant(item.key) for item in draft.headers), names.needs)
    return Condition(lambda draft, context: not any(meant(item.key) for item in draft.headers))


def _some_value(names: Names, test: Callable[[str, Draft, Context], bool]) -> Test:
    """Whether some instance of the header has a value that passes."""
    meant = names.test()

    def holds(draft: Draft, context: Context) -> bool:
        return any(meant(item.key) and test(item.value, draft, context) for item in draft.headers)

    return holds


def _matching(patterns: list[Pattern]) -> Callable[[str, Draft, Context], bool]:
    if len(patterns) == 1:
        found_in = patterns[0].found_in
        return lambda value, draft, context: found_in(value)
    return lambda value, draft, context: any(pattern.found_in(value) for pattern in patterns)


def _comparing(what: str, templates: list[Template]) -> Callable[[str, Draft, Context], bool]:
    renders: tuple[Render, ...] = tuple([template.render() for template in templates])

    def passes(value: str, draft: Draft, context: Context) -> bool:
        for render in renders:
            text = render(draft, context)
            if text is not None and (text == value if what == "equals" else text in value):
                return True
        return False

    return passes


# SDP


def _has_codec(names: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(
        codec.matches_any(names)
        for media in session.media
        if media.kind == "audio" and media.port
        for codec in media.codecs
    )


def _media(kinds: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(media.kind in kinds and media.port for media in session.media)


def _protocol(names: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(media.protocol in names and media.port for media in session.media)


def _crypto(suites: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(crypto.suite in suites for media in session.media for crypto in media.crypto)


def _direction(names: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(media.direction in names and media.port for media in session.media)


def _attribute(names: list[str]) -> Callable[[Session], bool]:
    tests = [glob_test(name) for name in names]
    return lambda session: any(
        test(name) for name, _ in session.attributes_between(0, len(session.lines)) for test in tests
    )


def _addresses(session: Session, places: list[str]) -> Iterable[str]:
    if "origin" in places:
        yield session.origin_address or ""
    if "connection" in places:
        yield session.connection_address or ""
        for media in session.media:
            yield media.connection_address or ""
    if "rtcp" in places:
        for line in session.lines:
            if line.startswith("a=rtcp:"):
                yield line.rstrip().rpartition(" ")[2]


def _private_address(places: list[str]) -> Callable[[Session], bool]:
    return lambda session: any(is_private_address(address) for address in _addresses(session, places))


class CodecName:
    """A codec as `PCMU`, `opus/48000` or `opus/48000/2`."""

    allowed: str = "a codec such as PCMU, telephone-event or opus/48000/2"

    def read(self, node: Node, report: Report) -> str | None:
        """Read a codec's name."""
        name, _, rest = node.text.partition("/")
        numbers = rest.split("/") if rest else []
        if not node.is_scalar or not is_sdp_token(name) or len(numbers) > 2 or not all(map(str.isdigit, numbers)):
            report.add(node, "is not a codec", self.allowed)
            return None
        return node.text


class SdpToken:
    """A word of an SDP line: a media type, an attribute's name, a crypto suite."""

    def __init__(self, allowed: str, globs: bool = False) -> None:
        self.allowed = allowed
        self.globs = globs

    def read(self, node: Node, report: Report) -> str | None:
        """Read a word."""
        if not node.is_scalar or not is_sdp_token(node.text if self.globs else node.text.replace("*", " ")):
            report.add(node, "can't stand in an SDP line here", self.allowed)
            return None
        return node.text


def is_sdp_token(text: str) -> bool:
    """Whether a text can be a token of an SDP line (RFC 8866 section 9)."""
    return bool(text) and text.isascii() and text.isprintable() and set('"(),/:;<=>?@[\\] ').isdisjoint(text)


DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")

SDP_FACTS: Final[dict[str, tuple[Field, Callable[[Any], Callable[[Session], bool]]]]] = {
    "has-codec": (Field(Many(CodecName())), _has_codec),
    "media": (Field(Many(SdpToken("audio, video, image, text, application or message"))), _media),
    "protocol": (
        Field(
            Many(
                Word(("RTP/AVP", "RTP/SAVP", "RTP/AVPF", "RTP/SAVPF", "UDP/TLS/RTP/SAVP", "UDP/TLS/RTP/SAVPF", "udptl"))
            )
        ),
        _protocol,
    ),
    "crypto": (Field(Many(SdpToken("a crypto suite such as AES_CM_128_HMAC_SHA1_80"))), _crypto),
    "direction": (Field(Many(Word(DIRECTIONS))), _direction),
    "attribute": (Field(Many(SdpToken("an attribute's name (* stands for any text)", globs=True))), _attribute),
    "private-address": (Field(Many(Word(("origin", "connection", "rtcp")))), _private_address),
}


class SdpKind:
    """`sdp`: facts of the session description; all must hold. Without SDP none does."""

    _fields: Final = Keys({name: field for name, (field, _) in SDP_FACTS.items()}, "is not a fact of the SDP")
    allowed: str = _fields.allowed

    def read(self, node: Node, report: Report) -> Condition | None:
        """Read the facts."""
        values = self._fields.read(node, report)
        if values is None:
            return None
        facts = tuple([SDP_FACTS[name][1](value) for name, value in values.items()])

        def test(draft: Draft, context: Context) -> bool:
            session = draft.session
            return session is not None and all(fact(session) for fact in facts)

        return Condition(test)


class MethodName:
    """A SIP method."""

    allowed: str = ", ".join(METHODS)
    _word: Final = Word(METHODS, "is not a method")

    def read(self, node: Node, report: Report) -> str | None:
        """Read a method."""
        return self._word.read(node, report)


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
        return When(values.get("direction"), message, methods, needs_sdp, tuple(_conditions(values)))


def _conditions(values: Values) -> Iterable[Condition]:
    """The conditions that must be tested on each message, the cheap ones first."""
    for name, compiled in _COMPILED.items():
        if name in values:
            yield compiled(values[name])
    if not values.get("has-sdp", True):
        yield Condition(_has_no_sdp)
    yield from values.get("header", ())
    for when in values.get("all", ()):
        yield when.as_condition()
    if "any" in values:
        inner = [when.as_condition() for when in values["any"]]
        needs = [condition.needs for condition in inner]
        known = [keys for keys in needs if keys is not None]
        union = frozenset().union(*known) if len(known) == len(needs) else None
        yield Condition(_any_of([condition.test for condition in inner]), union)
    if "not" in values:
        negated = values["not"].as_condition().test
        yield Condition(lambda draft, context: not negated(draft, context))
    if "sdp" in values:
        yield values["sdp"]


_COMPILED: Final[dict[str, Callable[[Any], Condition]]] = {
    "attempt": _attempt,
    "status": _status,
    "transport": _transport,
}

_WHEN: Final = Keys(
    {
        "direction": Field(Word(("a-to-b", "b-to-a"))),
        "message": Field(Word((REQUEST, RESPONSE))),
        "method": Field(Many(MethodName())),
        "status": Field(Many(StatusTest())),
        "attempt": Field(Many(NumberTest())),
        "transport": Field(Many(Word(("udp", "tcp", "tls")))),
        "header": Field(Many(HeaderKind())),
        "has-sdp": Field(Flag()),
        "sdp": Field(SdpKind()),
        "all": Field(Listing(WhenKind())),
        "any": Field(Listing(WhenKind())),
        "not": Field(WhenKind()),
    },
    "is not a condition",
)

WHEN_KEYS: Final = tuple(_WHEN.known)
"""The names of all conditions."""
