"""Filters: what a template may do to a value, `{header.X-Tenant|lower|default:none}`."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from proxy.rewrite.nodes import Node, Report, nearest
from proxy.rewrite.numbers import DialPlan, mask
from proxy.rewrite.parts import ADDRESS_PARTS, AddressPart, address_part, parts_of

__all__ = ["FILTERS", "Filter", "read_filter"]

Filter = Callable[["str | None"], "str | None"]
"""Gives another value for one; None: there is none."""

_UNRESERVED: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")
_HASH_DIGITS: Final = 12


def _of_text(change: Callable[[str], str | None]) -> Filter:
    """A filter that leaves a missing value missing."""
    return lambda text: None if text is None else change(text)


def _escape(text: str) -> str:
    return "".join(
        [chr(byte) if chr(byte) in _UNRESERVED else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape")]
    )


def _part(part: AddressPart) -> Filter:
    def first(text: str) -> str | None:
        found = parts_of(text, part)
        return found[0] if found else None

    return _of_text(first)


def _number(text: str, low: int, high: int) -> int | None:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else -1
    return value if low <= value <= high else None


def _masking(argument: str) -> Filter | None:
    keep = _number(argument or "4", 0, 100)
    return None if keep is None else _of_text(lambda text: mask(text, keep))


def _first(argument: str) -> Filter | None:
    count = _number(argument, 1, 1000)
    return None if count is None else _of_text(lambda text: text[:count])


def _last(argument: str) -> Filter | None:
    count = _number(argument, 1, 1000)
    return None if count is None else _of_text(lambda text: text[-count:])


def _e164(argument: str) -> Filter | None:
    if not (argument.isascii() and argument.isdigit() and 1 <= len(argument) <= 3):
        return None
    plan = DialPlan(argument)
    return _of_text(lambda text: plan.e164(text) or text)


def _parameter(kind: str) -> Callable[[str], Filter | None]:
    def make(argument: str) -> Filter | None:
        part = address_part(f"{kind}.{argument}")
        return None if part is None else _part(part)

    return make


def _default(argument: str) -> Filter:
    return lambda text: text or argument


def _plain(change: Callable[[str], str | None]) -> Callable[[str], Filter | None]:
    """A filter without an argument."""
    made = _of_text(change)
    return lambda argument: None if argument else made


def _whole(part: AddressPart) -> Callable[[str], Filter | None]:
    made = _part(part)
    return lambda argument: None if argument else made


FILTERS: Final[dict[str, tuple[str, Callable[[str], Filter | None]]]] = {
    "default": ("default:TEXT", _default),
    "lower": ("lower", _plain(str.lower)),
    "upper": ("upper", _plain(str.upper)),
    "trim": ("trim", _plain(lambda text: text.strip() or None)),
    "digits": ("digits", _plain(lambda text: "".join([char for char in text if char in "0123456789"]) or None)),
    "first": ("first:COUNT", _first),
    "last": ("last:COUNT", _last),
    "mask": ("mask or mask:COUNT", _masking),
    "hash": ("hash", _plain(lambda text: sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_HASH_DIGITS])),
    "escape": ("escape", _plain(_escape)),
    "e164": ("e164:COUNTRY", _e164),
    **{name: (name, _whole(part)) for name, part in ADDRESS_PARTS.items()},
    "param": ("param:NAME", _parameter("param")),
    "header-param": ("header-param:NAME", _parameter("header-param")),
}
"""Each filter: how it is written, and how it is made of its argument ("" for none); None for a wrong argument."""


def read_filter(text: str, node: Node, report: Report) -> Filter | None:
    """Read `name` or `name:argument`; a mistake is reported at `node`."""
    name, _, argument = text.partition(":")
    found = FILTERS.get(name)
    if found is None:
        allowed = ", ".join([form for form, _ in FILTERS.values()])
        report.add(node, f'has an unknown filter in it, "{text}"', allowed, nearest(name, FILTERS))
        return None
    form, make = found
    made = make(argument)
    if made is None:
        report.add(node, f'has a filter with a wrong argument in it, "{text}"', form)
    return made
