"""From URIs to hops, against a real DNS server on loopback (RFC 3263)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from structlog.testing import capture_logs

from proxy.sip.flow import Hop
from proxy.sip.uri import parse_uri
from proxy.transport.errors import ResolveError
from proxy.transport.lookup import Lookups, SrvRecord
from proxy.transport.resolver import Resolver, _weighted, numeric_hop

ZONE = """
_sips._tcp.example.com 300 SRV 10 0 5061 edge1.example.com
_sips._tcp.example.com 300 SRV 20 0 5071 edge2.example.com
_sip._tcp.example.com  300 SRV 10 0 5060 edge1.example.com
edge1.example.com      300 A 192.0.2.1
edge1.example.com      300 AAAA 2001:db8::1
edge2.example.com      300 A 192.0.2.2
example.com            300 A 192.0.2.9
bare.example           300 A 192.0.2.7
many.example           300 A 192.0.2.7
many.example           300 A 192.0.2.8
bare.example           300 AAAA 2001:db8::7
choosy.example         300 NAPTR 20 10 s SIP+D2T "" _sip._tcp.choosy.example
choosy.example         300 NAPTR 10 20 s SIP+D2U "" _sip._udp.choosy.example
choosy.example         300 NAPTR 10 10 s SIPS+D2T "" _sips._tcp.elsewhere.example
choosy.example         300 NAPTR 5 10 s SIP+D2S "" _sip._sctp.choosy.example
choosy.example         300 NAPTR 5 12 a SIP+D2T "" _sip._tcp.example.com
choosy.example         300 NAPTR 5 11 u E2U+sip "!^.*$!sip:a@b!" .
_sip._tcp.choosy.example   300 SRV 0 0 5080 edge2.example.com
_sip._udp.choosy.example   300 SRV 0 0 5090 edge2.example.com
_sips._tcp.elsewhere.example 300 SRV 0 0 5061 edge1.example.com
_sip._udp.closed.example   300 SRV 0 0 0 .
closed.example             300 A 192.0.2.3
alias.example              300 CNAME bare.example
brief.example              1 A 192.0.2.4
lasting.example            900000 A 192.0.2.5
dangling.example           300 A 192.0.2.6
_sip._udp.dangling.example 300 SRV 0 0 5060 nowhere.example
"""


class DnsServer(asyncio.DatagramProtocol):
    """Answers from a small zone, or not at all."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.ttls: dict[tuple[str, str], int] = {}
        for line in ZONE.strip().splitlines():
            name, ttl, kind, data = line.split(None, 3)
            self.records.setdefault((name, kind), []).append(data)
            self.ttls[name, kind] = int(ttl)
        self.asked: Counter[tuple[str, str]] = Counter()
        self.silent = False
        self.rcode = dns.rcode.NOERROR
        self.address: tuple[str, int] = ("", 0)
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.address = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        if self.silent:
            return
        response = dns.message.make_response(query)
        response.set_rcode(self.rcode)
        if self.rcode == dns.rcode.NOERROR:
            self._answer(response, name, kind)
        assert self.transport is not None
        self.transport.sendto(response.to_wire(), addr)

    def _answer(self, response: dns.message.Message, name: str, kind: str) -> None:
        alias = self.records.get((name, "CNAME"))
        if alias is not None:
            response.answer.append(dns.rrset.from_text(f"{name}.", 300, "IN", "CNAME", f"{alias[0]}."))
            name = alias[0]
        found = self.records.get((name, kind))
        if found is not None:
            data = [f"{text}." if kind in ("SRV", "NAPTR") and not text.endswith(".") else text for text in found]
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttls[name, kind], "IN", kind, *data))
        elif not any(owner == name for owner, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        DnsServer, local_addr=("127.0.0.1", 0)
    )
    yield server
    transport.close()
    await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[[float], Resolver]


@pytest.fixture
async def make_resolver(server: DnsServer, clock: Clock, tmp_path: Path) -> AsyncIterator[Make]:
    """`make_resolver(timeout_s)`: a resolver that asks the server."""
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "127.0.0.1 localhost\n# note\n2001:db8::44 pinned.example Other\n192.0.2.44\tpinned.example #x\nbad line\n"
    )
    made: list[Resolver] = []

    def make(timeout_s: float) -> Resolver:
        lookups = Lookups([server.address], hosts_file=hosts, timeout_s=timeout_s, clock=clock)
        made.append(Resolver(lookups, uniform=lambda: 0.0))
        return made[-1]

    yield make
    for resolver in made:
        await resolver.close()


@pytest.fixture
def resolver(make_resolver: Make) -> Resolver:
    """One that is patient, so that a busy machine can't make it ask twice."""
    return make_resolver(10.0)


