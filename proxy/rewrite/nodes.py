"""A rule file as a tree of values that know where they stand, and the mistakes found in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

__all__ = ["Node", "NodeKind", "Problem", "Report", "Scope", "flow", "nearest"]

NodeKind = Literal["mapping", "list", "text", "number", "flag", "nothing"]

_WHAT_IT_IS: Final[dict[str, str]] = {
    "mapping": "a mapping",
    "list": "a list",
    "text": "text",
    "number": "a number",
    "flag": "true or false",
    "nothing": "nothing",
}
_TEXT_LIMIT: Final = 60
_WORDS_WORTH_COMPARING: Final = 100


class Node:
    """One value of a file.

    Attributes:
        kind: what it is.
        pairs: the keys and values of a mapping, in order.
        items: the entries of a list.
        text: a scalar as written, without its quotes.
        quoted: whether a scalar stands in quotes (or in a block).
        line, column: where it begins, both from 1 on.
    """

    __slots__ = ("column", "items", "kind", "line", "pairs", "quoted", "text")

    def __init__(self, kind: NodeKind, line: int, column: int, text: str = "", quoted: bool = False) -> None:
        self.kind: NodeKind = kind
        self.line = line
        self.column = column
        self.text = text
        self.quoted = quoted
        self.pairs: list[tuple[Node, Node]] = []
        self.items: list[Node] = []

    def __repr__(self) -> str:
        return f"<Node {self.kind} {self.text!r} at {self.line}:{self.column}>"

    @property
    def is_scalar(self) -> bool:
        """Whether it is text, a number or a flag."""
        return self.kind in ("text", "number", "flag")

    @property
    def described(self) -> str:
        """What stands there, for people: the offending text, or the kind of thing that it is."""
        if not self.is_scalar:
            return _WHAT_IT_IS[self.kind]
        text = self.text if len(self.text) <= _TEXT_LIMIT else f"{self.text[: _TEXT_LIMIT - 3]}..."
        return f'"{_printable(text)}"'

    def value(self, key: str) -> Node | None:
        """The value of a key of a mapping, or None."""
        for name, value in self.pairs:
            if name.text == key:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a rule file.

    Attributes:
        file: the file as it was named.
        line, column: where, from 1 on; 0 when the file could not be read at all.
        text: the offending text, quoted, or what stands there instead ("a list").
        what: what is wrong.
        allowed: what is allowed there; "" when that is plain.
        suggestion: the nearest valid word, or "".
        warning: whether the file can be used all the same.
    """

    file: str
    line: int
    column: int
    text: str
    what: str
    allowed: str = ""
    suggestion: str = ""
    warning: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        kind = "warning: " if self.warning else ""
        parts = [f"{place}: {kind}{self.text + ' ' if self.text else ''}{self.what}"]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.suggestion:
            parts.append(f'did you mean "{self.suggestion}"?')
        return "; ".join(parts)


class Scope:
    """Names that a rule, or a whole file, gives to values and uses.

    Attributes:
        given: each name with the node that gives it.
        used: each name with the nodes that use it.
    """

    __slots__ = ("given", "used")

    def __init__(self) -> None:
        self.given: dict[str, Node] = {}
        self.used: dict[str, list[Node]] = {}

    def give(self, name: str, node: Node) -> None:
        """A value of this name exists; the first one that gives it is remembered."""
        self.given.setdefault(name, node)

    def use(self, name: str, node: Node) -> None:
        """A value of this name is asked for."""
        self.used.setdefault(name, []).append(node)


class Report:
    """Collects the mistakes of one file, so that all of them are told at once, and the names that it uses.

    Attributes:
        source: the file.
        problems: the mistakes; warnings: what is doubtful, but can be used.
        captures: the named groups of the rule that is being read.
        variables: the variables of the file.
        settings, targets, sets: what the file asks of the settings and of other files.
    """

    __slots__ = ("captures", "problems", "sets", "settings", "source", "targets", "variables", "warnings")

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.captures = Scope()
        self.variables = Scope()
        self.settings = Scope()
        self.targets = Scope()
        self.sets = Scope()

    def add(self, node: Node, what: str, allowed: str = "", suggestion: str = "") -> None:
        """Note that what stands at `node` is wrong: its text followed by `what` makes a sentence."""
        self.problems.append(self.problem(node, what, allowed, suggestion))

    def warn(self, node: Node, what: str, allowed: str = "") -> None:
        """Note that what stands at `node` is hardly meant."""
        self.warnings.append(self.problem(node, what, allowed, warning=True))

    def problem(self, node: Node, what: str, allowed: str = "", suggestion: str = "", warning: bool = False) -> Problem:
        """A mistake at a node of this file."""
        return Problem(
            self.source, node.line, node.column, node.described, what, _printable(allowed), suggestion, warning
        )


def flow(node: Node) -> str:
    """A value as YAML on one line, for people."""
    if node.kind == "mapping":
        return "{" + ", ".join([f"{flow(key)}: {flow(value)}" for key, value in node.pairs]) + "}"
    if node.kind == "list":
        return "[" + ", ".join([flow(item) for item in node.items]) + "]"
    text = _printable(node.text)
    return f'"{text}"' if node.quoted and not text.replace("-", "").isalnum() else text


def nearest(word: str, words: Iterable[str]) -> str:
    """The word of `words` that `word` was probably meant to be, or ""."""
    if len(word) > _WORDS_WORTH_COMPARING:
        return ""
    by_key = {known.lower().replace("_", "-"): known for known in words}
    found = get_close_matches(word.lower().replace("_", "-"), list(by_key), n=1)
    return by_key[found[0]] if found else ""


def _printable(text: str) -> str:
    """Text that can stand on one line of a terminal."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text])
