"""Calls in simulated time: the real stack with the real rules, between a scripted caller and a scripted target.

No sockets and no waiting: messages are real bytes both ways, the clock is turned. Hours of calls take seconds, and the
same seed gives the same calls.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final

from proxy.audit.records import Event
from proxy.audit.sinks import Sink
from proxy.b2bua.config import AttemptPlan, Network, RetryPolicy, StackConfig, Target
from proxy.b2bua.effects import Open, Resolve, Send
from proxy.b2bua.stack import Stack
from proxy.rewrite.engine import RuleSet
from proxy.sim.media import Origin, sdes_key
from proxy.sim.shape import Caller, make_caller, make_identity, make_invite
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Header, Request, Response, header
from proxy.sip.parser import parse_message
from proxy.sip.uri import parse_uri

__all__ = ["START", "WALL_OFFSET", "Causes", "Rehearsal", "RehearsalOptions"]

START: Final = 1000.0
WALL_OFFSET: Final = 1_795_435_200.0 - START
"""What to add to simulated time for Unix time: it begins on 2026-11-23 at 12:00 UTC."""

_OURS: Final = ("198.51.100.7", 5061)
_EDGES: Final = ("192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13")
_TARGETS: Final = ("203.0.113.21", "203.0.113.22", "203.0.113.23")
_URI: Final = "sip:+15550100001@edge.example.com;transport=tls"
_ONE_WAY_S: Final = 0.02
_CONNECTION_S: Final = 900.0
_HEADERS: Final = (
    ("Diversion", 0.4),
    ("Privacy", 0.2),
    ("X-Tenant", 0.3),
    ("X-Campaign", 0.25),
    ("P-Asserted-Identity", 0.6),
)
_OTHER_SHARE: Final = 0.3
"""The share of INVITEs with a hidden header field that is none of these."""
_PROBLEMS: Final = (
    "maxptime-first", "opus-107", "dangling-rtpmap", "private-origin", "session-timer", "folded-headers", "odd-casing",
)  # fmt: skip
_ANSWER: Final = (
    "v=0\r\no=- 7 7 IN IP4 203.0.113.219\r\ns=OAI\r\nc=IN IP4 203.0.113.219\r\nt=0 0\r\n"
    "m=audio 43954 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=rtpmap:0 PCMU/8000\r\n"
)


@dataclass(frozen=True, slots=True)
class Causes:
    """Hidden causes of failure; what is empty is not there.

    Attributes:
        header: a header field whose INVITEs are refused with 400; `refused`: the share of them that are.
        address: an address of the target that answers INVITEs with 500; `broken`: the share that it does so to.
        broken_in: from and to, in seconds after the start: the address is broken then, and not at other times.
        window: from and to: the webhook comes too late; `slow`: for which share of the calls.
    """

    header: str = ""
    address: str = ""
    window: tuple[float, float] | None = None
    refused: float = 2 / 3
    broken: float = 1.0
    slow: float = 5 / 6
    broken_in: tuple[float, float] | None = None

    @staticmethod
    def draw(source: random.Random, span_s: float) -> Causes:
        """Three causes at random: one of the optional header fields, one address, an eighth to a sixth of the time."""
        start = source.uniform(0.1, 0.7) * span_s
        window = (start, start + source.uniform(0.12, 0.17) * span_s)
        return Causes(source.choice(_HEADERS)[0], source.choice(_TARGETS), window)

    def is_broken(self, address: str, elapsed_s: float, source: random.Random) -> bool:
        """Whether an address answers this INVITE with 500."""
        if address != self.address or not _within(self.broken_in, elapsed_s):
            return False
        return self.broken >= 1 or source.random() < self.broken

    def is_slow(self, elapsed_s: float, source: random.Random) -> bool:
        """Whether the webhook of a call comes too late."""
        return self.window is not None and _within(self.window, elapsed_s) and source.random() < self.slow


@dataclass(frozen=True, slots=True)
class RehearsalOptions:
    """What to place.

    Attributes:
        calls: how many, evenly over `span_s` seconds with some jitter.
        noise: the share of INVITEs that the target refuses for no reason at all.
        hold_s: how long an answered call lasts.
    """

    calls: int = 2000
    span_s: float = 14_400.0
    seed: int = 1
    noise: float = 0.03
    hold_s: float = 20.0
    causes: Causes = Causes()


def _within(window: tuple[float, float] | None, elapsed_s: float) -> bool:
    """Whether a moment is in a range of time; None is all of it."""
    return window is None or window[0] <= elapsed_s <= window[1]


class Rehearsal:
    """Places the calls.

    Args:
        options: what to place.
        rules: by name, with the name of the default set.
        sinks: who gets the events; their wall offset is WALL_OFFSET.
    """

    def __init__(
        self, options: RehearsalOptions, rules: Mapping[str, RuleSet], default_rules: str, sinks: Iterable[Sink]
    ) -> None:
        self.options = options
        self._random = random.Random(options.seed)
        hidden = options.causes.header
        named = {name for name, _ in _HEADERS}
        self._optional = _HEADERS if not hidden or hidden in named else (*_HEADERS, (hidden, _OTHER_SHARE))
        self._sinks = tuple(sinks)
        ids = random.Random(options.seed + 1)
        plans = (AttemptPlan(), AttemptPlan(), AttemptPlan("minimal")) if "minimal" in rules else (AttemptPlan(),)
        self._stack = Stack(
            StackConfig(
                targets={"openai": Target("openai", parse_uri("sip:proj_x@sip.api.example.com;transport=tls"))},
                rules=rules,
                default_rules=default_rules,
                allow=(Network(4, 0, 2**32 - 1, "0.0.0.0/0"),),
                public_address=_OURS[0],
                retry=RetryPolicy(attempts=plans),
            ),
            lambda: f"{ids.getrandbits(80):020x}",
            ids.random,
        )
        self._now = START
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._flows: dict[tuple[str, int], tuple[Flow, float]] = {}
        self._cancelled: set[str] = set()

    def run(self) -> None:
        """Place all calls and let them end."""
        options = self.options
        gap = options.span_s / options.calls
        for index in range(options.calls):
            at = START + (index + self._random.random()) * gap
            self._at(at, lambda index=index: self._call(index))  # type: ignore[misc]
        while True:
            deadline = self._stack.next_deadline()
            event = self._queue[0][0] if self._queue else None
            if deadline is not None and (event is None or deadline <= event):
                if event is None and not self._stack.calls_in_progress:
                    return
                self._now = max(self._now, deadline)
                self._stack.handle_timers(self._now)
            elif event is not None:
                self._now = max(self._now, event)
                heapq.heappop(self._queue)[2]()
            else:
                return
            self._perform()

    def _at(self, moment: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (moment, next(self._order), action))

    def _receive(self, flow: Flow, message: Request | Response, after_s: float) -> None:
        data = message.serialize()
        self._at(self._now + after_s, lambda: self._stack.receive(data, flow, self._now))

    # What the stack wants

    def _perform(self) -> None:
        while effects := self._stack.take_effects():
            for effect in effects:
                if isinstance(effect, Event):
                    for sink in self._sinks:
                        sink.emit(effect)
                elif isinstance(effect, Send):
                    self._arrived(parse_message(effect.data), effect.flow)
                elif isinstance(effect, Resolve):
                    hops = [Hop("tls", host, 5061, "sip.api.example.com") for host in _TARGETS]
                    self._random.shuffle(hops)
                    self._stack.resolved(effect.token, hops, self._now)
                elif isinstance(effect, Open):
                    flow = self._flow((effect.hop.host, effect.hop.port), outbound=True)
                    self._stack.flow_opened(effect.token, flow, self._now)

    def _flow(self, remote: tuple[str, int], *, outbound: bool) -> Flow:
        """The connection with a neighbour; now and then it is a new one."""
        flow, opened = self._flows.get(remote, (None, 0.0))
        if flow is None or self._now - opened > _CONNECTION_S:
            local = (_OURS[0], 40_000 + self._random.randrange(20_000)) if outbound else _OURS
            flow = Flow(
                "tls", local, remote, f"{_OURS[0]}:5061", "" if outbound else "tls", handle=_Connection(self._now)
            )
            self._flows[remote] = flow, self._now
        return flow

    def _arrived(self, message: Request | Response, flow: Flow) -> None:
        """A message of the stack has come to a neighbour."""
        if flow.remote[0] in _TARGETS:
            if isinstance(message, Request):
                self._at_target(message, flow)
        elif isinstance(message, Response):
            self._at_caller(message, flow)

    # The caller

    def _call(self, index: int) -> None:
        source = self._random
        flow = self._flow((source.choice(_EDGES), 5061), outbound=False)
        problem = source.choice(_PROBLEMS) if source.random() < 0.3 else None
        caller = make_caller(index, source, problem, False)
        self._stack.receive(self._invite(caller, flow).serialize(), flow, self._now)

    def _invite(self, caller: Caller, flow: Flow) -> Request:
        source = self._random
        identity = make_identity(source)
        vias = [header("Via", f"SIP/2.0/TLS {flow.remote[0]}:5061;branch=z9hG4bK{source.getrandbits(64):x}.0")]
        number = source.getrandbits(30)
        origin = Origin(number, number, "203.0.113.121", 10_000 + 2 * source.randrange(20_000), sdes_key(source))
        routes = [f"<sip:{flow.remote[0]}:5061;transport=tls;lr>"]
        request = make_invite(caller, identity, _URI, vias, routes, origin, False)
        lines = list(request.headers)
        for name, share in self._optional:
            has = source.random() < share
            key = name.lower()
            there = any(line.key == key for line in lines)
            if there and not has:
                lines = [line for line in lines if line.key != key]
            elif has and not there:
                lines.insert(-1, header(name, self._value(name)))
        return Request("INVITE", _URI, lines, request.body)

    def _value(self, name: str) -> str:
        return {"Privacy": "none", "X-Tenant": f"{self._random.randrange(40)}"}.get(
            name, f"{self._random.getrandbits(64):016x}"
        )

    def _at_caller(self, response: Response, flow: Flow) -> None:
        """The caller acknowledges a final response; after some time it hangs up."""
        if response.status < 200 or response.cseq.method != "INVITE":
            return
        ok = response.status < 300
        via = response.via.branch or "" if not ok else f"z9hG4bK{self._random.getrandbits(64):x}"
        self._receive(flow, self._caller_request("ACK", response, flow, via), _ONE_WAY_S)
        if ok:
            branch = f"z9hG4bK{self._random.getrandbits(64):x}"
            self._receive(flow, self._caller_request("BYE", response, flow, branch), self.options.hold_s)

    @staticmethod
    def _caller_request(method: str, response: Response, flow: Flow, branch: str) -> Request:
        contact = response.contact
        uri = contact.uri_text if contact is not None else _URI
        number = response.cseq.number + (method == "BYE")
        return Request(
            method,
            uri,
            [
                header("Via", f"SIP/2.0/TLS {flow.remote[0]}:5061;branch={branch}"),
                header("From", response.get("from") or ""),
                header("To", response.get("to") or ""),
                header("Call-ID", response.call_id),
                header("CSeq", f"{number} {method}"),
                header("Max-Forwards", "70"),
                header("Content-Length", "0"),
            ],
        )

    # The target

    def _at_target(self, request: Request, flow: Flow) -> None:
        if request.method == "INVITE":
            if request.to.tag is None:
                self._on_invite(request, flow)
        elif request.method == "CANCEL":
            self._answer(request, flow, 200, "OK", _ONE_WAY_S)
            self._cancelled.add(request.call_id)
            self._answer(request, flow, 487, "Request Terminated", _ONE_WAY_S, method="INVITE")
        elif request.method != "ACK":
            self._answer(request, flow, 200, "OK", _ONE_WAY_S)

    def _on_invite(self, request: Request, flow: Flow) -> None:
        """100 at once, and then what the hidden causes say."""
        source, causes = self._random, self.options.causes
        self._answer(request, flow, 100, "Trying", _ONE_WAY_S)
        elapsed = self._now - START
        slow = causes.is_slow(elapsed, source)
        unlucky = bool(causes.header) and request.get(causes.header.lower()) is not None
        unlucky = unlucky and source.random() < causes.refused
        if causes.is_broken(flow.remote[0], elapsed, source):
            self._answer(request, flow, 500, "Server Internal Error", 0.15)
        elif unlucky:
            self._answer(request, flow, 400, "Bad Request", 0.12)
        elif source.random() < self.options.noise:
            self._answer(request, flow, *source.choice(((400, "Bad Request"), (500, "Server Internal Error"))), 0.2)
        elif slow:
            self._answer(request, flow, 400, "Bad Request", 11.0)
        else:
            self._answer(request, flow, 200, "OK", source.uniform(0.3, 1.2), body=_ANSWER)

    def _answer(
        self, request: Request, flow: Flow, status: int, reason: str, after_s: float, body: str = "", method: str = ""
    ) -> None:
        """Answer a request after some time, unless it was cancelled by then; `method` where it is that of another."""
        to = request.get("to") or ""
        number = request.cseq.number
        lines: list[Header] = [
            *[item for item in request.headers if item.key == "via"],
            header("From", request.get("from") or ""),
            header("To", to if status == 100 or ";tag=" in to else f"{to};tag=t{request.call_id[:8]}"),
            header("Call-ID", request.call_id),
            header("CSeq", f"{number} {method or request.method}"),
        ]
        if body:
            lines.append(header("Contact", "<sip:OAI@sip.api.example.com:5061>"))
        lines.append(header("Content-Length", str(len(body))))
        data = Response(status, reason, lines, body.encode()).serialize()
        invite = request.method == "INVITE"

        def deliver() -> None:
            if not (invite and request.call_id in self._cancelled):
                self._stack.receive(data, flow, self._now)

        self._at(self._now + after_s, deliver)


class _Connection:
    """What a flow's handle tells the record."""

    __slots__ = ("_opened",)

    def __init__(self, opened: float) -> None:
        self._opened = opened

    def facts(self) -> tuple[str, float]:
        """TLS version and cipher suite, and when the connection was opened."""
        return "TLSv1.3 TLS_AES_256_GCM_SHA384", self._opened
