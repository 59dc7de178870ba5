"""The addresses of one target within one attempt (RFC 3263 section 4.3), with the fates that they may have."""

from collections.abc import Callable, Iterator

import pytest

from proxy.b2bua.config import RetryPolicy
from proxy.b2bua.effects import Effect, Open, Resolve
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Request, Response
from tests.b2bua.conftest import finish
from tests.support.bench import ANSWER, OURS, Bench

ONCE = RetryPolicy(max_attempts=1, answer_timeout_s=20.0, hop_timeout_s=2.5)
HOSTS = ("203.0.113.1", "203.0.113.2", "203.0.113.3")


class HopBench(Bench):
    """A target with three addresses; `down` are those to which no flow can be had."""

    def __init__(self, *, transport: str = "udp", retry: RetryPolicy = ONCE) -> None:
        self.down: set[str] = set()
        self.flows: dict[str, Flow] = {}
        super().__init__(transport=transport, retry=retry)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Resolve) and effect.uri.host == "203.0.113.5":
            self.resolves.append(effect.uri)
            self.stack.resolved(effect.token, [Hop(self.transport, host, 5060) for host in HOSTS], self.now)
        else:
            super()._perform(effect)

    def _open(self, effect: Open) -> None:
        if effect.hop.host in self.down:
            self.stack.flow_failed(effect.token, "connection refused", self.now)
        else:
            super()._open(effect)

    def _flow(self, hop: Hop) -> Flow:
        if hop.host not in HOSTS:
            return super()._flow(hop)
        flow = self.flows.get(hop.host)
        if flow is None or flow.closed:
            listener = "udp" if hop.transport == "udp" else ""
            flow = Flow(hop.transport, OURS, (hop.host, hop.port), f"{OURS[0]}:{OURS[1]}", listener)
            self.flows[hop.host] = flow
        return flow

    def sent_to(self, host: str, method: str = "INVITE") -> list[Request]:
        """The requests that an address got; repetitions count once."""
        found = [m for _, flow, m in self.wire if flow.remote[0] == host and isinstance(m, Request)]
        return list({m.via.branch: m for m in found if m.method == method}.values())

    def answer(self, host: str, status: int, body: str = "", extra: str = "", **rest: str) -> None:
        """An address's answer to its INVITE."""
        invite = self.sent_to(host)[-1]
        self.respond(status, request=invite, flow=self.flows[host], body=body, extra=extra, **rest)


MakeHops = Callable[..., HopBench]


