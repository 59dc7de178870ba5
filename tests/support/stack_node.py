"""A stack as a node of a network: it performs the stack's effects there."""

from __future__ import annotations

from itertools import count
from random import Random

from proxy.audit.records import Event
from proxy.b2bua.config import StackConfig
from proxy.b2bua.effects import CloseFlow, Open, Resolve, Send
from proxy.b2bua.stack import Stack
from proxy.sip.flow import Flow, Hop
from tests.support.lossy import Address, LossyNetwork

__all__ = ["StackNode"]


class StackNode:
    """Joins a stack to a network.

    Attributes:
        events: what the stack recorded.
        sent: every message that it sent.
    """

    def __init__(self, config: StackConfig, network: LossyNetwork, address: Address, seed: int) -> None:
        ids = count(1)
        self.stack = Stack(config, lambda: f"id{next(ids)}", Random(seed).random)
        self.events: list[Event] = []
        self.sent: list[bytes] = []
        self._network = network
        self._address = address

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """One message."""
        self.stack.receive(data, flow, now)
        self.perform(now)

    def next_deadline(self) -> float | None:
        """The earliest timer."""
        return self.stack.next_deadline()

    def handle_timers(self, now: float) -> None:
        """Do what is due."""
        self.stack.handle_timers(now)
        self.perform(now)

    def flow_closed(self, flow: Flow, now: float) -> None:
        """A connection is gone."""
        self.stack.flow_closed(flow, now)
        self.perform(now)

    def perform(self, now: float) -> None:
        """Do what the stack wants done."""
        while effects := self.stack.take_effects():
            for effect in effects:
                if isinstance(effect, Send):
                    self.sent.append(effect.data)
                    self._network.send(effect.flow, effect.data)
                elif isinstance(effect, Resolve):
                    uri = effect.uri
                    hop = Hop(uri.param("transport") or "udp", uri.host, uri.port or 5060)
                    self.stack.resolved(effect.token, [hop], now)
                elif isinstance(effect, Open):
                    hop = effect.hop
                    flow = self._network.flow(self._address, (hop.host, hop.port), hop.transport)
                    self.stack.flow_opened(effect.token, flow, now)
                elif isinstance(effect, CloseFlow):
                    self._network.close(effect.flow)
                elif isinstance(effect, Event):
                    self.events.append(effect)
