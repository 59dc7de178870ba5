"""Header names in rules: what they mean, what is out of reach, and globs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.patterns import compile_pattern
from proxy.rewrite.schema import Schema
from proxy.sip.message import canonical_key, is_token

__all__ = [
    "ADDRESS_HEADERS",
    "IDENTITY",
    "METHODS",
    "OUT_OF_REACH",
    "REQUEST_URI",
    "AnyHeaderName",
    "HeaderName",
    "Names",
    "glob_test",
]

REQUEST_URI: Final = "request-uri"
"""Stands for the Request-URI where an action takes header names."""

METHODS: Final = (
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "INFO",
    "PRACK",
    "UPDATE",
    "REFER",
    "NOTIFY",
    "SUBSCRIBE",
    "MESSAGE",
    "PUBLISH",
    "REGISTER",
)

IDENTITY: Final = {
    "via": "Via is each hop's own transaction",
    "call-id": "each leg has its own Call-ID",
    "cseq": "each leg counts its own CSeq",
    "contact": "Contact is where we are reached in the dialog",
    "max-forwards": "Max-Forwards stops loops",
    "content-length": "Content-Length is counted from the body",
    "record-route": "Record-Route is the path of one leg's dialog",
    "route": "Route is the path of one leg's dialog",
}
"""Header fields that no rule reaches, and why."""

_ADDRESSES_OF_DIALOG: Final = frozenset(("from", "to"))
OUT_OF_REACH: Final = frozenset(IDENTITY) | _ADDRESSES_OF_DIALOG
"""Keys that no glob and no listing of all headers reaches."""

_WRITTEN_LATER: Final = frozenset(
    """
    allow supported require proxy-require unsupported user-agent server session-expires min-se rseq rack timestamp
    authorization proxy-authorization www-authenticate proxy-authenticate authentication-info
    proxy-authentication-info path service-route replaces join target-dialog in-reply-to
    """.split()
)
"""Header fields that speak for one leg's user agent: taken out or written after the rules."""

ADDRESS_HEADERS: Final = (
    "From",
    "To",
    "P-Asserted-Identity",
    "P-Preferred-Identity",
    "Remote-Party-ID",
    "Diversion",
    "History-Info",
    "Refer-To",
    "Referred-By",
    "Reply-To",
    "P-Called-Party-ID",
    "P-Associated-URI",
)
"""Header fields whose values are addresses (name-addr or addr-spec) and in reach of rules."""


class HeaderName:
    """A header name for an action that names one: the name as written.

    `writes`: the action gives the header a value, so that one which is written after the rules is refused too.
    `parts`: the action changes an address and leaves tags alone, so that From and To are in reach.
    """

    def __init__(self, *, writes: bool = False, parts: bool = False, globs: bool = False) -> None:
        self.writes = writes
        self.parts = parts
        self.globs = globs
        self.allowed = "a header name" + (" (* stands for any text)" if globs else "")

    def read(self, node: Node, report: Report) -> str | None:
        """Read a header name that the action may touch."""
        name = node.text
        if not node.is_scalar or not is_token(name if self.globs else name.replace("*", " ")):
            report.add(node, "is not a header name", self.allowed)
            return None
        if "*" in name:
            return name
        key = canonical_key(name)
        if key in IDENTITY:
            report.add(node, f"is out of reach of rules: {IDENTITY[key]}", "a header that is no leg's identity")
            return None
        if key in _ADDRESSES_OF_DIALOG and not self.parts:
            report.add(
                node,
                "is out of reach of this action: its tag is the identity of the dialog",
                "edit-address or replace, which leave the tag alone",
            )
            return None
        if self.writes and key in _WRITTEN_LATER:
            report.add(
                node,
                "is written by Trunkline alone: it speaks for one leg's user agent",
            )
            return None
        return name

    def schema(self) -> Schema:
        """As JSON Schema."""
        out_of_reach = [*IDENTITY, *(() if self.parts else _ADDRESSES_OF_DIALOG)]
        refused = "|".join(sorted(["".join([_either_case(char) for char in name]) for name in out_of_reach]))
        glob = r"\*" if self.globs else ""
        return {"type": "string", "pattern": rf"^(?!({refused})$)[A-Za-z0-9.!%_+`'~{glob}-]+$"}


def _either_case(char: str) -> str:
    return f"[{char.upper()}{char}]" if char.isalpha() else char


class AnyHeaderName:
    """A header name for a condition: any, with globs."""

    allowed: str = "a header name (* stands for any text)"

    def read(self, node: Node, report: Report) -> str | None:
        """Read a header name."""
        if not node.is_scalar or not is_token(node.text):
            report.add(node, "is not a header name", self.allowed)
            return None
        return node.text

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"type": "string", "pattern": r"^[A-Za-z0-9.!%*_+`'~-]+$"}


class Names:
    """A set of header names and globs as a rule lists them.

    Attributes:
        keys: the lower-case long forms of the names without a glob.
        globs: tests for the others.
        reaches_all: whether names out of reach count as well (conditions only look).
    """

    __slots__ = ("globs", "keys", "reaches_all")

    def __init__(self, names: list[str], reaches_all: bool = False) -> None:
        self.keys = frozenset([canonical_key(name) for name in names if "*" not in name])
        self.globs = tuple([glob_test(name.lower()) for name in names if "*" in name])
        self.reaches_all = reaches_all

    @property
    def needs(self) -> frozenset[str] | None:
        """The keys of which one must be present for anything to be found; None when that can't be told."""
        return None if self.globs else self.keys

    def test(self) -> Callable[[str], bool]:
        """A function that tells whether a key is meant."""
        if not self.globs:
            return self.keys.__contains__
        keys, globs, reaches_all = self.keys, self.globs, self.reaches_all

        def matches(key: str) -> bool:
            if key in keys:
                return True
            if not key or (key in OUT_OF_REACH and not reaches_all):
                return False
            return any(glob(key) for glob in globs)

        return matches


def glob_test(glob: str) -> Callable[[str], bool]:
    """A test for a text against a glob, in which `*` stands for any text."""
    if "*" not in glob:
        return glob.__eq__
    if glob == "*":
        return bool
    if glob.endswith("*") and "*" not in glob[:-1]:
        prefix = glob[:-1]
        return lambda text: text.startswith(prefix)
    pattern = compile_pattern("^" + ".*".join([re.escape(part) for part in glob.split("*")]) + "$")
    return lambda text: pattern.search(text.encode("utf-8", "surrogateescape")) is not None
