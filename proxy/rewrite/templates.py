"""Templates: text with values of the message and the call in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.rewrite.nodes import Node, Report, nearest
from proxy.rewrite.schema import Text
from proxy.sip.errors import SipError
from proxy.sip.headers import NameAddr, parse_name_addr
from proxy.sip.message import canonical_key, is_token

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = ["VARIABLES", "Render", "Template", "TemplateKind", "uri_host"]

Render = Callable[["Draft", "Context"], "str | None"]
"""Gives a template's text for a message; None when a value that it needs is not there."""


class Template:
    """Text with values in it.

    Attributes:
        text: as written.
        parts: in order, text or functions that give it.
        constant: the text when there is nothing to fill in; else None.
    """

    __slots__ = ("constant", "parts", "text")

    def __init__(self, text: str, parts: list[str | Render]) -> None:
        self.text = text
        self.parts = parts
        self.constant = (
            "".join([part for part in parts if isinstance(part, str)])
            if all(isinstance(part, str) for part in parts)
            else None
        )

    def render(self) -> Render:
        """The function that gives the text for a message."""
        constant = self.constant
        if constant is not None:
            return lambda draft, context: constant
        if len(self.parts) == 1 and not isinstance(self.parts[0], str):
            return self.parts[0]
        parts = tuple(self.parts)

        def rendered(draft: Draft, context: Context) -> str | None:
            out: list[str] = []
            for part in parts:
                text = part if isinstance(part, str) else part(draft, context)
                if text is None:
                    return None
                out.append(text)
            return "".join(out)

        return rendered


def _address(key: str, part: Callable[[NameAddr], str | None]) -> Render:
    """A variable that is a part of From or To."""

    def value(draft: Draft, context: Context) -> str | None:
        item = draft.find(key)
        if item is None:
            return None
        try:
            return part(parse_name_addr(item.value))
        except SipError:
            return None

    return value


def _header_value(key: str) -> Render:
    def value(draft: Draft, context: Context) -> str | None:
        item = draft.find(key)
        return None if item is None else item.value

    return value


def _display(address: NameAddr) -> str | None:
    text = address.display
    return text[1:-1].replace('\\"', '"').replace("\\\\", "\\") if text.startswith('"') else text or None


VARIABLES: Final[dict[str, Render]] = {
    "call.id": lambda draft, context: context.call_id,
    "attempt": lambda draft, context: str(context.attempt),
    "direction": lambda draft, context: context.direction,
    "method": lambda draft, context: draft.method,
    "local.host": lambda draft, context: context.local_host,
    "target.host": lambda draft, context: context.target_host,
    "transport": lambda draft, context: context.transport,
    "source": lambda draft, context: context.source,
    "from.user": _address("from", lambda address: address.uri.user),
    "from.host": _address("from", lambda address: address.uri.host or None),
    "from.display-name": _address("from", _display),
    "to.user": _address("to", lambda address: address.uri.user),
    "to.host": _address("to", lambda address: address.uri.host or None),
    "to.display-name": _address("to", _display),
}
"""The values that a template can name, beside `{header.NAME}`."""


class TemplateKind:
    """Text in which `{name}` stands for a value, and `{{` and `}}` for braces."""

    allowed: str = "text with values from: " + ", ".join([f"{{{name}}}" for name in VARIABLES]) + ", {header.NAME}"

    def __init__(self, allow_empty: bool = False) -> None:
        self.text = Text(allow_empty=allow_empty)

    def read(self, node: Node, report: Report) -> Template | None:
        """Read a template."""
        text = self.text.read(node, report)
        if text is None:
            return None
        parts = self.parts(text, node, report)
        return None if parts is None else Template(text, parts)

    def parts(self, text: str, node: Node, report: Report) -> list[str | Render] | None:
        """Split a template; every unknown name is reported at `node`."""
        parts: list[str | Render] = []
        literal = ""
        good = True
        at = 0
        while at < len(text):
            if text[at : at + 2] in ("{{", "}}"):
                literal += text[at]
                at += 2
                continue
            if text[at] == "}":
                report.add(node, 'has a "}" without its "{"', "}} for a brace in the text")
                return None
            if text[at] != "{":
                literal += text[at]
                at += 1
                continue
            end = text.find("}", at)
            if end < 0:
                report.add(node, 'has a "{" without its "}"', "{{ for a brace in the text")
                return None
            variable = self.variable(text[at + 1 : end], node, report)
            good = good and variable is not None
            if literal:
                parts.append(literal)
                literal = ""
            if variable is not None:
                parts.append(variable)
            at = end + 1
        if literal:
            parts.append(literal)
        return parts if good else None

    def variable(self, name: str, node: Node, report: Report) -> Render | None:
        """The value that a name stands for."""
        found = VARIABLES.get(name)
        if found is not None:
            return found
        if name.startswith("header.") and is_token(name[7:]):
            return _header_value(canonical_key(name[7:]))
        known = [*VARIABLES, "header.NAME"]
        allowed = ", ".join([f"{{{word}}}" for word in known])
        meant = nearest(name, known)
        report.add(node, f"names an unknown value, {{{name}}}", allowed, f"{{{meant}}}" if meant else "")
        return None


_IPV6_CHARACTERS: Final = frozenset("0123456789abcdefABCDEF:.")


def uri_host(text: str | None) -> str | None:
    """A host as it stands in a URI, an IPv6 address in brackets; None for what can't be a host."""
    if not text or not text.isascii():
        return None
    if ":" in text:
        inner = text[1:-1] if text[0] == "[" and text[-1] == "]" else text
        return f"[{inner}]" if inner.count(":") > 1 and _IPV6_CHARACTERS.issuperset(inner) else None
    return text if text.replace(".", "").replace("-", "").replace("_", "").isalnum() else None
