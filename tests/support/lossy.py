"""A network without sockets and without waiting: a virtual clock, and packets that are lost, reordered and duplicated.

Anything can be a node that has `receive`, `next_deadline` and `handle_timers`; a node sends by `LossyNetwork.send`.
Nothing is random but what the given `random.Random` says, so a run can be repeated exactly.

    network = LossyNetwork(random.Random(1), loss=0.25)
    network.attach(("192.0.2.1", 5060), caller)
    network.attach(("192.0.2.2", 5060), callee)
    network.at(1.0, lambda now: caller.call(network.flow(("192.0.2.1", 5060), ("192.0.2.2", 5060)), now))
    network.run(until=200.0)
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Protocol

from proxy.sip.flow import Flow

__all__ = ["Address", "LossyNetwork", "Node"]

Address = tuple[str, int]


class Node(Protocol):
    """One element of the network."""

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """Take one datagram, or one whole message of a stream. `flow` is the node's own side of the path."""

    def next_deadline(self) -> float | None:
        """When `handle_timers` is wanted, or None."""

    def handle_timers(self, now: float) -> None:
        """Do what has become due."""


class LossyNetwork:
    """Joins nodes by their addresses.

    Packets over "udp" are lost with the probability `loss`, delivered twice with `duplicate`, and each copy takes a
    time of its own between `delay_s[0]` and `delay_s[1]`, which reorders them. "tcp" and "tls" keep order and lose
    nothing. A packet to an address where no node is, or over a closed flow, vanishes.

    Attributes:
        now: the virtual time in seconds; moves in `run` only.
        loss, duplicate, delay_s: may be changed while it runs.
        sent, lost, duplicated, delivered: counts of packets.
        log: what was delivered: (time, flow of the receiver, data).
    """

    def __init__(
        self,
        random: Random,
        *,
        loss: float = 0.25,
        duplicate: float = 0.1,
        delay_s: tuple[float, float] = (0.005, 0.25),
        start: float = 1000.0,
    ) -> None:
        self.now = start
        self.loss = loss
        self.duplicate = duplicate
        self.delay_s = delay_s
        self.sent = self.lost = self.duplicated = self.delivered = 0
        self.log: list[tuple[float, Flow, bytes]] = []
        self._random = random
        self._nodes: dict[Address, Node] = {}
        self._flows: dict[tuple[str, Address, Address], Flow] = {}
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._last_arrival: dict[Flow, float] = {}
        self._count = 0

    def attach(self, address: Address, node: Node) -> None:
        """Put a node at an address. One node may have several addresses."""
        self._nodes[address] = node

    def flow(self, local: Address, remote: Address, transport: str = "udp") -> Flow:
        """The flow of the node at `local` to `remote`: the same object each time, until it is closed."""
        key = (transport, local, remote)
        flow = self._flows.get(key)
        if flow is None or flow.closed:
            flow = self._flows[key] = Flow(transport, local, remote, f"{local[0]}:{local[1]}")
        return flow

    def send(self, flow: Flow, data: bytes) -> None:
        """Send from the side that has `flow`."""
        if flow.closed:
            return
        self.sent += 1
        if flow.reliable:
            arrival = max(self.now + self._delay(), self._last_arrival.get(flow, 0.0))
            self._last_arrival[flow] = arrival
            self._schedule(arrival, _Delivery(self, flow, data))
            return
        copies = 1
        if self._random.random() < self.loss:
            self.lost += 1
            copies = 0
        elif self._random.random() < self.duplicate:
            self.duplicated += 1
            copies = 2
        for _ in range(copies):
            self._schedule(self.now + self._delay(), _Delivery(self, flow, data))

    def close(self, flow: Flow) -> None:
        """Break a connection: packets on the way vanish, and both sides are told that have `flow_closed`."""
        other = self.flow(flow.remote, flow.local, flow.transport)
        for end in (flow, other):
            end.closed = True
            self._last_arrival.pop(end, None)
        for end in (flow, other):
            tell: Callable[[Flow, float], None] | None = getattr(self._nodes.get(end.local), "flow_closed", None)
            if tell is not None:
                tell(end, self.now)

    def at(self, when: float, action: Callable[[float], None]) -> None:
        """Call `action(now)` at a time, or at once in the next `run` if that has passed."""
        self._schedule(max(when, self.now), action)

    @property
    def idle(self) -> bool:
        """Whether nothing is on the way, planned or awaited by a node."""
        return self._next() is None

    def run(self, until: float) -> None:
        """Let time pass up to `until`. `idle` says afterwards whether anything is left."""
        turns = 0
        before = self.now
        while True:
            when = self._next()
            if when is None or when > until:
                self.now = max(self.now, until)
                return
            self.now = max(self.now, when)
            turns = turns + 1 if self.now == before else 0
            before = self.now
            assert turns < 100_000, f"time stands still at {self.now}"
            self._turn()

    def _turn(self) -> None:
        """Do what is due now: packets and plans first, then the timers of each node."""
        while self._due and self._due[0][0] <= self.now:
            heappop(self._due)[2](self.now)
        for node in dict.fromkeys(self._nodes.values()):
            deadline = node.next_deadline()
            if deadline is not None and deadline <= self.now:
                node.handle_timers(self.now)

    def _next(self) -> float | None:
        times = [self._due[0][0]] if self._due else []
        for node in dict.fromkeys(self._nodes.values()):
            deadline = node.next_deadline()
            if deadline is not None:
                times.append(deadline)
        return min(times, default=None)

    def _delay(self) -> float:
        return self._random.uniform(*self.delay_s)

    def _schedule(self, when: float, action: Callable[[float], None]) -> None:
        self._count += 1
        heappush(self._due, (when, self._count, action))

    def deliver(self, flow: Flow, data: bytes) -> None:
        """Hand a packet to the node at the far end of the sender's flow, if both still stand."""
        node = self._nodes.get(flow.remote)
        if node is None or flow.closed:
            return
        self.delivered += 1
        mine = self.flow(flow.remote, flow.local, flow.transport)
        self.log.append((self.now, mine, data))
        node.receive(data, mine, self.now)


class _Delivery:
    """A packet on its way."""

    __slots__ = ("_data", "_flow", "_network")

    def __init__(self, network: LossyNetwork, flow: Flow, data: bytes) -> None:
        self._network = network
        self._flow = flow
        self._data = data

    def __call__(self, _now: float) -> None:
        self._network.deliver(self._flow, self._data)
