"""Which addresses in an SDP mean nothing outside their own network."""

from ipaddress import IPv6Address
from typing import Final

_PRIVATE_FIRST: Final = frozenset(("", "10", "100", "127", "169", "172", "192"))


def is_private_address(addr: str) -> bool:
    """Tell whether `addr` is an address that a peer on the public Internet cannot reach.

    True for IPv4 0.0.0.0/8, 10/8, 127/8, 172.16/12, 192.168/16 (RFC 1918), 169.254/16 (RFC 3927), 100.64/10
    (RFC 6598), and for IPv6 ::, ::1, fc00::/7 (RFC 4193), fe80::/10, fec0::/10 and the IPv4-mapped form of the above.
    A host name, or anything that is no address, is not private. Brackets and a zone id around IPv6 are accepted.
    """
    if ":" in addr:
        return _is_private_ipv6(addr)
    if addr[: addr.find(".")].lstrip("0") not in _PRIVATE_FIRST:
        return False
    parts = addr.split(".")
    if len(parts) != 4:
        return False
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) <= 3 and int(part) <= 255):
            return False
    first = int(parts[0])
    second = int(parts[1])
    return (
        first in (0, 10, 127)
        or (first == 192 and second == 168)
        or (first == 172 and 16 <= second <= 31)
        or (first == 169 and second == 254)
        or (first == 100 and 64 <= second <= 127)
    )


def _is_private_ipv6(addr: str) -> bool:
    try:
        value = int(IPv6Address(addr.removeprefix("[").removesuffix("]").partition("%")[0]))
    except ValueError:
        return False
    if value >> 32 == 0xFFFF:  # IPv4-mapped, RFC 4291 2.5.5.2
        return is_private_address(".".join([str(value >> shift & 0xFF) for shift in (24, 16, 8, 0)]))
    first = value >> 112
    return value <= 1 or first & 0xFE00 == 0xFC00 or first & 0xFF80 == 0xFE80
