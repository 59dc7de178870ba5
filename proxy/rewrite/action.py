"""Actions, compiled, and the helpers that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from proxy.rewrite.engine import Include, Run
from proxy.rewrite.names import Names
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.schema import Kind
from proxy.sip.message import Header, canonical_key, has_break

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft

__all__ = ["Action", "ActionSpec", "finder", "maker", "with_value", "without_breaks"]

_SPACES_FOR_BREAKS: Final = str.maketrans("\r\n\x00", "   ")


class Action:
    """One compiled action.

    Attributes:
        run: does it.
        needs: the header keys of which one must be present for it to change anything; None when that can't be told.
        message: the only kind of message that it makes sense for (`request`, `response`); None for both.
        needs_sdp: whether it changes nothing where the body is no SDP.
        removes: the keys of header fields that are gone afterwards, whatever the message.
        keeps: a test of keys: header fields that do not pass are gone afterwards; None when all may stay.
        writes: the keys of header fields that it may bring in.
        ends: whether no later rule of the set is looked at after it. stops: whether that is so for every message.
        decides: whether it decides something of the call before its first attempt.
        include: the rule set that it calls.
    """

    __slots__ = (
        "decides",
        "ends",
        "include",
        "keeps",
        "message",
        "needs",
        "needs_sdp",
        "removes",
        "run",
        "stops",
        "writes",
    )

    def __init__(
        self,
        run: Run,
        needs: frozenset[str] | None = None,
        message: str | None = None,
        needs_sdp: bool = False,
        *,
        removes: frozenset[str] = frozenset(),
        keeps: Callable[[str], bool] | None = None,
        writes: frozenset[str] = frozenset(),
        ends: bool = False,
        stops: bool = False,
        decides: bool = False,
        include: Include | None = None,
    ) -> None:
        self.run = run
        self.needs = needs
        self.message = message
        self.needs_sdp = needs_sdp
        self.removes = removes
        self.keeps = keeps
        self.writes = writes
        self.ends = ends
        self.stops = stops
        self.decides = decides
        self.include = include


class ActionSpec:
    """What an action takes, and how it is compiled.

    Attributes:
        kind: the kind of its value.
        compile: makes the action of the value that `kind` read; it may report mistakes at the node and return None.
        help: what it does, for editors.
    """

    __slots__ = ("compile", "help", "kind")

    def __init__(self, kind: Kind[Any], compile: Callable[[Any, Node, Report], Action | None], help: str) -> None:
        self.kind = kind
        self.compile = compile
        self.help = help


def with_value(item: Header, value: str) -> Header:
    """The header field with another value, its name as written. Line breaks and NUL become spaces."""
    value = without_breaks(value)
    return Header(item.key, f"{item.name}: {value}", value)


def maker(name: str) -> Callable[[str], Header]:
    """A function that makes a header field of this name. Line breaks and NUL become spaces: none can be injected."""
    key, prefix = canonical_key(name), f"{name}: "

    def make(value: str) -> Header:
        value = without_breaks(value)
        return Header(key, prefix + value, value)

    return make


def without_breaks(text: str) -> str:
    """The text with spaces for line breaks and NUL."""
    return text.translate(_SPACES_FOR_BREAKS) if has_break(text) else text


def finder(names: Names) -> Callable[[Draft], list[int]]:
    """A function that tells where the header fields stand that are meant."""
    keys, test = names.keys, names.test()
    if names.globs:
        return lambda draft: [at for at, item in enumerate(draft.headers) if test(item.key)]
    return lambda draft: [at for at, item in enumerate(draft.headers) if item.key in keys]