def hops(*texts: str, server_name: str = "") -> list[Hop]:
    """`tls 192.0.2.1 5061` to a Hop."""
    found = []
    for text in texts:
        transport, host, port = text.split()
        found.append(Hop(transport, host, int(port), server_name if transport == "tls" else ""))
    return found


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sip:192.0.2.1", "udp 192.0.2.1 5060"),
        ("sip:a@192.0.2.1:5080", "udp 192.0.2.1 5080"),
        ("sip:192.0.2.1;transport=TCP", "tcp 192.0.2.1 5060"),
        ("sip:192.0.2.1;transport=tls", "tls 192.0.2.1 5061"),
        ("sips:192.0.2.1", "tls 192.0.2.1 5061"),
        ("sips:192.0.2.1:5070;transport=tcp", "tls 192.0.2.1 5070"),
        ("sip:[2001:DB8::1]:5062", "udp 2001:db8::1 5062"),
    ],
)
def test_address_needs_no_look_up(uri: str, expected: str) -> None:
    hop = numeric_hop(parse_uri(uri))
    assert hop is not None
    name = parse_uri(uri).host.strip("[]").lower()
    assert [hop] == hops(expected, server_name=name)


def test_maddr_is_where_to_send_to_and_the_name_stays() -> None:
    hop = numeric_hop(parse_uri("sips:Example.com;maddr=192.0.2.77"))
    assert hop == Hop("tls", "192.0.2.77", 5061, "example.com")


@pytest.mark.parametrize(
    "uri",
    [
        "sip:example.com",
        "tel:+15550100002",
        "sip:192.0.2.1;transport=sctp",
        "sips:192.0.2.1;transport=udp",
        "sip:1.2.3",
    ],
)
def test_all_else_is_not_numeric(uri: str) -> None:
    assert numeric_hop(parse_uri(uri)) is None


@pytest.mark.parametrize(
    ("uri", "name", "expected"),
    [
        ("sip:192.0.2.1", "", ["udp 192.0.2.1 5060"]),
        # A transport that is given: SRV of that transport, in order of priority, with all addresses.
        (
            "sip:p@example.com;transport=tls",
            "example.com",
            ["tls 192.0.2.1 5061", "tls 2001:db8::1 5061", "tls 192.0.2.2 5071"],
        ),
        ("sips:example.com", "example.com", ["tls 192.0.2.1 5061", "tls 2001:db8::1 5061", "tls 192.0.2.2 5071"]),
        ("sip:EXAMPLE.com.;transport=tcp", "", ["tcp 192.0.2.1 5060", "tcp 2001:db8::1 5060"]),
        # No SRV: addresses, default port.
        ("sip:bare.example", "", ["udp 192.0.2.7 5060", "udp 2001:db8::7 5060"]),
        ("sip:alias.example;transport=tcp", "", ["tcp 192.0.2.7 5060", "tcp 2001:db8::7 5060"]),
        ("sips:closed.example", "closed.example", ["tls 192.0.2.3 5061"]),
        # A port: neither NAPTR nor SRV.
        ("sip:example.com:5099;transport=tls", "example.com", ["tls 192.0.2.9 5099"]),
        ("sip:example.com:5099", "", ["udp 192.0.2.9 5099"]),
        # Neither: NAPTR decides, what is not spoken is left out, the name stays that of the URI.
        (
            "sip:choosy.example",
            "choosy.example",
            ["tls 192.0.2.1 5061", "tls 2001:db8::1 5061", "udp 192.0.2.2 5090", "tcp 192.0.2.2 5080"],
        ),
        ("sips:choosy.example", "choosy.example", ["tls 192.0.2.1 5061", "tls 2001:db8::1 5061"]),
        # The hosts file comes first, and needs no DNS.
        ("sip:pinned.example;transport=tcp", "", ["tcp 192.0.2.44 5060", "tcp 2001:db8::44 5060"]),
        ("sip:localhost:5080", "", ["udp 127.0.0.1 5080"]),
        # An SRV whose target has no address is no way.
        ("sip:dangling.example", "", ["udp 192.0.2.6 5060"]),
    ],
)
async def test_hops_of_a_uri(resolver: Resolver, uri: str, name: str, expected: list[str]) -> None:
    assert await resolver.resolve(parse_uri(uri)) == hops(*expected, server_name=name)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("tel:+15550100002", "a tel URI names no host"),
        ("urn:service:sos", "a urn URI names no host"),
        ("sip:example.com;transport=sctp", "transport sctp is not spoken"),
        ("sips:example.com;transport=udp", "a sips URI can't go by UDP"),
        ("sip:closed.example;transport=udp", "closed.example says by SRV that it takes no SIP"),
        ("sip:nowhere.example", "no address for nowhere.example"),
    ],
)
async def test_reason_without_hops(resolver: Resolver, uri: str, reason: str) -> None:
    with pytest.raises(ResolveError) as caught:
        await resolver.resolve(parse_uri(uri))
    assert caught.value.reason.startswith(reason)


async def test_all_addresses_of_a_name_are_hops(resolver: Resolver) -> None:
    found = await resolver.resolve(parse_uri("sip:many.example;transport=tcp"))
    assert sorted(hop.host for hop in found) == ["192.0.2.7", "192.0.2.8"]


