"""`do`: find and replace in header values and bodies."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.rewrite.action import Action, ActionSpec, finder, with_value
from proxy.rewrite.actions import chosen
from proxy.rewrite.header_tests import INSTANCE
from proxy.rewrite.names import HeaderName, Names
from proxy.rewrite.nodes import Node, Report, nearest
from proxy.rewrite.patterns import Pattern, PatternKind
from proxy.rewrite.schema import Field, Flag, Keys, Many, Switch, Values
from proxy.rewrite.templates import Render, Template, TemplateKind
from proxy.sip.errors import SipError
from proxy.sip.headers import parse_name_addr
from proxy.sip.message import has_break
from proxy.sip.uri import render_params

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft
    from proxy.rewrite.engine import Context

__all__ = ["REPLACE_ACTIONS"]

_DESCRIBE_THE_BODY: Final = (
    "content-type",
    "content-encoding",
    "content-disposition",
    "content-language",
    "content-id",
)


class ReplacementKind(TemplateKind):
    r"""A template in which `\1` or `\g<name>` stands for a group of the pattern and `\0` for the whole match."""

    allowed: str = TemplateKind.allowed + r", and \1 or \g<name> for groups"


_GROUP: Final = re.compile(r"\\(?:([0-9])|g<([^>]*)>|(\\)|(.?))", re.DOTALL)


def _replacement(template: Template, pattern: Pattern, node: Node, report: Report) -> list[str | int | Render] | None:
    r"""Split the text parts of a template at `\1`, `\g<name>` and `\\`."""
    parts: list[str | int | Render] = []
    good = True
    for part in template.parts:
        if not isinstance(part, str):
            parts.append(part)
            continue
        at = 0
        for found in _GROUP.finditer(part):
            parts.append(part[at : found.start()])
            at = found.end()
            number, name, backslash, other = found.groups()
            if backslash:
                parts.append("\\")
            elif name is not None and name in pattern.names:
                parts.append(pattern.names[name])
            elif name is None and number is not None and int(number) <= pattern.groups:
                parts.append(int(number))
            else:
                _report_group(found.group(), name, other, pattern, node, report)
                good = False
        parts.append(part[at:])
    return [part for part in parts if part != ""] if good else None


def _report_group(text: str, name: str | None, other: str | None, pattern: Pattern, node: Node, report: Report) -> None:
    groups = [rf"\{number}" for number in range(min(pattern.groups, 9) + 1)]
    allowed = ", ".join([*groups, *[rf"\g<{known}>" for known in pattern.names]])
    if other is not None:
        report.add(node, rf'has "{text}" in it, which means nothing', rf"{allowed}, and \\ for a backslash")
    else:
        meant = nearest(name, pattern.names) if name else ""
        report.add(node, f'names a group that the pattern lacks, "{text}"', allowed, rf"\g<{meant}>" if meant else "")


def _replace(values: Values, node: Node, report: Report) -> Action | None:
    names, pattern, every = Names(values["header"]), values["pattern"], values.get("all", False)
    instance: int | None = values.get("instance")
    with_node = node.value("with") or node
    parts = _replacement(values["with"], pattern, with_node, report)
    if parts is None:
        return None
    find = finder(names)
    filled = _filler(parts)

    def run(draft: Draft, context: Context) -> None:
        for at in chosen(find(draft), instance):
            item = draft.headers[at]
            if not pattern.found_in(item.value):
                continue
            ready = filled(draft, context)
            if ready is None:
                return
            if item.key in ("from", "to"):
                value = _replaced_address(item.value, pattern, ready, every)
            else:
                value = pattern.replace(item.value, ready, every)
            if value is not None and value != item.value:
                draft.replace(at, with_value(item, value))

    return Action(run, names.needs)


def _filler(parts: list[str | int | Render]) -> Callable[[Draft, Context], list[str | int] | None]:
    """A function that fills in the values of a replacement; it gives None when one is missing."""
    fixed = [part for part in parts if isinstance(part, (str, int))]
    if len(fixed) == len(parts):
        return lambda draft, context: fixed

    def filled(draft: Draft, context: Context) -> list[str | int] | None:
        out: list[str | int] = []
        for part in parts:
            text = part if isinstance(part, (str, int)) else part(draft, context)
            if text is None:
                return None
            out.append(text)
        return out

    return filled


def _replaced_address(value: str, pattern: Pattern, parts: list[str | int], every: bool) -> str | None:
    """From or To after a replacement in display name and URI; its parameters, the tag among them, are out of reach.

    None when nothing matches, or when what comes out would be no address any more.
    """
    try:
        address = parse_name_addr(value)
        changed = pattern.replace(str(address.replace(params=())), parts, every)
        if changed is None or has_break(changed):
            return None
        after = parse_name_addr(changed + render_params(address.params))
        _ = after.uri
    except SipError:
        return None
    return str(after) if after.params == address.params else None


# Bodies that are no SDP


def _replace_body(values: Values, node: Node, report: Report) -> Action | None:
    parts = _replacement(values["with"], values["pattern"], node.value("with") or node, report)
    if parts is None:
        return None
    pattern, every = values["pattern"], values.get("all", False)
    filled = _filler(parts)

    def run(draft: Draft, context: Context) -> None:
        if draft.has_sdp() or not draft.body:
            return
        ready = filled(draft, context)
        if ready is None:
            return
        body = pattern.replace(draft.body.decode("utf-8", "surrogateescape"), ready, every)
        if body is not None:
            draft.set_body(body.encode("utf-8", "surrogateescape"))

    return Action(run)


def _remove_body(given: bool, node: Node, report: Report) -> Action:
    def run(draft: Draft, context: Context) -> None:
        if not draft.body:
            return
        draft.set_body(b"")
        for key in _DESCRIBE_THE_BODY:
            draft.remove_all(key)

    return Action(run)


REPLACE_ACTIONS: Final[dict[str, ActionSpec]] = {
    "replace": ActionSpec(
        Keys(
            {
                "header": Field(Many(HeaderName(globs=True, parts=True)), True),
                "pattern": Field(PatternKind(), True),
                "with": Field(ReplacementKind(allow_empty=True), True),
                "all": Field(Flag()),
                "instance": INSTANCE,
            }
        ),
        _replace,
        "Replaces what a pattern finds in the values of headers.",
    ),
    "replace-body": ActionSpec(
        Keys(
            {
                "pattern": Field(PatternKind(), True),
                "with": Field(ReplacementKind(allow_empty=True), True),
                "all": Field(Flag()),
            }
        ),
        _replace_body,
        "Replaces what a pattern finds in a body that is no SDP.",
    ),
    "remove-body": ActionSpec(Switch(), _remove_body, "Removes the body and the headers that describe it."),
}
"""The actions that find and replace, by the key that names them."""
