"""The kinds of values that a rule file is made of: each reads a node, or reports what is wrong with it.

`read` returns the value, or None after it has reported at least one mistake; it never stops at the first one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from proxy.rewrite.nodes import Node, Report, nearest

__all__ = [
    "Field",
    "Flag",
    "FlagOr",
    "IdKind",
    "Keys",
    "Kind",
    "Listing",
    "Many",
    "Mapped",
    "NumberTest",
    "Percent",
    "Schema",
    "StatusTest",
    "Switch",
    "Text",
    "Values",
    "Whole",
    "Word",
    "WordOr",
    "keys_once",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")

Schema = dict[str, object]
"""A JSON Schema, or a part of one."""

Values = dict[str, Any]
"""What `Keys` read, by key: of each present or defaulted field the value that its kind gave."""

_TEXT_LIMIT: Final = 4096
_BREAKS: Final = frozenset("\r\n\x00")


class Kind(Protocol[T_co]):
    """What may stand at a place.

    Attributes:
        allowed: what is allowed there, in a few words.
    """

    @property
    def allowed(self) -> str:
        """What is allowed there, in a few words."""

    def read(self, node: Node, report: Report) -> T_co | None:
        """The value, or None after a mistake was reported."""

    def schema(self) -> Schema:
        """What is allowed as JSON Schema (draft 2020-12), for editors."""


class Flag:
    """`true` or `false`."""

    allowed: str = "true or false"

    def read(self, node: Node, report: Report) -> bool | None:
        """Read a flag; the words that YAML 1.1 took for flags are refused with a hint."""
        if node.kind == "flag":
            return node.text.lower() == "true"
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(node.text.lower(), "")
        report.add(node, "is not a flag", self.allowed, meant)
        return None

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "boolean"}


class Switch(Flag):
    """`true`: an operation without settings; leave the key out where it is not wanted."""

    allowed: str = "true"

    def read(self, node: Node, report: Report) -> bool | None:
        """Read `true`."""
        value = super().read(node, report)
        if value is False:
            report.add(node, "does nothing; leave the key out", self.allowed)
            return None
        return value

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"const": True}


class FlagOr:
    """`true`, or something of another kind."""

    def __init__(self, other: Any) -> None:
        self.other = other
        self.allowed: str = f"true, or {other.allowed}"

    def read(self, node: Node, report: Report) -> Any:
        """Read `true` or the other kind."""
        return Switch().read(node, report) if node.kind == "flag" else self.other.read(node, report)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"anyOf": [{"const": True}, self.other.schema()]}


class Whole:
    """A whole number within limits."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high
        self.allowed = f"a whole number from {low} to {high}" if low < high else f"{low}"

    def read(self, node: Node, report: Report) -> int | None:
        """Read a number."""
        if node.kind != "number" or len(node.text) > 12:
            report.add(node, "is not a whole number", self.allowed)
            return None
        value = int(node.text)
        if not self.low <= value <= self.high:
            report.add(node, "is out of range", self.allowed)
            return None
        return value

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


class Percent:
    """A percentage: `10`, `"10%"`, `"0.5%"`; read as hundredths of a percent."""

    allowed: str = 'a percentage from 0 to 100, such as 10 or "0.5%"'

    def read(self, node: Node, report: Report) -> int | None:
        """Read a percentage."""
        text = node.text.replace(" ", "").removesuffix("%") if node.is_scalar else ""
        whole, _, fraction = text.partition(".")
        if whole.isdigit() and whole.isascii() and len(whole) < 4 and (fraction or "0").isdigit() and len(fraction) < 3:
            value = int(whole) * 100 + int(f"{fraction:0<2}")
            if value <= 10_000:
                return value
        report.add(node, "is not a percentage", self.allowed)
        return None

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"anyOf": [{"type": "number", "minimum": 0, "maximum": 100}, {"type": "string"}]}


class Text:
    """Text on one line; a number or flag counts as the text that was written."""

    allowed: str = "text on one line"

    def __init__(self, limit: int = _TEXT_LIMIT, allow_breaks: bool = False, allow_empty: bool = False) -> None:
        self.limit = limit
        self.allow_breaks = allow_breaks
        self.allow_empty = allow_empty

    def read(self, node: Node, report: Report) -> str | None:
        """Read text. Line breaks and NUL are refused, so that none can be injected into a message."""
        if not node.is_scalar:
            report.add(node, "stands where text must", self.allowed)
            return None
        if len(node.text) > self.limit:
            report.add(node, "is too long", f"up to {self.limit} characters")
            return None
        if not self.allow_breaks and not _BREAKS.isdisjoint(node.text):
            report.add(node, "has a line break or NUL in it", self.allowed)
            return None
        if not self.allow_empty and not node.text.strip():
            report.add(node, "is empty", self.allowed)
            return None
        return node.text

    def schema(self) -> Schema:
        """As JSON Schema: numbers and flags count as the text that was written."""
        return {"type": ["string", "number", "boolean"]}


