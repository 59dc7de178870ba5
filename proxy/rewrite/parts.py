"""Parts of addresses: what conditions look at and what values are taken from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.rewrite.nodes import Node, Report, nearest
from proxy.sip.errors import SipError
from proxy.sip.headers import NameAddr, parse_name_addr, split_values
from proxy.sip.message import is_token

__all__ = ["ADDRESS_PARTS", "PART_NAMES", "AddressPart", "PartKind", "address_part", "parts_of", "plain_display"]

AddressPart = Callable[[NameAddr], "str | None"]
"""Takes a part from an address; None when it has none. May raise SipError for an address that can't be understood."""


def plain_display(address: NameAddr) -> str | None:
    """The display name without its quotes, or None."""
    text = address.display
    return text[1:-1].replace('\\"', '"').replace("\\\\", "\\") if text.startswith('"') else text or None


def _port(address: NameAddr) -> str | None:
    port = address.uri.port
    return None if port is None else str(port)


ADDRESS_PARTS: Final[dict[str, AddressPart]] = {
    "display-name": plain_display,
    "uri": lambda address: address.uri_text,
    "scheme": lambda address: address.uri.scheme,
    "user": lambda address: address.uri.user,
    "host": lambda address: address.uri.host or None,
    "port": _port,
}
"""The parts of an address by name, beside `param.NAME` and `header-param.NAME`."""

PART_NAMES: Final = (*ADDRESS_PARTS, "param.NAME", "header-param.NAME")


def address_part(name: str) -> AddressPart | None:
    """The part that a name stands for, `param.NAME` being a URI parameter and `header-param.NAME` one behind the
    address; None for an unknown name."""
    found = ADDRESS_PARTS.get(name)
    if found is not None:
        return found
    kind, _, parameter = name.partition(".")
    parameter = parameter.lower()
    if not is_token(parameter):
        return None
    if kind == "param":
        return lambda address: address.uri.param(parameter)
    if kind == "header-param":
        return lambda address: address.param(parameter)
    return None


def parts_of(value: str, part: AddressPart) -> list[str]:
    """The part of every address in a header value; addresses that can't be understood have none."""
    try:
        values = split_values(value)
    except SipError:
        return []
    found: list[str] = []
    for one in values:
        try:
            text = part(parse_name_addr(one))
        except SipError:
            continue
        if text is not None:
            found.append(text)
    return found


class PartKind:
    """The name of a part of an address."""

    allowed: str = ", ".join(PART_NAMES)

    def read(self, node: Node, report: Report) -> AddressPart | None:
        """Read a part's name."""
        part = address_part(node.text) if node.is_scalar else None
        if part is None:
            meant = nearest(node.text, ADDRESS_PARTS) if node.is_scalar else ""
            report.add(node, "is not a part of an address", self.allowed, meant)
        return part

    def schema(self) -> dict[str, object]:
        """As JSON Schema."""
        pattern = f"^({'|'.join(ADDRESS_PARTS)}|(header-)?param\\.[^ ]+)$"
        return {"anyOf": [{"enum": list(ADDRESS_PARTS)}, {"type": "string", "pattern": pattern}]}
