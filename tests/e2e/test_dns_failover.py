"""A target by name, found by a real DNS server, whose first address is dead: the whole proxy takes the next one."""

import asyncio
import socket
from typing import cast

import dns.message
import dns.rdatatype
import dns.rrset
import pytest
import uvloop

from proxy.b2bua.config import Network, RetryPolicy, StackConfig, Target
from proxy.runtime import Runtime
from proxy.settings import load, load_rules
from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.twilio import TwilioConfig, place_calls
from proxy.sip.uri import parse_uri
from proxy.transport import parse_listener
from proxy.transport.lookup import Lookups
from proxy.transport.resolver import Resolver
from tests.support.processes import free_port

LOOPBACK = (Network(4, 0x7F000000, 0x7FFFFFFF, "127.0.0.0/8"),)


class Dns(asyncio.DatagramProtocol):
    """Two SRV records for `voice.example`: the preferred one leads to `dead_port`, the other one to `port`."""

    def __init__(self, transport_name: str, dead_port: int, port: int) -> None:
        owner = f"_sip._{transport_name}.voice.example."
        self.records = {
            (owner, "SRV"): [f"10 0 {dead_port} one.voice.example.", f"20 0 {port} two.voice.example."],
            ("one.voice.example.", "A"): ["127.0.0.3"],
            ("two.voice.example.", "A"): ["127.0.0.1"],
        }
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        response = dns.message.make_response(query)
        kind = dns.rdatatype.to_text(question.rdtype)
        found = self.records.get((question.name.to_text().lower(), kind))
        if found is not None:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *found))
        assert self.transport is not None
        self.transport.sendto(response.to_wire(), addr)


async def run(transport: str) -> tuple[int, list[tuple[object, object]], list[int]]:
    """Two calls; gives how many were answered, what failed by the way, and the attempts of each."""
    events: list[object] = []

    class Sink:
        def emit(self, event: object) -> None:
            events.append(event)

        def close(self) -> None:
            pass

    config = OpenAiConfig(listen=(f"{transport}:127.0.0.1:0",), answer_after_ms=5)
    async with OpenAiSim(config) as sim:
        server = Dns(transport, free_port(), sim.listeners[0].port)
        loop = asyncio.get_running_loop()
        endpoint, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
        nameserver = endpoint.get_extra_info("sockname")
        rules, default = load_rules(load({"listen": ["udp:127.0.0.1:0"], "targets": ["sip:127.0.0.1"]}))
        target = Target("main", parse_uri(f"sip:agent@voice.example;transport={transport}"))
        policy = RetryPolicy(max_attempts=1, answer_timeout_s=5.0, hop_timeout_s=0.3)
        runtime = Runtime(
            StackConfig({"main": target}, rules, default, LOOPBACK, retry=policy),
            [parse_listener("udp:127.0.0.1:0")],
            sinks=[Sink()],
            resolver=Resolver(Lookups([nameserver[:2]], hosts_file=None)),
        )
        await runtime.start()
        try:
            caller = TwilioConfig(
                target=f"sip:127.0.0.1:{runtime.listeners[0].port};transport=udp", calls=2, rate=2, hold_ms=20
            )
            report = await place_calls(caller)
        finally:
            await runtime.stop()
            endpoint.close()
    failed = [(e.kind, e.fields["why"]) for e in events if e.kind == "hop-failed"]  # type: ignore[attr-defined]
    ends = [e for e in events if e.kind == "call-end"]  # type: ignore[attr-defined]
    return report.answered, failed, [len(e.fields["attempts"]) for e in ends]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("transport", "failures"), [("udp", [("hop-failed", "no answer")]), ("tcp", [])], ids=["silence", "refused"]
)
def test_next_address_is_taken_within_one_attempt(transport: str, failures: list[tuple[str, str]]) -> None:
    """The second call goes to the good address at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.3", 0))
    answered, failed, attempts = uvloop.run(run(transport))
    assert (answered, attempts) == (2, [1, 1])
    assert failed == failures
