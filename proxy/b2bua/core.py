"""What calls, legs and attempts share: configuration, services without a clock, the dialogs, the effects."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from proxy.audit.records import Change, Event
from proxy.b2bua.admission import RejectionCache
from proxy.b2bua.config import StackConfig
from proxy.b2bua.effects import Effect, Open, Resolve, Send
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Header, Message, header
from proxy.sip.uri import Uri
from proxy.transaction.layer import LayerUser, TransactionLayer
from proxy.transaction.timers import TimerQueue

if TYPE_CHECKING:
    from proxy.b2bua.call import Call
    from proxy.b2bua.health import Health
    from proxy.b2bua.leg import Leg

__all__ = ["AVOID_S", "BRANCH_PREFIX", "Core", "FlowUser"]

BRANCH_PREFIX = "z9hG4bK"
AVOID_S = 30.0
"""How long an address that failed is tried after all others."""

_MAX_BAD_HOPS = 1024
_REJECTION_T1 = 120
_Address = tuple[str, str, int]


class FlowUser(Protocol):
    """Who asked for a flow."""

    def on_flow(self, flow: Flow, now: float) -> None:
        """A flow is there."""

    def on_no_flow(self, reason: str, now: float) -> None:
        """No hop of the URI could be reached."""


class _Search:
    """The way from a URI to a flow: resolve, then try one hop after the other.

    Attributes:
        hops: those that are left, the best one last.
        tried: the one that is being tried.
    """

    __slots__ = ("hops", "reason", "tried", "user")

    def __init__(self, user: FlowUser, hops: list[Hop]) -> None:
        self.user = user
        self.hops = hops
        self.tried: Hop | None = None
        self.reason = ""


class Core:
    """Services of the stack for its calls.

    Attributes:
        legs: the dialogs, by (Call-ID, our tag).
        calls: the calls in progress, by our id.
        udp_only: the addresses that refused a TCP connection when a request was too large for UDP.
        health: which targets are up; the stack sets it before the first call.
        effects: what the runtime has to do, in order.
        webhooks_seen: how many webhooks have passed by us.
        capabilities: Allow and User-Agent for requests, `reply_capabilities`: Allow and Server for responses.
    """

    health: Health

    def __init__(
        self, config: StackConfig, new_id: Callable[[], str], random: Callable[[], float], user: LayerUser
    ) -> None:
        self.config = config
        self.new_id = new_id
        self.random = random
        self.timers = TimerQueue()
        self.effects: list[Effect] = []
        self.layer = TransactionLayer(config.timers, self.timers, self.send, user)
        self.legs: dict[tuple[str, str], Leg] = {}
        self.calls: dict[str, Call] = {}
        self.capabilities: list[Header] = []
        self.reply_capabilities: list[Header] = []
        self.rejections = RejectionCache(_REJECTION_T1 * config.timers.t1_s)
        self._ended: deque[tuple[float, Call]] = deque()
        self.webhooks_seen = 0
        self.udp_only: set[tuple[str, int]] = set()
        self._searches: dict[int, _Search] = {}
        self._bad_hops: dict[_Address, float] = {}
        self._next_token = 0

    def allow(self, methods: str) -> None:
        """State the methods that this stack takes, for every Allow that it sends."""
        allow = header("Allow", methods)
        self.capabilities = [allow, header("User-Agent", self.config.user_agent)]
        self.reply_capabilities = [allow, header("Server", self.config.user_agent)]

    def new_branch(self) -> str:
        """A fresh Via branch with the magic cookie (RFC 3261 section 8.1.1.7)."""
        return BRANCH_PREFIX + self.new_id()

    def send(self, flow: Flow, data: bytes) -> None:
        """Have bytes written to a flow."""
        self.effects.append(Send(flow, data))

    def record(
        self, kind: str, now: float, call: str, fields: dict[str, object], leg: str = "", attempt: int = 0
    ) -> None:
        """Hand an event to the sinks."""
        self.effects.append(Event(kind, now, call, leg, attempt, fields))

    def record_message(
        self,
        now: float,
        call: str,
        leg: str,
        direction: str,
        flow: Flow,
        message: Message,
        attempt: int = 0,
        changes: list[Change] | None = None,
        source: Message | None = None,
    ) -> None:
        """Record a message as it came in or went out; `changes` where it was made from one of the other leg.

        `source`: that one, where it is not the latest one there of this very kind: a request was made from a response,
        or from one of another method, or the message had to wait while others may have come.
        """
        fields: dict[str, object] = {"direction": direction, "flow": flow, "message": message}
        if changes is not None:
            fields["changes"] = changes
        if source is not None:
            fields["source"] = source
        self.effects.append(Event("message", now, call, leg, attempt, fields))

    def bury(self, call: Call, now: float) -> None:
        """Release a call that has ended once its last transactions have too."""
        self._ended.append((now + 64 * self.config.timers.t1_s, call))

    def release_ended(self, now: float) -> None:
        """Let go of the calls whose time has come. Nobody is woken for it: it is done when timers are run."""
        ended = self._ended
        while ended and ended[0][0] <= now:
            call = ended.popleft()[1]
            if not call.release():
                self.bury(call, now)

    @property
    def ended_calls(self) -> int:
        """How many calls have ended and are not released yet."""
        return len(self._ended)

    def find_flow(self, uri: Uri, user: FlowUser, hops: list[Hop] | None = None) -> int:
        """Ask for a flow to a URI; `user` hears of it. Returns a token for `forget_search`.

        A list given as `hops` holds, once there is a flow, the hops that have not been tried, for `next_flow`.
        """
        self._next_token += 1
        token = self._next_token
        self._searches[token] = _Search(user, [] if hops is None else hops)
        self.effects.append(Resolve(token, uri))
        return token

    def next_flow(self, user: FlowUser, hops: list[Hop], now: float) -> int:
        """Ask for a flow to the next of the hops that `find_flow` left. Returns a token as that does."""
        self._next_token += 1
        token = self._next_token
        search = self._searches[token] = _Search(user, hops)
        self._next_hop(token, search, now)
        return token

    def avoid(self, flow: Flow, now: float, seconds: float = AVOID_S) -> None:
        """Nobody at a flow's remote address serves us: for a while it is tried after all others (RFC 3263 4.3)."""
        self._avoid((flow.transport, *flow.remote), now + seconds)

    def _avoid(self, address: _Address, until: float) -> None:
        bad = self._bad_hops
        bad.pop(address, None)
        if len(bad) >= _MAX_BAD_HOPS:
            del bad[next(iter(bad))]
        bad[address] = until

    def open_hop(self, hop: Hop, user: FlowUser) -> int:
        """Ask for a flow to one hop; `user` hears of it. Returns a token for `forget_search`."""
        self._next_token += 1
        token = self._next_token
        self._searches[token] = _Search(user, [])
        self.effects.append(Open(token, hop))
        return token

    def forget_search(self, token: int) -> None:
        """Let go of a search whose outcome nobody waits for any more."""
        self._searches.pop(token, None)

    def resolved(self, token: int, hops: list[Hop], now: float) -> None:
        """The runtime found the hops of a URI, the best one first."""
        search = self._searches.get(token)
        if search is not None:
            bad = self._bad_hops
            if bad and len(hops) > 1:
                hops = sorted(hops, key=lambda hop: bad.get((hop.transport, hop.host, hop.port), now) > now)
            search.hops[:] = hops[::-1]
            self._next_hop(token, search, now)

    def flow_opened(self, token: int, flow: Flow, now: float) -> None:
        """The runtime has a flow to the hop that was asked for."""
        search = self._searches.pop(token, None)
        if search is not None:
            search.user.on_flow(flow, now)

    def hop_failed(self, token: int, reason: str, now: float) -> None:
        """A hop could not be reached, or nothing could be resolved; the next hop is tried."""
        search = self._searches.get(token)
        if search is not None:
            search.reason = reason
            hop = search.tried
            if hop is not None:
                self._avoid((hop.transport, hop.host, hop.port), now + AVOID_S)
            self._next_hop(token, search, now)

    def _next_hop(self, token: int, search: _Search, now: float) -> None:
        if search.hops:
            search.tried = search.hops.pop()
            self.effects.append(Open(token, search.tried))
            return
        del self._searches[token]
        search.user.on_no_flow(search.reason or "no address found", now)

    @property
    def searches(self) -> int:
        """How many searches for a flow are under way."""
        return len(self._searches)
