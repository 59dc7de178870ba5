"""Templates: text with values of the message and the call in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.rewrite.filters import Filter, read_filter
from proxy.rewrite.nodes import Node, Report, nearest
from proxy.rewrite.parts import ADDRESS_PARTS, AddressPart
from proxy.rewrite.schema import Text
from proxy.sdp.session import Media, Session
from proxy.sip.errors import SipError
from proxy.sip.headers import NameAddr, parse_name_addr
from proxy.sip.message import canonical_key, is_token

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = [
    "FAMILIES",
    "MEDIA_KINDS",
    "SDP_VALUES",
    "VARIABLES",
    "Render",
    "Template",
    "TemplateKind",
    "message_size",
    "uri_host",
]

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
            value = "".join(out)
            return value if len(value) <= VALUE_LIMIT else None

        return rendered


def _address(key: str, part: AddressPart) -> Render:
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


def _request_uri(part: AddressPart) -> Render:
    def value(draft: Draft, context: Context) -> str | None:
        try:
            return part(NameAddr("", draft.uri)) if draft.uri else None
        except SipError:
            return None

    return value


def _header_value(key: str, instance: int) -> Render:
    """The value of a header: of its first instance, the one of this number from 1 on, or from -1 on the last ones."""
    if instance == 1:

        def first(draft: Draft, context: Context) -> str | None:
            item = draft.find(key)
            return None if item is None else item.value

        return first
    at = instance - 1 if instance > 0 else instance

    def value(draft: Draft, context: Context) -> str | None:
        places = draft.positions(key)
        return draft.headers[places[at]].value if -len(places) <= at < len(places) else None

    return value


def _kept(name: str) -> Render:
    """A value that a condition or an action of these rules has put aside."""
    return lambda draft, context: None if context.values is None else context.values.get(name)


def _setting(name: str) -> Render:
    return lambda draft, context: context.settings.get(name)


def _sdp_value(kind: str, fact: Callable[[Media], str | None]) -> Render:
    def value(draft: Draft, context: Context) -> str | None:
        session = draft.session
        if session is None:
            return None
        for media in session.media:
            if media.kind == kind:
                return fact(media)
        return None

    return value


def _of_session(fact: Callable[[Session], str | None]) -> Render:
    def value(draft: Draft, context: Context) -> str | None:
        session = draft.session
        return None if session is None else fact(session)

    return value


def message_size(draft: Draft) -> int:
    """The size of a message in bytes as it stands now."""
    lines = sum([len(item.line.encode("utf-8", "surrogateescape")) + 2 for item in draft.headers])
    return len(draft.start_line.encode("utf-8", "surrogateescape")) + 4 + lines + len(draft.body)


SDP_VALUES: Final[dict[str, Callable[[Media], str | None]]] = {
    "address": lambda media: media.connection_address,
    "port": lambda media: str(media.port),
    "protocol": lambda media: media.protocol,
    "direction": lambda media: media.direction,
    "codecs": lambda media: ",".join([codec.name for codec in media.codecs if codec.name]) or None,
    "ptime": lambda media: None if media.ptime is None else str(media.ptime),
}
"""What `{sdp.audio.NAME}` can say of a stream, and `{sdp.video.NAME}`, `{sdp.image.NAME}`, `{sdp.text.NAME}`."""

VALUE_LIMIT: Final = 8192
"""The longest value that a template makes of several parts, so that no rules can make one grow without bound."""

MEDIA_KINDS: Final = ("audio", "video", "image", "text", "application", "message")

VARIABLES: Final[dict[str, Render]] = {
    "call.id": lambda draft, context: context.call_id,
    "attempt": lambda draft, context: str(context.attempt),
    "direction": lambda draft, context: context.direction,
    "method": lambda draft, context: draft.method,
    "status": lambda draft, context: str(draft.status) if draft.status else None,
    "reason": lambda draft, context: draft.reason or None,
    "size": lambda draft, context: str(message_size(draft)),
    "local.host": lambda draft, context: context.local_host,
    "trunk": lambda draft, context: context.trunk or None,
    "target": lambda draft, context: context.target or None,
    "target.host": lambda draft, context: context.target_host or None,
    "transport": lambda draft, context: context.transport,
    "source": lambda draft, context: context.source,
    **{
        f"{name}.{part}": _address(name, ADDRESS_PARTS[part])
        for name in ("from", "to")
        for part in ("user", "host", "display-name", "uri")
    },
    **{f"request-uri.{part}": _request_uri(ADDRESS_PARTS[part]) for part in ("user", "host", "uri")},
    "sdp.origin": _of_session(lambda session: session.origin_address),
    "sdp.session-name": _of_session(lambda session: session.session_name),
}
"""The values that a template can name, beside those of `FAMILIES`."""

FAMILIES: Final = (
    "header.NAME",
    "header.NAME[2]",
    "header.NAME[last]",
    "sdp.audio.NAME",
    "capture.NAME",
    "var.NAME",
    "setting.NAME",
)
"""The values that a template can name with a word of its author in them."""

_INSTANCE: Final = re.compile(r"(.+)\[(?:([1-9][0-9]{0,2})|last)\]")


class TemplateKind:
    """Text in which `{name}` stands for a value, and `{{` and `}}` for braces."""

    allowed: str = (
        "text with values from: "
        + ", ".join([f"{{{name}}}" for name in (*VARIABLES, *FAMILIES)])
        + ", each with filters such as {source|mask}"
    )

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

    def variable(self, text: str, node: Node, report: Report) -> Render | None:
        """The value that a name stands for, with its filters."""
        name, *filters = text.split("|")
        found = self.named(name.strip(), node, report)
        if found is None:
            return None
        for one in filters:
            made = read_filter(one, node, report)
            if made is None:
                return None
            found = _filtered(found, made)
        return found

    def named(self, name: str, node: Node, report: Report) -> Render | None:
        """The value that a name stands for."""
        found = VARIABLES.get(name)
        if found is not None:
            return found
        family, _, rest = name.partition(".")
        if family == "header":
            indexed = _INSTANCE.fullmatch(rest)
            instance = 1 if indexed is None else int(indexed[2] or -1)
            rest = rest if indexed is None else indexed[1]
            if is_token(rest):
                return _header_value(canonical_key(rest), instance)
        elif family == "sdp":
            kind, _, fact = rest.partition(".")
            if kind in MEDIA_KINDS and fact in SDP_VALUES:
                return _sdp_value(kind, SDP_VALUES[fact])
        elif family in ("capture", "var", "setting") and rest.isprintable() and rest:
            if family == "setting":
                report.settings.use(rest, node)
                return _setting(rest)
            (report.captures if family == "capture" else report.variables).use(rest, node)
            return _kept(name)
        media = [f"sdp.{kind}.{fact}" for kind in MEDIA_KINDS[:2] for fact in SDP_VALUES]
        meant = nearest(name, [*VARIABLES, *media, "header.NAME"])
        allowed = ", ".join([f"{{{word}}}" for word in (*VARIABLES, *FAMILIES)])
        report.add(node, f"names an unknown value, {{{name}}}", allowed, f"{{{meant}}}" if meant else "")
        return None

    def schema(self) -> dict[str, object]:
        """As JSON Schema."""
        return self.text.schema()


def _filtered(render: Render, change: Filter) -> Render:
    return lambda draft, context: change(render(draft, context))


_IPV6_CHARACTERS: Final = frozenset("0123456789abcdefABCDEF:.")


def uri_host(text: str | None) -> str | None:
    """A host as it stands in a URI, an IPv6 address in brackets; None for what can't be a host."""
    if not text or not text.isascii():
        return None
    if ":" in text:
        inner = text[1:-1] if text[0] == "[" and text[-1] == "]" else text
        return f"[{inner}]" if inner.count(":") > 1 and _IPV6_CHARACTERS.issuperset(inner) else None
    return text if text.replace(".", "").replace("-", "").replace("_", "").isalnum() else None
