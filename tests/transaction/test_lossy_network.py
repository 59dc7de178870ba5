"""The simulated network itself: other tests stand on it."""

from __future__ import annotations

from random import Random

from proxy.sip.flow import Flow
from tests.support.lossy import Address, LossyNetwork

A: Address = ("192.0.2.1", 5060)
B: Address = ("192.0.2.2", 5060)


class Recorder:
    """A node that writes down what comes, and has one deadline if told so."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.flows: list[Flow] = []
        self.closed: list[Flow] = []
        self.deadline: float | None = None
        self.fired: list[float] = []

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        self.got.append(data)
        self.flows.append(flow)

    def next_deadline(self) -> float | None:
        return self.deadline

    def handle_timers(self, now: float) -> None:
        self.fired.append(now)
        self.deadline = None

    def flow_closed(self, flow: Flow, now: float) -> None:
        self.closed.append(flow)


def joined(seed: int = 1, loss: float = 0.25, duplicate: float = 0.1) -> tuple[LossyNetwork, Recorder, Recorder]:
    network = LossyNetwork(Random(seed), loss=loss, duplicate=duplicate)
    a, b = Recorder(), Recorder()
    network.attach(A, a)
    network.attach(B, b)
    return network, a, b


def numbers(node: Recorder) -> list[int]:
    return [int(data) for data in node.got]


def test_datagrams_are_lost_reordered_and_duplicated() -> None:
    network, _, b = joined()
    for at in range(1000):
        network.send(network.flow(A, B), str(at).encode())
    network.run(network.now + 1)
    got = numbers(b)
    assert 200 < network.lost < 300
    assert 50 < network.duplicated < 110
    assert len(got) == network.delivered == len(network.log) == 1000 - network.lost + network.duplicated
    assert len(set(got)) == 1000 - network.lost
    assert got != sorted(got)
    assert network.idle


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[tuple[float, bytes]]:
        network, _, _ = joined(seed)
        for at in range(50):
            network.send(network.flow(A, B), str(at).encode())
        network.run(network.now + 1)
        return [(when, data) for when, _, data in network.log]

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_a_stream_keeps_everything_in_order() -> None:
    network, _, b = joined(loss=1.0, duplicate=1.0)
    for at in range(200):
        network.send(network.flow(A, B, "tcp"), str(at).encode())
    network.run(network.now + 1)
    assert numbers(b) == list(range(200))


def test_flows_are_the_same_object_and_each_side_has_its_own() -> None:
    network, a, b = joined(loss=0.0, duplicate=0.0)
    flow = network.flow(A, B)
    network.send(flow, b"1")
    network.run(network.now + 1)
    assert network.flow(A, B) is flow
    assert (b.flows[0].local, b.flows[0].remote) == (B, A)
    assert b.flows[0] is network.flow(B, A)
    network.send(b.flows[0], b"2")
    network.run(network.now + 1)
    assert a.flows == [flow]


def test_a_broken_connection_swallows_what_is_on_the_way() -> None:
    network, a, b = joined()
    flow, back = network.flow(A, B, "tcp"), network.flow(B, A, "tcp")
    network.send(flow, b"1")
    network.close(flow)
    network.send(flow, b"2")
    network.run(network.now + 1)
    assert (a.closed, b.closed, b.got) == ([flow], [back], [])
    assert flow.closed
    assert back.closed
    anew = network.flow(A, B, "tcp")
    assert anew is not flow
    network.send(anew, b"3")
    network.run(network.now + 1)
    assert numbers(b) == [3]


def test_nobody_at_the_address() -> None:
    network, _, _ = joined(loss=0.0)
    network.send(network.flow(A, ("192.0.2.99", 5060)), b"1")
    network.run(network.now + 1)
    assert (network.sent, network.delivered, network.idle) == (1, 0, True)


def test_time_stops_at_each_deadline_and_plan() -> None:
    network, a, _ = joined()
    start = network.now
    planned: list[float] = []
    a.deadline = start + 2.5
    network.at(start + 1, planned.append)
    network.at(start - 1, planned.append)
    network.run(start + 2)
    assert (planned, a.fired, network.now, network.idle) == ([start, start + 1], [], start + 2, False)
    network.run(start + 3)
    assert (a.fired, network.now, network.idle) == ([start + 2.5], start + 3, True)