class Word:
    """One of a few words."""

    def __init__(self, words: Iterable[str], what: str = "is not known here") -> None:
        self.words = tuple(words)
        self.what = what
        self.allowed = ", ".join(self.words)

    def read(self, node: Node, report: Report) -> str | None:
        """Read one of the words."""
        if node.is_scalar and node.text in self.words:
            return node.text
        report.add(node, self.what, self.allowed, nearest(node.text, self.words) if node.is_scalar else "")
        return None

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"enum": list(self.words)}


class WordOr(Generic[T]):
    """A special word, which is read as itself, or something of another kind."""

    def __init__(self, word: str, other: Kind[T]) -> None:
        self.word = word
        self.other = other
        self.allowed = f"{word}, or {other.allowed}"

    def read(self, node: Node, report: Report) -> str | T | None:
        """Read the word or the other kind."""
        if node.is_scalar and node.text == self.word:
            return self.word
        if node.kind == "text" and nearest(node.text, (self.word,)):
            report.add(node, "is not known here", self.allowed, self.word)
            return None
        return self.other.read(node, report)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"anyOf": [{"const": self.word}, self.other.schema()]}


class Listing(Generic[T]):
    """A list with at least one entry, all of one kind."""

    def __init__(self, item: Kind[T], limit: int = 10_000) -> None:
        self.item = item
        self.limit = limit
        self.allowed = f"a list of: {item.allowed}"

    def read(self, node: Node, report: Report) -> list[T] | None:
        """Read a list."""
        if node.kind != "list":
            report.add(node, "stands where a list must", self.allowed)
            return None
        if not node.items:
            report.add(node, "is empty", self.allowed)
            return None
        if len(node.items) > self.limit:
            report.add(node, "is too long", f"up to {self.limit} entries")
            return None
        values = [self.item.read(item, report) for item in node.items]
        good = [value for value in values if value is not None]
        return good if len(good) == len(values) else None

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "array", "items": self.item.schema(), "minItems": 1}


class Many(Generic[T]):
    """One of a kind, or a list of them."""

    def __init__(self, item: Kind[T]) -> None:
        self.item = item
        self.listing = Listing(item)
        self.allowed = f"{item.allowed}; one or a list"

    def read(self, node: Node, report: Report) -> list[T] | None:
        """Read one or several; always gives a list."""
        if node.kind == "list":
            return self.listing.read(node, report)
        value = self.item.read(node, report)
        return None if value is None else [value]

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"anyOf": [self.item.schema(), self.listing.schema()]}


class Mapped(Generic[T]):
    """A mapping whose keys its author chooses: each key of one kind, each value of another."""

    def __init__(self, key: Kind[str], value: Kind[T], limit: int = 100) -> None:
        self.key = key
        self.value = value
        self.limit = limit
        self.allowed = f"a mapping of {key.allowed} to {value.allowed}"

    def read(self, node: Node, report: Report) -> dict[str, T] | None:
        """Read a mapping with at least one key."""
        if node.kind != "mapping" or not node.pairs:
            report.add(node, "stands where a mapping must", self.allowed)
            return None
        if len(node.pairs) > self.limit:
            report.add(node, "is too long", f"up to {self.limit} keys")
            return None
        good = keys_once(node, report)
        values: dict[str, T] = {}
        for key_node, value_node in node.pairs:
            key, value = self.key.read(key_node, report), self.value.read(value_node, report)
            if key is None or value is None:
                good = False
            else:
                values[key] = value
        return values if good else None

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "object", "additionalProperties": self.value.schema(), "minProperties": 1}


class IdKind:
    """An id: words of lower-case letters and digits, joined by hyphens."""

    allowed: str = 'lower-case words joined by hyphens, such as "drop-record-route"'
    pattern: str = "[a-z0-9]+(?:-[a-z0-9]+)*"

    def read(self, node: Node, report: Report) -> str | None:
        """Read an id."""
        text = node.text
        if node.is_scalar and len(text) <= 80 and re.fullmatch(self.pattern, text):
            return text
        words = re.findall(r"[A-Za-z0-9]+", text) if node.is_scalar and len(text) <= 80 else []
        report.add(node, "is not an id", self.allowed, "-".join(words).lower())
        return None

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "string", "pattern": f"^{self.pattern}$", "maxLength": 80}


