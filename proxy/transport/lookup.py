"""DNS records and host addresses, cached by their time to live; the last good answer serves while DNS is down."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
import structlog

from proxy.audit.throttle import Throttle
from proxy.transport.errors import reason_of

__all__ = ["LookupFailed", "Lookups", "NaptrRecord", "SrvRecord"]

_MIN_TTL_S: Final = 5.0
_MAX_TTL_S: Final = 3600.0
_NEGATIVE_TTL_S: Final = 10.0
_FAILURE_TTL_S: Final = 2.0
_STALE_TTL_S: Final = 5.0
_STALE_LIMIT_S: Final = 24 * 3600.0
_MAX_ENTRIES: Final = 4096

_log = structlog.get_logger(__name__)


class LookupFailed(Exception):
    """No answer, neither yes nor no."""


class SrvRecord(NamedTuple):
    """One SRV record (RFC 2782)."""

    priority: int
    weight: int
    port: int
    target: str


class NaptrRecord(NamedTuple):
    """One NAPTR record (RFC 3403); `service` in upper case, `flags` in lower case."""

    order: int
    preference: int
    flags: str
    service: str
    replacement: str


class _Entry:
    """A cached answer: records, or the reason why there are none."""

    __slots__ = ("error", "expires", "fresh_until", "records")

    def __init__(self, records: tuple[Any, ...], expires: float, error: str = "") -> None:
        self.records = records
        self.expires = expires
        self.error = error
        self.fresh_until = expires


class Lookups:
    """Cached questions to DNS, the hosts file and the system's own resolver.

    Args:
        nameservers: (address, port) of the servers to ask; None takes those of /etc/resolv.conf.
        hosts_file: names that need no DNS; None reads none.
        timeout_s: how long one question may take in all.
        clock: seconds, monotonic.
    """

    __slots__ = (
        "_clock",
        "_entries",
        "_hosts",
        "_hosts_file",
        "_hosts_stamp",
        "_nameservers",
        "_noted",
        "_resolver",
        "_running",
        "_timeout_s",
    )

    def __init__(
        self,
        nameservers: Sequence[tuple[str, int]] | None = None,
        *,
        hosts_file: Path | None = Path("/etc/hosts"),
        timeout_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nameservers = nameservers
        self._hosts_file = hosts_file
        self._hosts_stamp: tuple[int, int] | None = None
        self._hosts: dict[str, tuple[str, ...]] = {}
        self._timeout_s = timeout_s
        self._clock = clock
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._running: dict[tuple[str, str], asyncio.Task[tuple[Any, ...]]] = {}
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._noted = Throttle(60.0)

    async def srv(self, name: str) -> tuple[SrvRecord, ...]:
        """SRV records, unordered; () when there are none. Raises LookupFailed."""
        return await self._cached(name, "SRV")

    async def naptr(self, name: str) -> tuple[NaptrRecord, ...]:
        """NAPTR records, unordered; () when there are none. Raises LookupFailed."""
        return await self._cached(name, "NAPTR")

    def is_local(self, host: str) -> bool:
        """Whether a name is this machine's own affair, so that DNS need not be asked for services of it."""
        return "." not in host or host.endswith(".localhost") or bool(self._from_hosts_file(host))

    async def addresses(self, host: str) -> tuple[str, ...]:
        """IP addresses of a name, IPv4 first: by the hosts file, DNS, and the system's resolver as a last resort.

        Raises LookupFailed when there are none.
        """
        known = self._from_hosts_file(host)
        if known:
            return known
        if host == "localhost" or host.endswith(".localhost"):
            return ("127.0.0.1", "::1")  # RFC 6761 section 6.3
        found: tuple[str, ...] = ()
        if "." in host:
            answers = await asyncio.gather(self._cached(host, "A"), self._cached(host, "AAAA"), return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException):
                    if not isinstance(answer, LookupFailed):
                        raise answer
                else:
                    found += answer
        if not found:
            found = await self._cached(host, "system")
        if not found:
            raise LookupFailed(f"no address for {host}")
        return found

    async def _cached(self, name: str, kind: str) -> tuple[Any, ...]:
        """Records from the cache, or from a question that all who ask at the same time share."""
        key = (name, kind)
        entry = self._entries.get(key)
        if entry is not None and self._clock() < entry.expires:
            if entry.error:
                raise LookupFailed(entry.error)
            return entry.records
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.get_running_loop().create_task(self._refresh(key, entry))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(task)

    async def _refresh(self, key: tuple[str, str], old: _Entry | None) -> tuple[Any, ...]:
        name, kind = key
        question: Coroutine[Any, Any, tuple[tuple[Any, ...], float]]
        question = self._ask_system(name) if kind == "system" else self._ask_dns(name, kind)
        try:
            records, ttl_s = await question
        except LookupFailed as error:
            now = self._clock()
            if old is not None and old.records and now < old.fresh_until + _STALE_LIMIT_S:
                suppressed = self._noted.allow(key, now)
                if suppressed is not None:
                    _log.warning("dns-stale", name=name, kind=kind, reason=str(error), suppressed=suppressed)
                old.expires = now + _STALE_TTL_S
                return old.records
            self._keep(key, _Entry((), now + _FAILURE_TTL_S, str(error)))
            raise
        self._keep(key, _Entry(records, self._clock() + ttl_s))
        return records

    def _keep(self, key: tuple[str, str], entry: _Entry) -> None:
        self._entries.pop(key, None)
        if len(self._entries) >= _MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = entry

    async def _ask_dns(self, name: str, kind: str) -> tuple[tuple[Any, ...], float]:
        """Records and for how long they hold, in seconds. Raises LookupFailed."""
        try:
            if self._resolver is None:
                self._resolver = self._make_resolver()
            answer = await self._resolver.resolve(name, kind, lifetime=self._timeout_s)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return (), _NEGATIVE_TTL_S
        except dns.exception.Timeout:
            raise LookupFailed(f"DNS did not answer within {self._timeout_s:g} s ({kind} of {name})") from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise LookupFailed(f"DNS failed for {kind} of {name}: {_first_line(error)}") from error
        ttl_s = min(max(float(answer.chaining_result.minimum_ttl), _MIN_TTL_S), _MAX_TTL_S)
        return tuple(_plain(kind, record) for record in answer), ttl_s

    def _make_resolver(self) -> dns.asyncresolver.Resolver:
        if self._nameservers is None:
            resolver = dns.asyncresolver.Resolver()
        else:
            resolver = dns.asyncresolver.Resolver(configure=False)
            resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in self._nameservers]
        resolver.timeout = self._timeout_s / 3
        return resolver

    async def _ask_system(self, name: str) -> tuple[tuple[Any, ...], float]:
        """The system's own resolver, which knows search domains and what else the host is set up for."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno == socket.EAI_NONAME:
                return (), _NEGATIVE_TTL_S
            raise LookupFailed(f"no address for {name}: {reason_of(error)}") from error
        except (OSError, UnicodeError) as error:
            raise LookupFailed(f"no address for {name}: {error}") from error
        hosts = dict.fromkeys(str(item[4][0]) for item in found)
        return tuple(sorted(hosts, key=lambda host: ":" in host)), _NEGATIVE_TTL_S

    def _from_hosts_file(self, host: str) -> tuple[str, ...]:
        """Addresses of a name in the hosts file, which is read again when it has changed."""
        path = self._hosts_file
        if path is None:
            return ()
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._hosts_stamp:
                self._hosts = _parse_hosts(path.read_text("utf-8", "replace"))
                self._hosts_stamp = stamp
        except OSError:
            self._hosts, self._hosts_stamp = {}, None
        return self._hosts.get(host, ())

    async def close(self) -> None:
        """Give up questions that are under way."""
        running = tuple(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _plain(kind: str, record: Any) -> object:
    """A record of dnspython as a plain value; names in lower case, without the final dot."""
    match kind:
        case "SRV":
            return SrvRecord(record.priority, record.weight, record.port, _name(record.target))
        case "NAPTR":
            return NaptrRecord(
                record.order,
                record.preference,
                record.flags.decode("ascii", "replace").lower(),
                record.service.decode("ascii", "replace").upper(),
                _name(record.replacement),
            )
        case _:
            return str(record.address)


def _name(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True)).lower() if name.labels != (b"",) else ""


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


def _parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Names of a hosts file with their addresses, IPv4 first."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        try:
            address = str(ipaddress.ip_address(words[0]))
        except ValueError:
            continue
        for name in words[1:]:
            addresses = found.setdefault(name.lower(), [])
            if address not in addresses:
                addresses.append(address)
    return {name: tuple(sorted(addresses, key=lambda item: ":" in item)) for name, addresses in found.items()}
