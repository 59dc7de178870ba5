"""Client and server machines joined by a network that loses, reorders and duplicates: every transaction ends, and the
users are told what truly happened."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.sip.flow import Flow
from proxy.sip.message import Request, Response
from proxy.sip.parser import parse_message
from proxy.transaction.tables import State
from tests.support.lossy import Address, LossyNetwork
from tests.transaction.endpoints import Callee, Caller, Outcome, Plan

CALLER: Address = ("192.0.2.1", 5060)
CALLEE: Address = ("192.0.2.2", 5060)
FAILURES = (302, 404, 486, 503, 603)


class World:
    """A caller and a callee with a network in between."""

    def __init__(self, seed: int, loss: float = 0.25) -> None:
        self.network = LossyNetwork(Random(seed), loss=loss)
        self.caller = Caller(self.network)
        self.callee = Callee(self.network)
        self.network.attach(CALLER, self.caller)
        self.network.attach(CALLEE, self.callee)
        self.closed: set[Flow] = set()

    def flow(self, transport: str = "udp") -> Flow:
        return self.network.flow(CALLER, CALLEE, transport)

    def start(self, method: str, plan: Plan, transport: str = "udp") -> Outcome:
        name = str(len(self.callee.plans) + 1)
        self.callee.plans[name] = plan
        outcome = self.caller.start(method, self.flow(transport), self.network.now)
        assert outcome.tx.request.call_id == name
        return outcome

    def close(self) -> None:
        flow = self.flow("tcp")
        self.closed |= {flow, self.network.flow(CALLEE, CALLER, "tcp")}
        self.network.close(flow)

    def finish(self) -> None:
        """Let everything run out, then check all that must hold."""
        self.network.run(self.network.now + 1000)
        assert self.network.idle
        for endpoint in (self.caller, self.callee):
            assert set(endpoint.layer.tables().values()) == {0}
            assert len(endpoint.timers) == 0
        delivered = self.delivered()
        for outcome in self.caller.outcomes.values():
            self.check_client(outcome, delivered)
        self.check_servers()

    def delivered(self) -> dict[tuple[str, str], list[tuple[float, int]]]:
        """When which response was delivered to the caller, by transaction."""
        found: dict[tuple[str, str], list[tuple[float, int]]] = {}
        for when, flow, data in self.network.log:
            message = parse_message(data)
            if isinstance(message, Response):
                assert flow.local == CALLER
                found.setdefault((message.via.branch, message.cseq.method), []).append((when, message.status))
        return found

    def check_client(self, outcome: Outcome, delivered: dict[tuple[str, str], list[tuple[float, int]]]) -> None:
        tx = outcome.tx
        assert tx.state == State.TERMINATED
        invite = tx.method == "INVITE"
        came = [status for when, status in delivered.get(tx.key, []) if when <= outcome.ended_at]
        accepted = [status for status in outcome.finals if invite and status < 300]
        endings = [outcome.timeouts, outcome.failures, int(outcome.given_up)]
        endings.append(1 if accepted else len(outcome.finals))
        assert sum(endings) == 1, outcome
        assert accepted in ([], outcome.finals), outcome
        if outcome.timeouts and invite:
            assert came == []
        if outcome.timeouts or outcome.given_up:
            assert [status for status in came if status >= 200] == []
        if outcome.failures:
            assert tx.flow in self.closed
        if outcome.finals:
            # Each came over the network; for a failure and for other methods the first alone is told.
            assert outcome.finals[0] == next(status for status in came if status >= 200)
            assert len(accepted) <= len(came)
        assert outcome.provisionals == came[: len(outcome.provisionals)]

    def check_servers(self) -> None:
        seen = Counter(tx.key for tx in self.callee.requests)
        assert set(seen.values()) <= {1}, "a retransmission reached the TU"
        assert all(tx.state == State.TERMINATED for tx in self.callee.requests)
        acks = {
            (message.via.branch, message.call_id)
            for _, _, data in self.network.log
            if isinstance(message := parse_message(data), Request) and message.method == "ACK"
        }
        for tx in self.callee.failed:
            assert tx.flow in self.closed or (tx.method == "INVITE" and tx.last_status >= 300)
            if tx.flow not in self.closed:
                assert (tx.key[0], tx.request.call_id) not in acks
        for call_id in self.callee.unacknowledged:
            assert call_id not in self.callee.acknowledged


def plans(random: Random, method: str) -> Plan:
    final = random.choice((200, 200, *FAILURES))
    provisionals = [(random.uniform(0, 5), random.choice((180, 183))) for _ in range(random.randrange(3))]
    return Plan(provisionals, (random.uniform(0, 8 if method == "INVITE" else 2), final))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_quarter_of_all_packets_lost(seed: int) -> None:
    """With this seed every message gets through in the end, so that each request has its planned outcome."""
    world, random = World(seed), Random(seed)
    started: list[tuple[Outcome, Plan]] = []

    def start(now: float) -> None:
        method = random.choice(("INVITE", "INVITE", "OPTIONS"))
        plan = plans(random, method)
        started.append((world.start(method, plan), plan))

    for at in range(150):
        world.network.at(world.network.now + at * 0.05, start)
    world.finish()
    assert len(started) == 150
    for outcome, plan in started:
        assert outcome.finals[0] == plan.final[1]
    answered = {o.tx.request.call_id for o, plan in started if o.tx.method == "INVITE" and plan.final[1] == 200}
    assert world.callee.acknowledged == answered
    assert len(answered) > 20
    assert world.callee.failed == []
    assert 0.2 < world.network.lost / world.network.sent < 0.3
    assert world.network.duplicated > 50


def test_nothing_gets_through() -> None:
    world = World(1, loss=1.0)
    outcomes = [world.start(method, Plan([], (0.0, 200))) for method in ("INVITE", "OPTIONS") * 5]
    world.finish()
    assert [outcome.timeouts for outcome in outcomes] == [1] * 10
    assert (world.network.sent, world.network.delivered) == (5 * 7 + 5 * 11, 0)


def test_no_way_back() -> None:
    """The callee is reached, its answers are lost: its failures wait for an ACK that never comes."""
    world = World(1, loss=0.0)
    world.start("INVITE", Plan([], (1.0, 486)))
    world.network.run(world.network.now + 0.9)
    world.network.loss = 1.0
    world.finish()
    (outcome,) = [outcome for key, outcome in world.caller.outcomes.items() if key[1] == "INVITE"]
    assert outcome.given_up
    assert [tx.last_status for tx in world.callee.failed] == [486]


def test_over_a_connection_nothing_is_sent_twice() -> None:
    world = World(1, loss=1.0)
    outcomes = [world.start("INVITE", Plan([(1.0, 180)], (2.0, 486)), "tcp") for _ in range(5)]
    world.finish()
    assert [outcome.finals for outcome in outcomes] == [[486]] * 5
    assert world.network.sent == world.network.delivered == 5 * len(("INVITE", 100, 180, 486, "ACK"))


class LossyTransactions(RuleBasedStateMachine):
    """Random requests, cancels, losses and broken connections at random times."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(0)
        self.outcomes: list[Outcome] = []

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.world = World(seed)

    @rule(
        method=st.sampled_from(["INVITE", "INVITE", "OPTIONS", "BYE"]),
        transport=st.sampled_from(["udp", "udp", "udp", "tcp"]),
        provisionals=st.lists(st.tuples(st.floats(0, 40), st.sampled_from([180, 183])), max_size=3),
        after=st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 150)),
        status=st.sampled_from((200, 202, *FAILURES)),
    )
    def start(
        self, method: str, transport: str, provisionals: list[tuple[float, int]], after: float, status: int
    ) -> None:
        self.outcomes.append(self.world.start(method, Plan(provisionals, (after, status)), transport))

    @precondition(lambda self: self.outcomes)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        invites = [outcome for outcome in self.outcomes if outcome.tx.method == "INVITE"]
        if invites:
            self.world.caller.cancel(data.draw(st.sampled_from(invites)), self.world.network.now)

    @rule(seconds=st.one_of(st.floats(0, 0.5), st.floats(0, 10), st.floats(0, 100)))
    def wait(self, seconds: float) -> None:
        self.world.network.run(self.world.network.now + seconds)

    @rule(loss=st.sampled_from([0.25, 0.25, 0.25, 0.0, 0.6, 1.0]))
    def weather(self, loss: float) -> None:
        self.world.network.loss = loss

    @rule()
    def break_connection(self) -> None:
        self.world.close()

    @invariant()
    def tables_hold_what_lives(self) -> None:
        caller, callee = self.world.caller, self.world.callee
        alive = [o.tx for o in caller.outcomes.values() if o.tx.state != State.TERMINATED]
        assert len(caller.layer) == len(alive)
        assert len(callee.layer) == len([tx for tx in callee.requests if tx.state != State.TERMINATED])

    def teardown(self) -> None:
        self.world.finish()


TestLossyTransactions = LossyTransactions.TestCase
TestLossyTransactions.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
