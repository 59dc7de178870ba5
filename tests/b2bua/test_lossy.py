"""Whole calls through a network that loses a quarter of all packets, repeats and reorders others.

Whatever is lost: every call ends, in the same way at all three nodes, and nothing is left behind anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from proxy.b2bua.config import RetryPolicy, StackConfig, Target
from proxy.sip.uri import parse_uri
from tests.support.bench import CALLER, NO_RULES, OURS, TARGET, everywhere
from tests.support.law3 import check_records
from tests.support.lossy import LossyNetwork
from tests.support.stack_node import StackNode
from tests.support.ua import Plan, UaCall, UserAgent

ACCEPTED: list[tuple[float, int]] = [(0.2, 180), (1.0, 200)]


@dataclass
class Script:
    """One call: what each attempt finds at the target, and what the caller does (seconds after the INVITE, or after
    the answer)."""

    plans: list[Plan]
    cancel_s: float | None = None
    hang_up_s: float | None = None


class World:
    """Caller, stack and target, and what must hold of them in the end."""

    def __init__(self, seed: int, *, transport: str = "udp", loss: float = 0.25) -> None:
        self.random = Random(seed)
        self.network = LossyNetwork(self.random, loss=loss, duplicate=0.1)
        self.scripts: dict[str, Script] = {}
        self.caller = UserAgent(self.network, "c")
        self.target = UserAgent(self.network, "t", self.plan)
        config = StackConfig(
            targets={"main": Target("main", parse_uri(f"sip:agent@203.0.113.5;transport={transport}"))},
            rules={"none": NO_RULES},
            default_rules="none",
            allow=everywhere(),
            public_address=OURS[0],
            retry=RetryPolicy(),
            ring_timeout_s=60.0,
        )
        self.node = StackNode(config, self.network, OURS, seed)
        self.network.attach(CALLER, self.caller)
        self.network.attach(OURS, self.node)
        self.network.attach(TARGET, self.target)

    def plan(self, name: str, number: int) -> Plan:
        plans = self.scripts[name].plans
        return plans[min(number, len(plans) - 1)]

    def start(self, script: Script, when: float) -> None:
        """Place a call at a time."""
        name = f"call-{len(self.scripts)}"
        self.scripts[name] = script
        self.network.at(self.network.now + when, lambda now: self._place(name, script, now))

    def _place(self, name: str, script: Script, now: float) -> None:
        call = self.caller.place(name, self.network.flow(CALLER, OURS), now)
        if script.hang_up_s is not None:
            wait = script.hang_up_s
            call.on_up = lambda now: self.network.at(now + wait, lambda now: self.caller.bye(call, now))
        if script.cancel_s is not None:
            self.network.at(now + script.cancel_s, lambda now: self.caller.cancel(call, now))

    def finish(self) -> None:
        """Let everything run out, then check all that must hold."""
        self.network.run(self.network.now + 600)
        assert self.network.idle
        for agent in (self.caller, self.target):
            assert set(agent.layer.tables().values()) == {0}
            assert len(agent.timers) == 0
            assert {call.outcome for call in agent.calls} <= {"ended"}
        assert not {name: size for name, size in self.node.stack.tables(self.network.now).items() if size}
        assert self.caller.odd == []
        check_records(self.node.events, self.node.sent)
        for call in self.caller.calls:
            self.check_call(call, [other for other in self.target.calls if other.name == call.name])

    def check_call(self, call: UaCall, attempts: list[UaCall]) -> None:
        """No session lives on anywhere, and at most one was the caller's: the others were ended by the stack."""
        kept = {
            event.fields["call_id"]
            for event in self.node.events
            if event.kind == "attempt-end" and event.fields["cause"] == "answered"
        }
        sessions = [attempt for attempt in attempts if attempt.status == 200]
        answered = [session for session in sessions if session.dialog is not None and session.dialog.call_id in kept]
        for session in sessions:
            assert session.acknowledged or session.ended_by in ("them", "no ACK")
            if session not in answered:
                assert session.ended_by in ("them", "no ACK")
        assert len(answered) <= 1
        if call.status == 200:
            assert call.acknowledged
            assert len(answered) == 1
        elif call.status >= 300:
            assert not answered

    def statuses(self) -> list[int]:
        """The final status that the caller saw of each call; 0 for none."""
        return [call.status for call in self.caller.calls]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_answered_calls_end_by_a_bye_of_either_side(seed: int, transport: str) -> None:
    world = World(seed, transport=transport)
    for number in range(10):
        by_caller = number % 2 == 0
        plan = Plan(list(ACCEPTED), None if by_caller else world.random.uniform(0, 10))
        world.start(Script([plan], hang_up_s=world.random.uniform(0, 10) if by_caller else None), number * 0.3)
    world.finish()
    assert world.statuses().count(200) >= 9
    ended = [(call.name, call.ended_by) for call in world.caller.calls if call.status == 200]
    right = [by == ("us" if int(name.split("-")[1]) % 2 == 0 else "them") for name, by in ended]
    assert right.count(True) >= len(right) - 1