@pytest.fixture
def hops() -> Iterator[MakeHops]:
    made: list[HopBench] = []

    def make(**options: object) -> HopBench:
        made.append(HopBench(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for bench in made:
        finish(bench)


def tried(bench: HopBench, since: int = 0) -> list[str]:
    """The addresses that got an INVITE, in order; `since`: so many messages were on the wire before."""
    branches: dict[str, str] = {}
    for _, flow, message in bench.wire[since:]:
        if isinstance(message, Request) and message.method == "INVITE":
            branches.setdefault(message.via.branch, flow.remote[0])
    return list(branches.values())


def answered_by(bench: HopBench, host: str) -> None:
    """Let an address take the call."""
    bench.answer(host, 200, ANSWER)
    assert bench.last_response.status == 200
    assert len(bench.sent_to(host, "ACK")) == 1


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_address_without_a_flow_is_passed_over(hops: MakeHops, transport: str) -> None:
    bench = hops(transport=transport)
    bench.down = {HOSTS[0]}
    bench.invite()
    assert tried(bench) == [HOSTS[1]]
    answered_by(bench, HOSTS[1])


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_503_leads_to_the_next_address_with_the_same_request(hops: MakeHops, transport: str) -> None:
    bench = hops(transport=transport)
    bench.invite()
    bench.answer(HOSTS[0], 503)
    assert tried(bench) == list(HOSTS[:2])
    first, second = bench.sent_to(HOSTS[0])[0], bench.sent_to(HOSTS[1])[0]
    assert first.via.branch != second.via.branch
    assert [first.call_id, first.from_.tag, str(first.cseq), first.body] == [
        second.call_id,
        second.from_.tag,
        str(second.cseq),
        second.body,
    ]
    answered_by(bench, HOSTS[1])
    assert [event.fields["why"] for event in bench.events if event.kind == "hop-failed"] == ["503"]


@pytest.mark.parametrize("status", [486, 500, 404, 603])
def test_other_refusals_are_final(hops: MakeHops, status: int) -> None:
    bench = hops()
    bench.invite()
    bench.answer(HOSTS[0], status)
    assert tried(bench) == [HOSTS[0]]
    assert bench.last_response.status == status


def test_503_after_ringing_is_the_answer_of_the_target(hops: MakeHops) -> None:
    bench = hops()
    bench.invite()
    bench.answer(HOSTS[0], 180)
    bench.answer(HOSTS[0], 503)
    assert tried(bench) == [HOSTS[0]]


def test_lost_connection_leads_to_the_next_address(hops: MakeHops) -> None:
    bench = hops(transport="tcp")
    bench.invite()
    bench.close(bench.flows[HOSTS[0]])
    assert tried(bench) == list(HOSTS[:2])
    answered_by(bench, HOSTS[1])


def test_silence_leads_to_the_next_address(hops: MakeHops) -> None:
    bench = hops()
    bench.invite()
    bench.advance(2.4)
    assert tried(bench) == [HOSTS[0]]
    bench.advance(0.2)
    assert tried(bench) == list(HOSTS[:2])
    bench.advance(2.5)
    assert tried(bench) == list(HOSTS)
    bench.advance(10)
    assert tried(bench) == list(HOSTS)
    answered_by(bench, HOSTS[2])


def test_address_that_said_100_is_waited_for(hops: MakeHops) -> None:
    bench = hops()
    bench.invite()
    bench.answer(HOSTS[0], 100)
    bench.advance(15)
    assert tried(bench) == [HOSTS[0]]
    answered_by(bench, HOSTS[0])


def test_late_answer_of_an_address_that_was_given_up_is_ended(hops: MakeHops) -> None:
    bench = hops()
    bench.invite()
    bench.advance(3)
    bench.answer(HOSTS[0], 200, ANSWER, tag="late")
    bench.answer(HOSTS[0], 200, ANSWER, tag="late")
    assert len(bench.sent_to(HOSTS[0], "ACK")) == 1
    assert len(bench.sent_to(HOSTS[0], "BYE")) == 1
    assert [m.status for m in bench.to_caller if isinstance(m, Response)] == [100]
    answered_by(bench, HOSTS[1])


def test_late_ringing_of_an_address_that_was_given_up_is_cancelled(hops: MakeHops) -> None:
    bench = hops()
    bench.invite()
    bench.advance(3)
    bench.answer(HOSTS[0], 180)
    bench.answer(HOSTS[0], 180)
    assert len(bench.sent_to(HOSTS[0], "CANCEL")) == 1
    assert [m.status for m in bench.to_caller if isinstance(m, Response)] == [100]
    answered_by(bench, HOSTS[1])


def test_caller_who_hangs_up_between_two_addresses_reaches_none(hops: MakeHops) -> None:
    bench = hops()
    branch = bench.invite()
    bench.hold_flows = True
    bench.answer(HOSTS[0], 503)
    bench.caller_request("CANCEL", branch=branch)
    bench.release()
    assert tried(bench) == [HOSTS[0]]
    assert bench.last_response.status == 487


def test_all_addresses_fail(hops: MakeHops) -> None:
    bench = hops()
    bench.down = {HOSTS[2]}
    bench.invite()
    bench.answer(HOSTS[0], 503)
    bench.answer(HOSTS[1], 503)
    assert bench.last_response.status == 503
    assert len(bench.ends()[0]["attempts"]) == 1  # type: ignore[arg-type]


def test_address_that_failed_goes_last_for_a_while(hops: MakeHops) -> None:
    bench = hops()
    bench.invite()
    bench.answer(HOSTS[0], 503)
    answered_by(bench, HOSTS[1])
    bench.caller_request("ACK")
    mark = len(bench.wire)
    bench.invite(call_id="call-2", tag="second")
    assert tried(bench, mark) == [HOSTS[1]]
    bench.answer(HOSTS[1], 486)
    bench.advance(31)
    mark = len(bench.wire)
    bench.invite(call_id="call-3", tag="third")
    assert tried(bench, mark) == [HOSTS[0]]


def test_retry_after_says_for_how_long(hops: MakeHops) -> None:
    bench = hops()
    bench.invite()
    bench.answer(HOSTS[0], 503, extra="Retry-After: 100")
    answered_by(bench, HOSTS[1])
    bench.caller_request("ACK")
    bench.advance(60)
    mark = len(bench.wire)
    bench.invite(call_id="call-2", tag="second")
    assert tried(bench, mark) == [HOSTS[1]]
