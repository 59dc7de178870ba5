"""From a SIP URI to the hops to try, best first (RFC 3263): NAPTR, SRV, then A and AAAA."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from proxy.sip.flow import Hop
from proxy.sip.uri import Uri
from proxy.transport.errors import ResolveError
from proxy.transport.lookup import LookupFailed, Lookups, SrvRecord

__all__ = ["Resolver", "numeric_hop"]

_DEFAULT_PORT: Final = {"udp": 5060, "tcp": 5060, "tls": 5061}
_SRV_PREFIX: Final = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}
_NAPTR_SERVICE: Final = {"SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls"}
_MAX_HOPS: Final = 16


def numeric_hop(uri: Uri) -> Hop | None:
    """The hop of a URI whose host (or `maddr`) is an IP address, which needs no look-up; else None."""
    address = _literal(uri.param("maddr") or uri.host)
    if address is None:
        return None
    try:
        transport = _transport(uri)
    except ResolveError:
        return None
    transport = transport or _default_transport(uri)
    return _hop(uri, transport, address, uri.port or _DEFAULT_PORT[transport])


@lru_cache(maxsize=1024)
def _literal(host: str) -> str | None:
    """An IP address in its canonical form; None for a name."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


class Resolver:
    """Finds the hops of URIs.

    Args:
        lookups: where records come from; None asks the system's nameservers.
        uniform: a random number from 0 up to 1, for the choice among SRV records of equal priority.
    """

    __slots__ = ("_lookups", "_uniform")

    def __init__(self, lookups: Lookups | None = None, *, uniform: Callable[[], float] = random.random) -> None:
        self._lookups = lookups or Lookups()
        self._uniform = uniform

    async def resolve(self, uri: Uri) -> list[Hop]:
        """The hops of a `sip` or `sips` URI, best first, at least one (RFC 3263 section 4).

        For TLS hops the server name is the domain of the URI, not what DNS made of it (RFC 5922 section 4).
        Raises ResolveError.
        """
        hop = numeric_hop(uri)
        if hop is not None:
            return [hop]
        if uri.scheme not in ("sip", "sips"):
            raise ResolveError(f"a {uri.scheme} URI names no host")
        transport = _transport(uri)
        host = (uri.param("maddr") or uri.host).lower().rstrip(".")
        try:
            if uri.port is not None or self._lookups.is_local(host):
                return await self._plain(uri, host, transport)
            return await self._by_service(uri, host, transport)
        except LookupFailed as error:
            raise ResolveError(str(error)) from error

    async def close(self) -> None:
        """Give up what is being looked up."""
        await self._lookups.close()

    async def _plain(self, uri: Uri, host: str, transport: str | None) -> list[Hop]:
        transport = transport or _default_transport(uri)
        port = uri.port or _DEFAULT_PORT[transport]
        return [_hop(uri, transport, address, port) for address in await self._lookups.addresses(host)]

    async def _by_service(self, uri: Uri, host: str, transport: str | None) -> list[Hop]:
        """By NAPTR where the transport is open, by SRV, and without either by address."""
        candidates = _candidates(uri, transport)
        # All questions that may be needed leave at once: a call waits for one answer, not for three in a row.
        first: list[Any] = [self._lookups.srv(f"{_SRV_PREFIX[name]}.{host}") for name in candidates]
        first.append(self._lookups.addresses(host))
        if transport is None:
            first.append(self._lookups.naptr(host))
        _raise_unexpected(await asyncio.gather(*first, return_exceptions=True))
        services: list[tuple[str, str]] = []
        if transport is None:
            services = await self._naptr(host, candidates)
        if not services:
            services = [(name, f"{_SRV_PREFIX[name]}.{host}") for name in candidates]
        hops: dict[Hop, None] = {}
        refused = False
        for name, owner in services:
            try:
                records = await self._lookups.srv(owner)
            except LookupFailed:
                continue
            refused = refused or any(not record.target for record in records)
            for record in _weighted([record for record in records if record.target], self._uniform):
                hops.update(dict.fromkeys(await self._srv_hops(uri, name, record)))
        if hops:
            return list(hops)[:_MAX_HOPS]
        if refused:
            raise ResolveError(f"{host} says by SRV that it takes no SIP")
        return await self._plain(uri, host, transport)

    async def _naptr(self, host: str, candidates: Sequence[str]) -> list[tuple[str, str]]:
        """The (transport, SRV name) pairs of a domain in its own order of preference."""
        try:
            records = await self._lookups.naptr(host)
        except LookupFailed:
            return []
        return [
            (_NAPTR_SERVICE[record.service], record.replacement)
            for record in sorted(records)
            if record.flags == "s" and record.replacement and _NAPTR_SERVICE.get(record.service) in candidates
        ]

    async def _srv_hops(self, uri: Uri, transport: str, record: SrvRecord) -> list[Hop]:
        try:
            addresses = await self._lookups.addresses(record.target)
        except LookupFailed:
            return []
        return [_hop(uri, transport, address, record.port) for address in addresses]


def _transport(uri: Uri) -> str | None:
    """The transport that a URI demands, or None. Raises ResolveError for one that is not spoken."""
    named = (uri.param("transport") or "").lower()
    if named not in ("", "udp", "tcp", "tls"):
        raise ResolveError(f"transport {named} is not spoken")
    if uri.port == 0:
        raise ResolveError("port 0 can't be called")
    if uri.scheme == "sips":
        if named == "udp":
            raise ResolveError("a sips URI can't go by UDP")
        return "tls" if named else None
    return named or None


def _default_transport(uri: Uri) -> str:
    return "tls" if uri.scheme == "sips" else "udp"


def _candidates(uri: Uri, transport: str | None) -> tuple[str, ...]:
    if transport is not None:
        return (transport,)
    return ("tls",) if uri.scheme == "sips" else ("udp", "tcp", "tls")


def _hop(uri: Uri, transport: str, host: str, port: int) -> Hop:
    return Hop(transport, host, port, uri.host.strip("[]").lower().rstrip(".") if transport == "tls" else "")


def _weighted(records: list[SrvRecord], uniform: Callable[[], float]) -> list[SrvRecord]:
    """SRV records in the order to try: by priority, and by weighted lot within one (RFC 2782)."""
    ordered: list[SrvRecord] = []
    for priority in sorted({record.priority for record in records}):
        left = [record for record in records if record.priority == priority]
        while left:
            ordered.append(left.pop(_draw([record.weight for record in left], uniform())))
    return ordered


def _draw(weights: list[int], lot: float) -> int:
    """The position that a lot from 0 up to 1 falls on; positions of weight 0 win only among themselves."""
    total = sum(weights)
    if not total:
        return int(lot * len(weights))
    mark = lot * total
    for at, weight in enumerate(weights):
        mark -= weight
        if mark < 0:
            return at
    return len(weights) - 1


def _raise_unexpected(results: Sequence[object]) -> None:
    """Failed look-ups are seen again, from the cache, by whoever needs them; anything else is a fault."""
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, LookupFailed):
            raise result