@pytest.mark.parametrize("seed", range(4))
def test_both_sides_hang_up_at_once(seed: int) -> None:
    world = World(100 + seed)
    for number in range(8):
        world.start(Script([Plan(list(ACCEPTED), 3.0)], hang_up_s=3.0), number * 0.2)
    world.finish()
    assert world.statuses().count(200) >= 7


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_rejections_are_tried_again_until_one_attempt_is_answered(seed: int, transport: str) -> None:
    world = World(200 + seed, transport=transport)
    for number in range(8):
        refusals = [Plan([(0.1, status)]) for status in (503, 400, 500)[: 1 + number % 3]]
        world.start(Script([*refusals, Plan([(0.3, 200)])], hang_up_s=2.0), number * 0.3)
    world.finish()
    assert world.statuses().count(200) >= 7


@pytest.mark.parametrize("seed", range(3))
def test_final_refusals_reach_the_caller_as_they_are(seed: int) -> None:
    world = World(300 + seed)
    wanted = [486, 403, 404, 603, 480, 488]
    for number, status in enumerate(wanted):
        world.start(Script([Plan([(0.1, 180), (0.5, status)])]), number * 0.3)
    world.finish()
    assert sum(a == b for a, b in zip(world.statuses(), wanted, strict=True)) >= len(wanted) - 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_cancels_at_random_times(seed: int, transport: str) -> None:
    world = World(400 + seed, transport=transport)
    for number in range(8):
        answer_s = world.random.uniform(0, 4)
        plan = Plan([(0.1, 180), (0.1 + answer_s, 200)] if number % 2 else [(answer_s, 200)], 30.0)
        world.start(Script([plan], cancel_s=world.random.uniform(0, 5)), number * 0.2)
    world.finish()
    assert set(world.statuses()) <= {0, 200, 487}


@pytest.mark.parametrize("seed", range(3))
def test_targets_that_stay_silent_or_answer_too_late(seed: int) -> None:
    world = World(500 + seed)
    for number in range(6):
        first = Plan([]) if number % 3 == 0 else Plan([(world.random.uniform(7, 20), 200)])
        world.start(Script([first, Plan([(0.2, 200)])], hang_up_s=5.0), number * 0.5)
    world.finish()
    assert world.statuses().count(200) >= 5


@pytest.mark.parametrize("seed", range(4))
def test_connection_to_the_target_breaks_again_and_again(seed: int) -> None:
    world = World(600 + seed, transport="tcp")
    for number in range(8):
        plan = Plan([(world.random.uniform(0, 1), 180), (world.random.uniform(1, 3), 200)], 4.0 if number % 2 else None)
        world.start(Script([plan], hang_up_s=None if number % 2 else 4.0), number * 0.4)
    for _ in range(6):
        when = world.network.now + world.random.uniform(0, 10)
        world.network.at(when, lambda _now: world.network.close(world.network.flow(OURS, TARGET, "tcp")))
    world.finish()
