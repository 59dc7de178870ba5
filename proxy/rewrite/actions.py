"""`do`: actions on header fields, addresses, status and the call, compiled to functions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from proxy.rewrite.engine import Context, RuleReject
from proxy.rewrite.names import IDENTITY, OUT_OF_REACH, AnyHeaderName, HeaderName, Names
from proxy.rewrite.nodes import Node, Report, nearest
from proxy.rewrite.patterns import Pattern, PatternKind
from proxy.rewrite.schema import Field, Flag, Keys, Kind, Many, Text, Values, Whole, Word, WordOr
from proxy.rewrite.templates import Render, Template, TemplateKind, uri_host
from proxy.sdp.address import is_private_address
from proxy.sip.errors import SipError
from proxy.sip.headers import parse_name_addr
from proxy.sip.message import SINGLETONS, Header, canonical_key
from proxy.sip.respond import REASON_PHRASES
from proxy.sip.uri import render_params

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft

__all__ = ["HEADER_ACTIONS", "Action", "ActionSpec", "Run", "with_value"]

Run = Callable[["Draft", "Context"], None]
"""Edits a draft. May raise RuleReject, and SdpError for a body that is no usable SDP."""

_BREAKS: Final = frozenset("\r\n\x00")
_SPACES_FOR_BREAKS: Final = str.maketrans("\r\n\x00", "   ")
_DESCRIBES_THE_BODY: Final = frozenset(("content-type", "content-encoding"))
_ALWAYS_KEPT: Final = frozenset(IDENTITY) | _DESCRIBES_THE_BODY | {"from", "to"}
_REPAIRED: Final = SINGLETONS - frozenset(IDENTITY) - {"from", "to"}


class Action:
    """One compiled action.

    Attributes:
        run: does it.
        needs: the header keys of which one must be present for it to change anything; None when that can't be told.
        message: the only kind of message that it makes sense for (`request`, `response`); None for both.
        needs_sdp: whether it changes nothing where the body is no SDP.
    """

    __slots__ = ("message", "needs", "needs_sdp", "run")

    def __init__(
        self,
        run: Run,
        needs: frozenset[str] | None = None,
        message: str | None = None,
        needs_sdp: bool = False,
    ) -> None:
        self.run = run
        self.needs = needs
        self.message = message
        self.needs_sdp = needs_sdp


class ActionSpec:
    """What an action takes, and how it is compiled.

    Attributes:
        kind: the kind of its value.
        compile: makes the action of the value that `kind` read; it may report mistakes at the node and return None.
    """

    __slots__ = ("compile", "kind")

    def __init__(self, kind: Kind[Any], compile: Callable[[Any, Node, Report], Action | None]) -> None:
        self.kind = kind
        self.compile = compile


def with_value(item: Header, value: str) -> Header:
    """The header field with another value, its name as written. Line breaks and NUL become spaces."""
    if not _BREAKS.isdisjoint(value):
        value = value.translate(_SPACES_FOR_BREAKS)
    return Header(item.name, item.key, value, f"{item.name.strip()}: {value}")


def _maker(name: str) -> Callable[[str], Header]:
    """A function that makes a header field of this name. Line breaks and NUL become spaces: none can be injected."""
    key, prefix = canonical_key(name), f"{name}: "

    def make(value: str) -> Header:
        if not _BREAKS.isdisjoint(value):
            value = value.translate(_SPACES_FOR_BREAKS)
        return Header(name, key, value, prefix + value)

    return make


# Whole header fields


def _remove(names: list[str], node: Node, report: Report) -> Action:
    meant = Names(names)
    return Action(_remover(meant.test()), meant.needs)


def _remover(meant: Callable[[str], bool]) -> Run:
    def run(draft: Draft, context: Context) -> None:
        gone = [at for at, item in enumerate(draft.headers) if meant(item.key)]
        for at in reversed(gone):
            draft.remove(at)

    return run


def _keep_only(names: list[str], node: Node, report: Report) -> Action:
    meant = Names(names).test()
    return Action(_remover(lambda key: key not in _ALWAYS_KEPT and not meant(key)))


def _set(values: Values, node: Node, report: Report) -> Action:
    name: str = values["header"]
    key = canonical_key(name)
    make = _maker(name)
    render = values["value"].render()

    def run(draft: Draft, context: Context) -> None:
        value = render(draft, context)
        if value is None:
            return
        places = draft.positions(key)
        if not places:
            draft.append(make(value))
            return
        for at in reversed(places[1:]):
            draft.remove(at)
        if draft.headers[places[0]].value != value:
            draft.replace(places[0], make(value))

    return Action(run)


def _add(values: Values, node: Node, report: Report) -> Action | None:
    name: str = values["header"]
    if canonical_key(name) in SINGLETONS:
        report.add(node, f"adds {name}, which may stand only once", "set, which replaces one that is there")
        return None
    make = _maker(name)
    on_top = values.get("at") == "top"
    render = values["value"].render()

    def run(draft: Draft, context: Context) -> None:
        value = render(draft, context)
        if value is None:
            return
        if on_top:
            draft.insert(0, make(value))
        else:
            draft.append(make(value))

    return Action(run)


def _rename(values: Values, node: Node, report: Report) -> Action:
    meant = Names([values["from"]])
    old, make = canonical_key(values["from"]), _maker(values["to"])

    def run(draft: Draft, context: Context) -> None:
        for at in draft.positions(old):
            draft.replace(at, make(draft.headers[at].value))

    return Action(run, meant.needs)


def _dedupe(names: str | list[str], node: Node, report: Report) -> Action:
    needs = None if isinstance(names, str) else Names(names).needs
    meant = _REPAIRED.__contains__ if isinstance(names, str) else Names(names).test()

    def run(draft: Draft, context: Context) -> None:
        keys = [item.key for item in draft.headers]
        if len(set(keys)) == len(keys):
            return
        for at in range(len(keys) - 1, 0, -1):
            key = keys[at]
            if meant(key) and keys.index(key) < at:
                draft.remove(at)

    return Action(run, needs)


def _unfold(names: list[str], node: Node, report: Report) -> Action:
    meant = Names(names)
    test = meant.test()

    def run(draft: Draft, context: Context) -> None:
        folded = [at for at, item in enumerate(draft.headers) if "\n" in item.line]
        for at in folded:
            item = draft.headers[at]
            if test(item.key):
                draft.replace(at, with_value(item, item.value))

    return Action(run, meant.needs)


# Find and replace


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
    with_node = node.value("with") or node
    parts = _replacement(values["with"], pattern, with_node, report)
    if parts is None:
        return None
    meant = names.test()
    fixed = [part for part in parts if isinstance(part, (str, int))]
    is_fixed = len(fixed) == len(parts)

    def filled(draft: Draft, context: Context) -> list[str | int] | None:
        if is_fixed:
            return fixed
        out: list[str | int] = []
        for part in parts:
            text = part if isinstance(part, (str, int)) else part(draft, context)
            if text is None:
                return None
            out.append(text)
        return out

    def run(draft: Draft, context: Context) -> None:
        for at, item in enumerate(draft.headers):
            if not meant(item.key) or not pattern.found_in(item.value):
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


def _replaced_address(value: str, pattern: Pattern, parts: list[str | int], every: bool) -> str | None:
    """From or To after a replacement in display name and URI; its parameters, the tag among them, are out of reach.

    None when nothing matches, or when what comes out would be no address any more.
    """
    try:
        address = parse_name_addr(value)
        changed = pattern.replace(str(address.replace(params=())), parts, every)
        if changed is None or not _BREAKS.isdisjoint(changed):
            return None
        after = parse_name_addr(changed + render_params(address.params))
        _ = after.uri
    except SipError:
        return None
    return str(after) if after.params == address.params else None


# Private addresses

_IPV4: Final = re.compile(r"(?<![\d.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\.?\d)")
_IPV6: Final = re.compile(r"\[?[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*\]?")


def _hide_private_addresses(values: Values, node: Node, report: Report) -> Action:
    names = Names(values.get("headers", ["*"]))
    spared = Names(values.get("except", []), reaches_all=True).test()
    meant = names.test()
    render = values["with"].render()

    def run(draft: Draft, context: Context) -> None:
        for at, item in enumerate(draft.headers):
            value = item.value
            if item.key in OUT_OF_REACH or not _may_hold_private_address(value):
                continue
            if not meant(item.key) or spared(item.key):
                continue
            host = uri_host(render(draft, context))
            if host is None:
                return
            hidden = _hide(value, host)
            if hidden != value:
                draft.replace(at, with_value(item, hidden))

    return Action(run, names.needs)


def _may_hold_private_address(value: str) -> bool:
    """Whether it is worth while to look for private addresses in a value: for most it is not, and this costs little."""
    if value.count(".") > 2 and (
        "0." in value or "192.168." in value or "172." in value or "127." in value or "169.254." in value
    ):
        return True
    return value.count(":") > 1 and ("::" in value or value.count(":") > 6)


def _hide(value: str, host: str) -> str:
    """A header value with `host` in place of every private IP address."""

    def instead(found: re.Match[str]) -> str:
        text = found.group()
        return host if is_private_address(text) else text

    return _IPV4.sub(instead, _IPV6.sub(instead, value) if value.count(":") > 1 else value)


# Status and call


def _set_status(values: Values, node: Node, report: Report) -> Action | None:
    status: int = values["status"]
    if 200 <= status <= 299 or status == 100:
        report.add(node.value("status") or node, "is not a status that a rule can set", "101 to 199, 300 to 699")
        return None
    reason: str = values.get("reason") or REASON_PHRASES.get(status) or "Unknown"

    def run(draft: Draft, context: Context) -> None:
        may_change = 100 < draft.status < 200 if status < 200 else draft.status >= 300
        if may_change:
            draft.set_status(status, reason)

    return Action(run, message="response")


def _reject(values: Values, node: Node, report: Report) -> Action:
    status: int = values["status"]
    reason: str = values.get("reason") or REASON_PHRASES.get(status) or "Rejected"
    silent: bool = values.get("silent", False)

    def run(draft: Draft, context: Context) -> None:
        if draft.method not in ("ACK", "CANCEL"):
            raise RuleReject(status, reason, draft.step, silent)

    return Action(run, message="request")


HEADER_ACTIONS: Final[dict[str, ActionSpec]] = {
    "remove": ActionSpec(Many(HeaderName(globs=True)), _remove),
    "keep-only": ActionSpec(Many(AnyHeaderName()), _keep_only),
    "set": ActionSpec(
        Keys({"header": Field(HeaderName(writes=True), True), "value": Field(TemplateKind(), True)}),
        _set,
    ),
    "add": ActionSpec(
        Keys(
            {
                "header": Field(HeaderName(writes=True), True),
                "value": Field(TemplateKind(), True),
                "at": Field(Word(("top", "bottom"))),
            }
        ),
        _add,
    ),
    "rename": ActionSpec(
        Keys({"from": Field(HeaderName(), True), "to": Field(HeaderName(writes=True), True)}),
        _rename,
    ),
    "replace": ActionSpec(
        Keys(
            {
                "header": Field(Many(HeaderName(globs=True, parts=True)), True),
                "pattern": Field(PatternKind(), True),
                "with": Field(ReplacementKind(allow_empty=True), True),
                "all": Field(Flag()),
            }
        ),
        _replace,
    ),
    "dedupe": ActionSpec(WordOr("singletons", Many(HeaderName(globs=True))), _dedupe),
    "unfold": ActionSpec(Many(HeaderName(globs=True)), _unfold),
    "hide-private-addresses": ActionSpec(
        Keys(
            {
                "headers": Field(Many(HeaderName(globs=True))),
                "except": Field(Many(HeaderName(globs=True))),
                "with": Field(TemplateKind(), True),
            }
        ),
        _hide_private_addresses,
    ),
    "set-status": ActionSpec(
        Keys({"status": Field(Whole(101, 699), True), "reason": Field(Text(limit=160))}), _set_status
    ),
    "reject": ActionSpec(
        Keys(
            {"status": Field(Whole(400, 699), True), "reason": Field(Text(limit=160)), "silent": Field(Flag())},
        ),
        _reject,
    ),
}
"""The actions on header fields, status and call, by the key that names them."""
