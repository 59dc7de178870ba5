"""`do`: actions on whole header fields, compiled to functions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.rewrite.action import Action, ActionSpec, finder, maker, with_value
from proxy.rewrite.engine import Context, Run
from proxy.rewrite.header_tests import INSTANCE, InstanceKind
from proxy.rewrite.names import IDENTITY, OUT_OF_REACH, AnyHeaderName, HeaderName, Names
from proxy.rewrite.nodes import Node, Report
from proxy.rewrite.schema import Field, Keys, Many, Schema, Values, Word, WordOr
from proxy.rewrite.templates import Render, TemplateKind, uri_host
from proxy.sdp.address import is_private_address
from proxy.sip.errors import SipError
from proxy.sip.headers import split_values
from proxy.sip.message import SINGLETONS, Header, canonical_key

if TYPE_CHECKING:
    from proxy.rewrite.draft import Draft

__all__ = ["HEADER_ACTIONS", "chosen"]

_DESCRIBES_THE_BODY: Final = frozenset(("content-type", "content-encoding"))
_ALWAYS_KEPT: Final = frozenset(IDENTITY) | _DESCRIBES_THE_BODY | {"from", "to"}
_REPAIRED: Final = SINGLETONS - frozenset(IDENTITY) - {"from", "to"}


class RemoveKind:
    """Header names to remove, or `{header: …, instance: …}` for one of several."""

    _names: Final = Many(HeaderName(globs=True))
    _one: Final = Keys({"header": Field(HeaderName(), True), "instance": Field(InstanceKind(), True)})
    allowed: str = f"{_names.allowed}; or header and instance"

    def read(self, node: Node, report: Report) -> list[str] | Values | None:
        """Read names, or a header and the instance."""
        return self._one.read(node, report) if node.kind == "mapping" else self._names.read(node, report)

    def schema(self) -> Schema:
        """As JSON Schema."""
        return {"anyOf": [self._names.schema(), self._one.schema()]}


def _remove(given: list[str] | Values, node: Node, report: Report) -> Action:
    if isinstance(given, dict):
        return _remove_instance(given["header"], given["instance"])
    meant = Names(given)
    return Action(_remover(finder(meant)), meant.needs, removes=meant.keys)


def _remove_instance(name: str, instance: int) -> Action:
    key = canonical_key(name)

    def run(draft: Draft, context: Context) -> None:
        for at in chosen(draft.positions(key), instance):
            draft.remove(at)

    return Action(run, frozenset((key,)))


def chosen(places: list[int], instance: int | None) -> list[int]:
    """The places of the instance that a rule means: all of them, or the one at an index, which may not be there."""
    if instance is None:
        return places
    return [places[instance]] if -len(places) <= instance < len(places) else []


def _remover(find: Callable[[Draft], list[int]]) -> Run:
    def run(draft: Draft, context: Context) -> None:
        for at in reversed(find(draft)):
            draft.remove(at)

    return run


def _keep_only(names: list[str], node: Node, report: Report) -> Action:
    meant = Names(names).test()

    def keeps(key: str) -> bool:
        return key in _ALWAYS_KEPT or meant(key)

    def others(draft: Draft) -> list[int]:
        return [at for at, item in enumerate(draft.headers) if not keeps(item.key)]

    return Action(_remover(others), keeps=keeps)


def _set(values: Values, node: Node, report: Report) -> Action:
    name: str = values["header"]
    key = canonical_key(name)
    make = maker(name)
    render = values["value"].render()
    instance: int | None = values.get("instance")
    if instance is not None:
        return _set_instance(key, make, render, instance)

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

    return Action(run, writes=frozenset((key,)))


def _set_instance(key: str, make: Callable[[str], Header], render: Render, instance: int) -> Action:
    def run(draft: Draft, context: Context) -> None:
        for at in chosen(draft.positions(key), instance):
            value = render(draft, context)
            if value is not None and draft.headers[at].value != value:
                draft.replace(at, make(value))

    return Action(run, frozenset((key,)), writes=frozenset((key,)))


def _add(values: Values, node: Node, report: Report) -> Action | None:
    name: str = values["header"]
    if canonical_key(name) in SINGLETONS:
        report.add(node, f"adds {name}, which may stand only once", "set, which replaces one that is there")
        return None
    make = maker(name)
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

    return Action(run, writes=frozenset((canonical_key(name),)))


def _rename(values: Values, node: Node, report: Report) -> Action:
    meant = Names([values["from"]])
    old, make = canonical_key(values["from"]), maker(values["to"])

    def run(draft: Draft, context: Context) -> None:
        for at in draft.positions(old):
            draft.replace(at, make(draft.headers[at].value))

    new = frozenset((canonical_key(values["to"]),))
    return Action(run, meant.needs, removes=frozenset((old,)) - new, writes=new)


def _dedupe(names: str | list[str], node: Node, report: Report) -> Action:
    needs = None if isinstance(names, str) else Names(names).needs
    meant = _REPAIRED.__contains__ if isinstance(names, str) else Names(names).test()

    def run(draft: Draft, context: Context) -> None:
        if not draft.may_repeat:
            return
        keys = [item.key for item in draft.headers]
        for at in range(len(keys) - 1, 0, -1):
            key = keys[at]
            if meant(key) and keys.index(key) < at:
                draft.remove(at)

    return Action(run, needs)


def _unfold(names: list[str], node: Node, report: Report) -> Action:
    meant = Names(names)
    test = meant.test()

    def run(draft: Draft, context: Context) -> None:
        # No action makes a fold.
        if not draft.source.may_fold:
            return
        folded = [at for at, item in enumerate(draft.headers) if "\n" in item.line]
        for at in folded:
            item = draft.headers[at]
            if test(item.key):
                draft.replace(at, with_value(item, item.value))

    return Action(run, meant.needs)


# One field or several lines, and their order


def _split(names: list[str], node: Node, report: Report) -> Action:
    meant = Names(names)
    test = meant.test()

    def run(draft: Draft, context: Context) -> None:
        for at in range(len(draft.headers) - 1, -1, -1):
            item = draft.headers[at]
            if not test(item.key) or "," not in item.value:
                continue
            try:
                values = [value for value in split_values(item.value) if value]
            except SipError:
                continue
            if len(values) > 1:
                draft.replace(at, with_value(item, values[0]))
                for more in range(1, len(values)):
                    draft.insert(at + more, with_value(item, values[more]))

    return Action(run, meant.needs)


def _join(names: list[str], node: Node, report: Report) -> Action:
    meant = Names(names)
    test = meant.test()

    def run(draft: Draft, context: Context) -> None:
        for key in dict.fromkeys([item.key for item in draft.headers if test(item.key)]):
            places = draft.positions(key)
            if len(places) < 2:
                continue
            values = [draft.headers[at].value for at in places]
            for at in reversed(places[1:]):
                draft.remove(at)
            draft.replace(places[0], with_value(draft.headers[places[0]], ", ".join(values)))

    return Action(run, meant.needs)


def _move(values: Values, node: Node, report: Report) -> Action | None:
    wanted = [name for name in ("to", "before", "after") if name in values]
    if len(wanted) != 1:
        report.add(node, "needs exactly one place", "to, before or after")
        return None
    names = Names(values["header"])
    find = finder(names)
    (place,) = wanted
    anchor = "" if place == "to" else canonical_key(values[place])

    def run(draft: Draft, context: Context) -> None:
        places = find(draft)
        anchors = draft.positions(anchor) if anchor else []
        if not places or (anchor and not anchors) or set(anchors) & set(places):
            return
        if place == "to":
            start = 0 if values["to"] == "top" else len(draft.headers)
        else:
            start = anchors[0] if place == "before" else anchors[-1] + 1
        start -= len([at for at in places if at < start])
        if places == list(range(start, start + len(places))):
            return
        moved = [draft.headers[at] for at in places]
        for at in reversed(places):
            draft.remove(at)
        for offset, item in enumerate(moved):
            draft.insert(start + offset, item)

    return Action(run, names.needs)


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
            if item.key in OUT_OF_REACH or not _may_hold_private_address(item.line):
                continue
            if not meant(item.key) or spared(item.key):
                continue
            value = item.value
            host = uri_host(render(draft, context))
            if host is None:
                return
            hidden = _hide(value, host)
            if hidden != value:
                draft.replace(at, with_value(item, hidden))

    return Action(run, names.needs)


_PRIVATE_STARTS: Final = ("10.", "192.168.", "172.", "127.", "169.254.", "100.", "0.", "00.", "000.", "010.")
"""How the private IPv4 addresses begin, with leading zeros too."""


def _may_hold_private_address(line: str) -> bool:
    """Whether it is worth while to look for private addresses in a header line: for most it is not, and this costs
    little."""
    if line.find(".") >= 0 and line.count(".") > 2:
        for start in _PRIVATE_STARTS:
            at = line.find(start)
            while at >= 0:
                if at == 0 or line[at - 1] not in "0123456789.":
                    return True
                at = line.find(start, at + 1)
    # The name's own colon is one of them.
    colons = 1 if line.rfind(":") == line.find(":") else line.count(":")
    return colons > 2 and ("::" in line or colons > 7)


def _hide(value: str, host: str) -> str:
    """A header value with `host` in place of every private IP address."""

    def instead(found: re.Match[str]) -> str:
        text = found.group()
        return host if is_private_address(text) else text

    return _IPV4.sub(instead, _IPV6.sub(instead, value) if value.count(":") > 1 else value)


HEADER_ACTIONS: Final[dict[str, ActionSpec]] = {
    "remove": ActionSpec(RemoveKind(), _remove, "Removes headers by name, or one instance of a header."),
    "keep-only": ActionSpec(
        Many(AnyHeaderName()), _keep_only, "Removes every header that is not listed, but for the message's identity."
    ),
    "set": ActionSpec(
        Keys(
            {
                "header": Field(HeaderName(writes=True), True),
                "value": Field(TemplateKind(), True),
                "instance": INSTANCE,
            }
        ),
        _set,
        "Gives a header one value, once; one that is not there is added.",
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
        "Adds a header beside those that are there.",
    ),
    "rename": ActionSpec(
        Keys({"from": Field(HeaderName(), True), "to": Field(HeaderName(writes=True), True)}),
        _rename,
        "Gives a header another name.",
    ),
    "dedupe": ActionSpec(
        WordOr("singletons", Many(HeaderName(globs=True))), _dedupe, "Leaves the first instance of a header only."
    ),
    "unfold": ActionSpec(Many(HeaderName(globs=True)), _unfold, "Puts a folded header on one line."),
    "split": ActionSpec(
        Many(HeaderName(globs=True)), _split, "Gives each value of a comma-separated header a line of its own."
    ),
    "join": ActionSpec(Many(HeaderName(globs=True)), _join, "Puts all lines of a header on one, separated by commas."),
    "move": ActionSpec(
        Keys(
            {
                "header": Field(Many(HeaderName(globs=True)), True),
                "to": Field(Word(("top", "bottom"))),
                "before": Field(AnyHeaderName()),
                "after": Field(AnyHeaderName()),
            }
        ),
        _move,
        "Moves headers to another place in the message.",
    ),
    "hide-private-addresses": ActionSpec(
        Keys(
            {
                "headers": Field(Many(HeaderName(globs=True))),
                "except": Field(Many(HeaderName(globs=True))),
                "with": Field(TemplateKind(), True),
            }
        ),
        _hide_private_addresses,
        "Replaces private IP addresses in the values of headers.",
    ),
}
"""The actions on whole header fields, by the key that names them."""
