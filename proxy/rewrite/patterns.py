"""Patterns that users write: regular expressions over bytes, matched in linear time."""

from __future__ import annotations

import re
from typing import Any, Final

import re2

from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.schema import Schema, Text

__all__ = ["Pattern", "PatternKind", "compile_pattern", "required_literal"]


_GROWN_LIMIT: Final = 65_536
"""How long a text may become by a replacement, so that no rules can make one grow without bound."""


class Pattern:
    """A user's regular expression, matched over bytes in linear time, with a literal check in front.

    Attributes:
        text: as written.
        groups: how many groups it has.
        names: the group names and their numbers.
        literal: text that every match contains; "" when none is obvious.
    """

    __slots__ = ("_search", "compiled", "groups", "literal", "names", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.compiled = compile_pattern(text)
        self.groups: int = self.compiled.groups
        self.names: dict[str, int] = {
            name.decode("utf-8", "replace") if isinstance(name, bytes) else name: number
            for name, number in self.compiled.groupindex.items()
        }
        self.literal = required_literal(text)
        self._search = self.compiled.search

    def found_in(self, text: str) -> bool:
        """Whether the pattern matches somewhere in `text`."""
        return self.literal in text and self._search(text.encode("utf-8", "surrogateescape")) is not None

    def captured(self, text: str) -> dict[str, str] | None:
        """The named groups of the first match in `text`, those that took part in it; None without a match."""
        if self.literal not in text:
            return None
        match = self._search(text.encode("utf-8", "surrogateescape"))
        if match is None:
            return None
        groups = {name: match.group(number) for name, number in self.names.items()}
        return {name: data.decode("utf-8", "surrogateescape") for name, data in groups.items() if data is not None}

    def replace(self, text: str, parts: list[str | int], every: bool) -> str | None:
        """`text` with the first match, or every one, replaced by `parts` (text, or group numbers).

        None where nothing matches, or the text would become too long.
        """
        if self.literal not in text:
            return None
        data = text.encode("utf-8", "surrogateescape")
        out: list[bytes] = []
        at = 0
        for match in self.compiled.finditer(data):
            start, end = match.span()
            if start == end < len(data) and data[start] & 0xC0 == 0x80:
                continue  # between the bytes of one character
            out.append(data[at:start])
            for part in parts:
                group = match.group(part) if isinstance(part, int) else part.encode("utf-8", "surrogateescape")
                out.append(group or b"")
            at = end
            if not every:
                break
        if not out:
            return None
        out.append(data[at:])
        if sum(map(len, out)) > max(_GROWN_LIMIT, len(data)):
            return None
        return b"".join(out).decode("utf-8", "surrogateescape")


def compile_pattern(text: str) -> Any:
    """Compile a pattern over bytes, each byte a character, so that no text fails to match. Raises re2.error."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = 1 << 20
    return re2.compile(text.encode("utf-8", "surrogateescape"), options)


_OTHER_ESCAPE: Final = re.compile(r"\\[^\W_dDwWsSbB]")
_OPENING: Final = re.compile(r"\\[^A-Za-z0-9]|[^\\.^$*+?()\[\]{}|]")


def required_literal(pattern: str) -> str:
    """The longest run of characters that each match of a pattern must contain, where that is obvious; else ""."""
    if "|" in pattern or "(?" in pattern.replace("(?P<", "").replace("(?:", "") or _OTHER_ESCAPE.search(pattern):
        return ""
    best = run = ""
    depth = at = 0
    while at < len(pattern):
        token = ""
        if pattern[at] == "[":
            at = _end_of_class(pattern, at)
        elif pattern[at] == "{":
            at = max(pattern.find("}", at), at) + 1
        else:
            literal = _OPENING.match(pattern, at)
            token = literal.group() if literal and not depth else ""
            depth += {"(": 1, ")": -1}.get(pattern[at], 0)
            at = literal.end() if literal else at + (2 if pattern[at] == "\\" else 1)
        quantifier = pattern[at : at + 1]
        if token and quantifier not in ("*", "?", "{"):
            run += token[-1]
        if not token or quantifier in ("*", "?", "{", "+"):
            best, run = max(best, run, key=len), ""
    best = max(best, run, key=len)
    return best if len(best) > 1 else ""


def _end_of_class(pattern: str, at: int) -> int:
    """The position after the character class that begins at `at`."""
    at += 2 if pattern.startswith("[^", at) else 1
    at += pattern[at : at + 1] == "]"
    while at < len(pattern) and pattern[at] != "]":
        if pattern.startswith("[:", at):
            at = pattern.find(":]", at) + 1 or len(pattern)
        at += 2 if pattern[at : at + 1] == "\\" else 1
    return at + 1


def _beyond_ascii(pattern: str) -> str:
    """The first character beyond ASCII that would be torn into bytes: in a class, or with a quantifier; else ""."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "[":
            end = _end_of_class(pattern, at)
            inside = [one for one in pattern[at:end] if not one.isascii()]
            if inside:
                return inside[0]
            at = end
        elif char == "\\":
            at += 2
        elif not char.isascii() and pattern[at + 1 : at + 2] in ("*", "+", "?", "{"):
            return char
        else:
            at += 1
    return ""


class PatternKind:
    """A regular expression."""

    allowed: str = "a regular expression in RE2 syntax (no look-around, no back-references)"

    def __init__(self) -> None:
        self.text = Text(limit=1000)

    def read(self, node: Node, report: Report) -> Pattern | None:
        """Read and compile a pattern."""
        text = self.text.read(node, report)
        if text is None:
            return None
        beyond = _beyond_ascii(text)
        if beyond:
            report.add(node, f"has {beyond} in a class or before a quantifier; patterns match bytes", f"(?:{beyond})")
            return None
        try:
            return Pattern(text)
        except re2.error as error:
            why = error.args[0] if error.args else b""
            told = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
            report.add(node, f"is not a regular expression: {told}", self.allowed)
            return None

    def schema(self) -> Schema:
        """As JSON Schema."""
        return self.text.schema()
