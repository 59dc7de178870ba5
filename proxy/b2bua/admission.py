"""Who may call, and when not to take a call; and the memory of rejections that a carrier repeats."""

from __future__ import annotations

from typing import Final

from proxy.b2bua.config import Network, StackConfig
from proxy.dialog.session_timer import accept_terms
from proxy.sip.errors import SipError
from proxy.sip.message import Request

__all__ = ["SUPPORTED", "RejectionCache", "admits", "check_invite", "check_require", "parse_address"]

SUPPORTED: Final = "100rel, norefersub, replaces, timer"
"""Option tags that we understand (RFC 3261 sections 20.32 and 20.37)."""

_SUPPORTED: Final = frozenset(SUPPORTED.split(", "))


def parse_address(text: str) -> tuple[int, int]:
    """An IP address literal as (version, number). Raises ValueError for anything else."""
    if ":" not in text:
        parts = text.split(".")
        if len(parts) != 4:
            raise ValueError(f"not an IP address: {text!r}")
        number = 0
        for part in parts:
            if not part.isdigit() or len(part) > 3 or int(part) > 255:
                raise ValueError(f"not an IP address: {text!r}")
            number = number << 8 | int(part)
        return 4, number
    text = text.partition("%")[0]
    head, double, tail = text.partition("::")
    left = head.split(":") if head else []
    right = tail.split(":") if tail else []
    if right and "." in right[-1]:
        _, v4 = parse_address(right.pop())
        right += [f"{v4 >> 16:x}", f"{v4 & 0xFFFF:x}"]
    groups = [*left, *["0"] * (8 - len(left) - len(right)), *right] if double else left
    if len(groups) != 8:
        raise ValueError(f"not an IP address: {text!r}")
    number = 0
    for group in groups:
        number = number << 16 | int(group, 16)
    if number >> 32 == 0xFFFF:
        return 4, number & 0xFFFFFFFF
    return 6, number


def admits(networks: tuple[Network, ...], address: str) -> bool:
    """Whether an address lies in one of the ranges."""
    try:
        version, number = parse_address(address)
    except ValueError:
        return False
    return any(net.version == version and net.first <= number <= net.last for net in networks)


def check_invite(request: Request, config: StackConfig, calls: int, draining: bool) -> None:
    """Check whether an INVITE from outside a dialog can become a call.

    Raises SipError: 483 at Max-Forwards 0, 406 when the caller takes no SDP, 420 for a required extension, 415 for a
    body that is no SDP, 422 for a session interval that is too short, 503 with Retry-After when draining or full.
    """
    hops = request.get("max-forwards")
    if hops is not None and int(hops) == 0:
        raise SipError(483, "Too Many Hops")
    check_require(request)
    if request.body and request.content_type not in ("application/sdp", ""):
        raise SipError(415, "Unsupported Media Type", (("Accept", "application/sdp"),))
    encoding = request.get("content-encoding")
    if request.body and encoding is not None and encoding.lower() != "identity":
        raise SipError(415, "Unsupported Media Type", (("Accept-Encoding", "identity"),))
    if not _takes_sdp(request):
        raise SipError(406, "Not Acceptable")
    accept_terms(request, config.min_se_s, config.session_expires_s)
    retry_after = (("Retry-After", str(config.retry_after_s)),)
    if draining:
        raise SipError(503, "Draining", retry_after)
    if calls >= config.max_calls:
        raise SipError(503, "All lines busy", retry_after)


def check_require(request: Request) -> None:
    """Check that we understand every extension that a request demands. Raises SipError 420 that names those we do not
    (RFC 3261 section 8.2.2.3)."""
    unknown = [tag for tag in request.values("require") if tag.strip().lower() not in _SUPPORTED]
    if unknown:
        raise SipError(420, "Bad Extension", (("Unsupported", ", ".join(unknown)),))


def _takes_sdp(request: Request) -> bool:
    """Whether the caller takes an answer in SDP (RFC 3261 section 20.1); without any Accept it does."""
    if request.get("accept") is None:
        return True
    ranges = [value.partition(";")[0].strip().lower() for value in request.values("accept")]
    return not {"application/sdp", "application/*", "*/*"}.isdisjoint(ranges)


class RejectionCache:
    """The last rejections by (Call-ID, From tag): a carrier that sends the very same INVITE again gets the same answer
    again, without another round of attempts. Entries live for `lifetime_s`, the oldest ones make room."""

    __slots__ = ("_entries", "capacity", "lifetime_s")

    def __init__(self, lifetime_s: float = 60.0, capacity: int = 10_000) -> None:
        self.lifetime_s = lifetime_s
        self.capacity = capacity
        self._entries: dict[tuple[str, str], tuple[float, int, str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def remember(self, key: tuple[str, str], answer: tuple[int, str], now: float) -> None:
        """Keep a rejection, and let go of those whose time is over."""
        entries = self._entries
        entries.pop(key, None)
        while entries:
            oldest = next(iter(entries))
            if entries[oldest][0] > now and len(entries) < self.capacity:
                break
            del entries[oldest]
        entries[key] = (now + self.lifetime_s, *answer)

    def purge(self, now: float) -> None:
        """Let go of those whose time is over."""
        for key in [key for key, entry in self._entries.items() if entry[0] <= now]:
            del self._entries[key]

    def find(self, key: tuple[str, str], now: float) -> tuple[int, str] | None:
        """The (status, reason) of a rejection that still counts, or None."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= now:
            return None
        return entry[1], entry[2]