class NumberTest:
    """A condition on a number: `2`, `"2-4"`, `">=2"`, `"<3"`."""

    allowed: str = '2, "2-4", ">=2", ">2", "<=2" or "<2"'
    pattern: str = r"^\s*((>=|<=|>|<)?\s*[0-9]+|[0-9]+\s*-\s*[0-9]+)\s*$"

    def read(self, node: Node, report: Report) -> tuple[int, int] | None:
        """Read the range, first and last number included."""
        found = self.range_of(node.text.replace(" ", "")) if node.is_scalar else None
        if found is None or found[0] > found[1]:
            report.add(node, "is not a number or a range of numbers", self.allowed)
            return None
        return found

    def range_of(self, text: str) -> tuple[int, int] | None:
        """The range that a text means, or None."""
        top = 10**9
        for sign, low, high in ((">=", 0, top), ("<=", 0, 0), (">", 1, top), ("<", 0, -1)):
            if text.startswith(sign):
                number = _number(text[len(sign) :])
                if number is None:
                    return None
                return (number + low, top) if high == top else (0, number + high)
        first, dash, last = text.partition("-")
        low_end, high_end = _number(first), _number(last if dash else first)
        return None if low_end is None or high_end is None else (low_end, high_end)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": self.pattern}]}


class StatusTest(NumberTest):
    """A condition on a status code: `200`, `4xx`, `"200-299"`, `">=400"`."""

    allowed: str = '200, 4xx, "200-299" or ">=400", from 100 to 699'
    pattern: str = r"^\s*((>=|<=|>|<)?\s*[0-9]+|[0-9]+\s*-\s*[0-9]+|[1-6][xX][xX])\s*$"

    def range_of(self, text: str) -> tuple[int, int] | None:
        """The range that a text means, or None."""
        if len(text) == 3 and text[1:].lower() == "xx" and text[0] in "123456":
            hundreds = int(text[0]) * 100
            return hundreds, hundreds + 99
        found = super().range_of(text)
        if found is None or found[0] > 699 or found[1] < 100:
            return None
        return found if text[0] in "<>" or (found[0] >= 100 and found[1] <= 699) else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


class Field:
    """One key of a mapping: the kind of its value, whether it must stand there, and what it says, for editors."""

    def __init__(self, kind: Kind[object], required: bool = False, help: str = "") -> None:
        self.kind = kind
        self.required = required
        self.help = help

    def schema(self) -> Schema:
        """As JSON Schema."""
        schema = self.kind.schema()
        return {**schema, "description": self.help} if self.help else schema


def keys_once(node: Node, report: Report) -> bool:
    """Check that a mapping has each key once and only text for keys."""
    good = True
    seen: dict[str, int] = {}
    for key, _ in node.pairs:
        if not key.is_scalar:
            report.add(key, "can't be a key", "a word")
            good = False
        elif key.text in seen:
            report.add(key, f"stands twice; it stood on line {seen[key.text]} already")
            good = False
        else:
            seen[key.text] = key.line
    return good


class Keys:
    """A mapping with known keys."""

    def __init__(self, known: Mapping[str, Field], what: str = "is not a key here") -> None:
        self.known = dict(known)
        self.what = what
        self.allowed = f"a mapping with {', '.join(self.known)}"

    def read(self, node: Node, report: Report) -> Values | None:
        """Read a mapping; every unknown, doubled and missing key is reported.

        What stands under a misspelt key is checked as if it were under the right one.
        """
        if node.kind != "mapping":
            report.add(node, "stands where a mapping must", self.allowed)
            return None
        good = keys_once(node, report)
        values: Values = {}
        present = {key.text for key, _ in node.pairs}
        for key, value in node.pairs:
            field = self.known.get(key.text) if key.is_scalar else None
            if field is None:
                good = False
                if key.is_scalar:
                    meant = nearest(key.text, self.known)
                    report.add(key, self.what, ", ".join(self.known), meant)
                    if meant and node.value(meant) is None:
                        self.known[meant].kind.read(value, report)
                        present.add(meant)
                continue
            got = field.kind.read(value, report)
            if got is None:
                good = False
            else:
                values[key.text] = got
        for name, field in self.known.items():
            if field.required and name not in present:
                report.add(node, f'lacks "{name}"', field.kind.allowed)
                good = False
        return values if good else None

    def schema(self) -> Schema:
        """As JSON Schema."""
        required = [name for name, field in self.known.items() if field.required]
        return {
            "type": "object",
            "properties": {name: field.schema() for name, field in self.known.items()},
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }
