"""Conditions on header fields and the Request-URI: their values, and the parts of addresses in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from proxy.rewrite.condition import Condition
from proxy.rewrite.engine import Test
from proxy.rewrite.names import AnyHeaderName, Names, glob_test
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.parts import AddressPart, PartKind, parts_of
from proxy.rewrite.patterns import Pattern, PatternKind
from proxy.rewrite.schema import Field, Flag, Keys, Many, NumberTest, Schema, Text, Values, Whole, WordOr
from proxy.rewrite.templates import Render, Template, TemplateKind
from proxy.sdp.address import is_private_address

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = ["HEADER_TESTS", "INSTANCE", "HeaderKind", "InstanceKind", "RequestUriKind"]

ValueTest = Callable[[str, "Draft", "Context"], bool]

HEADER_TESTS: Final = (
    "present",
    "absent",
    "count",
    "equals",
    "contains",
    "glob",
    "matches",
    "number",
    "private-address",
)
"""The tests of a header; exactly one stands in a condition."""


class InstanceKind:
    """Which of several instances: a number from 1 on, or `last`; read as an index."""

    _kind: Final = WordOr("last", Whole(1, 999))
    allowed: str = _kind.allowed

    def read(self, node: Node, report: Report) -> int | None:
        """Read an instance: 0 for the first, -1 for the last one."""
        value = self._kind.read(node, report)
        if value is None:
            return None
        return -1 if isinstance(value, str) else value - 1

    def schema(self) -> Schema:
        """As JSON Schema."""
        return self._kind.schema()


INSTANCE: Final = Field(InstanceKind(), help="Which instance of the header: 1, 2 ... or last. Default: any, or all.")

_VALUE_TESTS: Final[dict[str, Field]] = {
    "equals": Field(Many(TemplateKind(allow_empty=True)), help="The value is this text, or one of a list."),
    "contains": Field(Many(TemplateKind()), help="This text, or one of a list, is in the value."),
    "glob": Field(Many(Text()), help="The whole value fits this text, in which * stands for any text."),
    "matches": Field(Many(PatternKind()), help="This regular expression (RE2) is found in the value."),
    "number": Field(Many(NumberTest()), help="The value is a whole number in this range."),
    "private-address": Field(Flag(), help="The value is an IP address that the Internet does not route."),
}


def _value_test(what: str, value: Any, node: Node, report: Report) -> ValueTest:
    """The test of one value."""
    if what == "matches":
        return _matching(value, node, report)
    if what == "glob":
        globs = [glob_test(text) for text in value]
        return lambda text, draft, context: any(glob(text) for glob in globs)
    if what == "number":
        return _numeric(value)
    if what == "private-address":
        wanted: bool = value
        return lambda text, draft, context: is_private_address(text) is wanted
    return _comparing(what, value)


def _matching(patterns: list[Pattern], node: Node, report: Report) -> ValueTest:
    named = any(pattern.names for pattern in patterns)
    for pattern in patterns:
        for name in pattern.names:
            report.captures.give(name, node.value("matches") or node)
    if not named:
        if len(patterns) == 1:
            found_in = patterns[0].found_in
            return lambda value, draft, context: found_in(value)
        return lambda value, draft, context: any(pattern.found_in(value) for pattern in patterns)

    def capturing(value: str, draft: Draft, context: Context) -> bool:
        for pattern in patterns:
            groups = pattern.captured(value)
            if groups is not None:
                for name, text in groups.items():
                    context.keep(f"capture.{name}", text)
                return True
        return False

    return capturing


def _numeric(ranges: list[tuple[int, int]]) -> ValueTest:
    def passes(value: str, draft: Draft, context: Context) -> bool:
        text = value.strip()
        if not (text.isascii() and text.isdigit()) or len(text) > 15:
            return False
        number = int(text)
        return any(low <= number <= high for low, high in ranges)

    return passes


def _comparing(what: str, templates: list[Template]) -> ValueTest:
    renders: tuple[Render, ...] = tuple([template.render() for template in templates])

    def passes(value: str, draft: Draft, context: Context) -> bool:
        for render in renders:
            text = render(draft, context)
            if text is not None and (text == value if what == "equals" else text in value):
                return True
        return False

    return passes


class HeaderKind:
    """`{name: …, present|absent|count|equals|…: …}`: a condition on the instances of a header."""

    _fields: Final = Keys(
        {
            "name": Field(AnyHeaderName(), True, "The header; * stands for any text."),
            "instance": INSTANCE,
            "part": Field(PartKind(), help="Look at this part of each address in the value instead of the value."),
            "present": Field(Flag(), help="Whether the header (or the part) is there."),
            "absent": Field(Flag(), help="Whether it is not there."),
            "count": Field(Many(NumberTest()), help="How often the header is there."),
            **_VALUE_TESTS,
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
        instance: int | None = values.pop("instance", None)
        part: AddressPart | None = values.pop("part", None)
        if len(values) != 1:
            report.add(node, "needs exactly one test of the header", ", ".join(HEADER_TESTS))
            return None
        ((what, value),) = values.items()
        if what == "count":
            return _counting(names, value)
        if what in ("present", "absent"):
            wanted: bool = value is (what == "present")
            if instance is None and part is None:
                return _presence(names, wanted)
            found = _some_value(names, instance, part, lambda text, draft, context: True)
            if wanted:
                return Condition(found, names.needs)
            return Condition(lambda draft, context: not found(draft, context))
        return Condition(_some_value(names, instance, part, _value_test(what, value, node, report)), names.needs)

    def schema(self) -> Schema:
        """As JSON Schema."""
        tests: list[object] = [{"required": [test]} for test in HEADER_TESTS]
        return {**self._fields.schema(), "oneOf": tests}


def _presence(names: Names, wanted: bool) -> Condition:
    meant = names.test()
    if len(names.keys) == 1 and not names.globs:
        (key,) = names.keys
        return Condition(lambda draft, context: (draft.find(key) is not None) is wanted, names.keys if wanted else None)
    if wanted:
        return Condition(lambda draft, context: any(meant(item.key) for item in draft.headers), names.needs)
    return Condition(lambda draft, context: not any(meant(item.key) for item in draft.headers))


def _counting(names: Names, ranges: list[tuple[int, int]]) -> Condition:
    meant = names.test()

    def holds(draft: Draft, context: Context) -> bool:
        count = sum([1 for item in draft.headers if meant(item.key)])
        return any(low <= count <= high for low, high in ranges)

    return Condition(holds, names.needs if all(low > 0 for low, _ in ranges) else None)


def _some_value(names: Names, instance: int | None, part: AddressPart | None, test: ValueTest) -> Test:
    """Whether some instance of the header has a value, or a part of one, that passes."""
    meant = names.test()
    if instance is None and part is None:

        def holds(draft: Draft, context: Context) -> bool:
            return any(meant(item.key) and test(item.value, draft, context) for item in draft.headers)

        return holds

    def looked_at(draft: Draft) -> list[str]:
        values = [item.value for item in draft.headers if meant(item.key)]
        if instance is not None:
            values = values[instance:][:1] if instance >= 0 else values[instance:]
        return values if part is None else [text for value in values for text in parts_of(value, part)]

    return lambda draft, context: any(test(text, draft, context) for text in looked_at(draft))


class RequestUriKind:
    """`request-uri: {part: …, equals|glob|matches|…: …}`: a condition on the Request-URI of a request."""

    _fields: Final = Keys(
        {
            "part": Field(PartKind(), help="Look at this part of the URI instead of the whole."),
            "present": Field(Flag(), help="Whether the part is there."),
            "absent": Field(Flag(), help="Whether it is not there."),
            **_VALUE_TESTS,
        },
        "is not a test of the Request-URI",
    )
    _tests: Final = tuple([name for name in HEADER_TESTS if name != "count"])
    allowed: str = f"one of {', '.join(_tests)}"

    def read(self, node: Node, report: Report) -> Condition | None:
        """Read a condition on the Request-URI."""
        values: Values | None = self._fields.read(node, report)
        if values is None:
            return None
        part: AddressPart | None = values.pop("part", None)
        if len(values) != 1:
            report.add(node, "needs exactly one test of the Request-URI", ", ".join(self._tests))
            return None
        ((what, value),) = values.items()
        if what in ("present", "absent"):
            wanted: bool = value is (what == "present")
            return Condition(lambda draft, context: bool(draft.uri) and bool(_looked_at(draft, part)) is wanted)
        test = _value_test(what, value, node, report)
        return Condition(lambda draft, context: any(test(text, draft, context) for text in _looked_at(draft, part)))

    def schema(self) -> Schema:
        """As JSON Schema."""
        tests: list[object] = [{"required": [test]} for test in self._tests]
        return {**self._fields.schema(), "oneOf": tests}


def _looked_at(draft: Draft, part: AddressPart | None) -> list[str]:
    if not draft.uri:
        return []
    return [draft.uri] if part is None else parts_of(f"<{draft.uri}>", part)