async def test_names_of_this_host_are_not_asked_of_dns(resolver: Resolver, server: DnsServer) -> None:
    await resolver.resolve(parse_uri("sip:pinned.example"))
    await resolver.resolve(parse_uri("sip:localhost;transport=tcp"))
    await resolver.resolve(parse_uri("sip:sub.localhost;transport=tcp"))
    assert not server.asked


async def test_hosts_file_is_read_again_when_it_changes(resolver: Resolver, tmp_path: Path) -> None:
    assert (await resolver.resolve(parse_uri("sip:pinned.example:1")))[0].host == "192.0.2.44"
    (tmp_path / "hosts").write_text("192.0.2.45 pinned.example\n")
    assert (await resolver.resolve(parse_uri("sip:pinned.example:1")))[0].host == "192.0.2.45"


async def test_answers_are_kept_for_their_time(resolver: Resolver, server: DnsServer, clock: Clock) -> None:
    uri = parse_uri("sip:example.com;transport=tls")
    first = await resolver.resolve(uri)
    asked = server.asked.copy()
    assert max(asked.values()) == 1
    clock.now += 299
    assert await resolver.resolve(uri) == first
    assert server.asked["_sips._tcp.example.com", "SRV"] == 1
    clock.now += 2
    server.records["edge1.example.com", "A"] = ["192.0.2.11"]
    assert (await resolver.resolve(uri))[0].host == "192.0.2.11"
    assert server.asked["_sips._tcp.example.com", "SRV"] == 2


@pytest.mark.parametrize(("name", "held_s"), [("brief.example", 5), ("lasting.example", 3600), ("nowhere.example", 10)])
async def test_time_to_live_has_bounds(
    resolver: Resolver, server: DnsServer, clock: Clock, name: str, held_s: float
) -> None:
    async def ask() -> int:
        try:
            await resolver.resolve(parse_uri(f"sip:{name}:5060"))
        except ResolveError:
            pass
        return server.asked[name, "A"]

    assert await ask() == 1
    clock.now += held_s - 0.5
    assert await ask() == 1
    clock.now += 1
    assert await ask() == 2


async def test_many_who_ask_at_once_share_one_question(resolver: Resolver, server: DnsServer) -> None:
    uri = parse_uri("sip:choosy.example")
    answers = await asyncio.gather(*[resolver.resolve(uri) for _ in range(20)])
    assert all(answer == answers[0] for answer in answers)
    assert max(server.asked.values()) == 1


async def test_one_who_gives_up_does_not_disturb_the_others(resolver: Resolver) -> None:
    uri = parse_uri("sip:bare.example:5060")
    first, second = asyncio.create_task(resolver.resolve(uri)), asyncio.create_task(resolver.resolve(uri))
    for _ in range(5):
        await asyncio.sleep(0)
    first.cancel()
    assert len(await second) == 2


@pytest.mark.parametrize("way", ["silent", "failing"])
async def test_last_good_answer_serves_while_dns_is_down(
    make_resolver: Make, server: DnsServer, clock: Clock, way: str
) -> None:
    resolver = make_resolver(0.9 if way == "silent" else 10.0)
    uri = parse_uri("sip:example.com;transport=tls")
    good = await resolver.resolve(uri)
    clock.now += 4000
    server.silent, server.rcode = way == "silent", dns.rcode.SERVFAIL
    with capture_logs() as logs:
        assert await resolver.resolve(uri) == good
    assert {line["event"] for line in logs} == {"dns-stale"}
    asked = sum(server.asked.values())
    assert await resolver.resolve(uri) == good
    assert sum(server.asked.values()) == asked, "a server that is down is not asked for every call"
    clock.now += 6
    server.silent, server.rcode = False, dns.rcode.NOERROR
    server.records["edge1.example.com", "A"] = ["192.0.2.11"]
    assert (await resolver.resolve(uri))[0].host == "192.0.2.11"


async def test_dns_that_never_answered_is_an_error_in_bounded_time(make_resolver: Make, server: DnsServer) -> None:
    resolver = make_resolver(0.3)
    server.silent = True
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(ResolveError, match=r"no address for other\.example"):
        await resolver.resolve(parse_uri("sip:other.example"))
    assert loop.time() - begun < 5


def test_srv_records_are_drawn_by_weight() -> None:
    heavy, light, none = (
        SrvRecord(10, 60, 1, "heavy"),
        SrvRecord(10, 20, 2, "light"),
        SrvRecord(10, 0, 3, "none"),
    )
    best, last = SrvRecord(5, 0, 4, "best"), SrvRecord(20, 99, 5, "last")
    records = [last, heavy, light, none, best]
    firsts: Counter[str] = Counter()
    for lot in range(80):
        drawn = _weighted(records, repeat(lot / 80).__next__)
        firsts[drawn[1].target] += 1
        assert sorted(drawn) == sorted(records)
        assert (drawn[0], drawn[-1]) == (best, last)
    assert firsts == {"heavy": 60, "light": 20}
