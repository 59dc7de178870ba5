"""The Twilio side, simulated: places calls of the shape that its trunks send, well-formed or with real problems.

Each call waits for its answer as Twilio does, acknowledges it through the route set, talks, and hangs up with a Reason.
What comes back is checked: Vias, route set, Content-Type, the answer against the offer.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import floor
from typing import Final

from proxy.sim.dialog import SimDialog
from proxy.sim.endpoint import TRANSPORTS, Endpoint, client_context
from proxy.sim.report import CallResult, Progress, Report
from proxy.sim.shape import EDGE, PROBLEMS, Caller, make_caller
from proxy.sim.twilio_call import TwilioCall
from proxy.sip.errors import SipError
from proxy.sip.flow import Flow, Hop
from proxy.sip.headers import parse_name_addr
from proxy.sip.message import Request, Response
from proxy.sip.respond import make_response
from proxy.sip.uri import Uri, parse_uri, split_host_port
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import TimerSettings

__all__ = ["PublicTarget", "TwilioConfig", "TwilioSim", "place_calls"]

_PROGRESS_INTERVAL_S: Final = 0.1
_DEFAULT_PORTS: Final = {"udp": 5060, "tcp": 5060, "tls": 5061}


class PublicTarget(ValueError):
    """Calls may not go there: the target is not on loopback, and nobody said that it may be public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioConfig:
    """What calls to place.

    Attributes:
        target: the Request-URI, `sip:[user@]host[:port][;transport=…]`; without a user each call has its own number.
        next_hop: `address:port` to send to, when it is not the target's.
        transport: "udp", "tcp" or "tls"; None takes the target's (UDP when it names none).
        calls: how many. rate: how many a second; the pace does not wait for answers.
        concurrency: calls in progress above which new ones wait; 0 for no limit.
        connections: TCP or TLS connections to spread the calls over.
        hold_ms: from the answer to the BYE. hang_up: "caller" or "callee", who is to send it.
        cancel_share: the share of calls that are cancelled `cancel_after_ms` after their INVITE, if not answered then.
        problem_share: the share of problem INVITEs, each of a kind in `problems` in turn (see `shape.PROBLEMS`).
        media_security: "rtp" or "srtp".
        patience_s: an INVITE without a final answer in that time is cancelled, and the call has failed.
        seed: the same seed gives the same CallSids, numbers and problems. SIP's own identifiers are always fresh.
        ca_file: PEM file of the CAs to trust; None trusts the system's. verify: False trusts anyone.
        server_name: the name that the certificate must prove; None takes the target's host.
        edge: `host:port` in our Via and Record-Route; None takes the socket's over UDP, a documentation address else.
        allow_public: permits targets that are not on loopback.
        settle_s: how long to listen on for stray messages when all calls are over.
        timers: T1, T2, T4.
    """

    target: str
    next_hop: str | None = None
    transport: str | None = None
    calls: int = 1
    rate: float = 10.0
    concurrency: int = 0
    connections: int = 1
    hold_ms: float = 1000
    hang_up: str = "caller"
    cancel_share: float = 0.0
    cancel_after_ms: float = 500
    problem_share: float = 0.0
    problems: tuple[str, ...] = PROBLEMS
    media_security: str = "srtp"
    patience_s: float = 60.0
    seed: int = 0
    ca_file: str | None = None
    verify: bool = True
    server_name: str | None = None
    edge: str | None = None
    allow_public: bool = False
    settle_s: float = 0.05
    timers: TimerSettings = field(default_factory=TimerSettings)

    def __post_init__(self) -> None:
        if self.calls < 1 or self.rate <= 0 or self.concurrency < 0 or self.connections < 1:
            raise ValueError("calls and connections are at least 1, the rate is above 0, concurrency not negative")
        for name in ("cancel_share", "problem_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")
        for name, allowed in (
            ("transport", (None, *TRANSPORTS)),
            ("hang_up", ("caller", "callee")),
            ("media_security", ("rtp", "srtp")),
        ):
            if getattr(self, name) not in allowed:
                words = ", ".join(word for word in allowed if word is not None)
                raise ValueError(f"{name} is one of {words}, not {getattr(self, name)!r}")
        unknown = [kind for kind in self.problems if kind not in PROBLEMS]
        if unknown or not self.problems:
            raise ValueError(f"unknown problem kind {', '.join(unknown)}; there are: {', '.join(PROBLEMS)}")


async def place_calls(config: TwilioConfig, on_progress: Callable[[Progress], None] | None = None) -> Report:
    """Place calls, and report when all of them are over.

    `on_progress` is called about ten times a second. Raises PublicTarget, ValueError for a target that is no SIP URI
    or a CA file that is no use, and OSError when the target can't be reached at all.
    """
    return await TwilioSim(config, on_progress).run()


class TwilioSim:
    """The simulated Twilio side, for one run.

    Attributes:
        config: what to do.
        endpoint: its SIP endpoint.
        report: the result; complete when `run` returns.
        random: the source of fresh identifiers.
    """

    def __init__(self, config: TwilioConfig, on_progress: Callable[[Progress], None] | None = None) -> None:
        self.config = config
        self.endpoint = Endpoint(self, config.timers)
        self.report = Report(wanted=config.calls, wanted_rate=config.rate)
        self.random = random.Random(secrets.randbits(64))
        self._uri = _parse_target(config.target)
        self._on_progress = on_progress
        self._callers = _Callers(config)
        self._tls = client_context(config.ca_file, verify=config.verify) if _transport(config) == "tls" else None
        self._hop: Hop | None = None
        self._flows: list[Flow | None] = [None] * config.connections
        self._connecting: dict[int, list[TwilioCall]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialogs: dict[tuple[str, str], TwilioCall] = {}
        self._calls: set[TwilioCall] = set()
        self._to_place = config.calls
        self._placing_from = 0.0
        self._placed_last = 0.0
        self._next_tick: asyncio.Handle | None = None
        self._waits = False
        self._all_over: asyncio.Event | None = None

    async def run(self) -> Report:
        """Place the calls; see `place_calls`. To be called once."""
        loop = self.endpoint.loop
        self._all_over = asyncio.Event()
        watcher: asyncio.Task[None] | None = None
        try:
            self._hop = await self._resolve()
            await self._connect_all()
            self._placing_from = loop.time()
            self._tick()
            if self._on_progress is not None:
                watcher = asyncio.create_task(self._watch(self._on_progress))
            await self._all_over.wait()
            duration_s = loop.time() - self._placing_from
            await asyncio.sleep(self.config.settle_s)
        finally:
            if watcher is not None:
                watcher.cancel()
            if self._next_tick is not None:
                self._next_tick.cancel()
            for task in self._tasks:
                task.cancel()
            await self.endpoint.stop()
        self.report.close(duration_s, self._placed_last - self._placing_from, self.endpoint.traffic.to_dict())
        if self._on_progress is not None:
            self._on_progress(self.progress())
        return self.report

    def stop_placing(self) -> None:
        """Place no more calls; `run` ends when those in progress are over."""
        self._to_place = self.report.calls
        self._check_end()

    def hang_up(self) -> None:
        """Place no more calls, and end those in progress: by BYE, or by CANCEL where they are not answered yet."""
        for call in list(self._calls):
            call.end()
        self.stop_placing()

    def give_up(self) -> None:
        """Let `run` end now; calls in progress have failed."""
        for call in list(self._calls):
            call.fail("given up")
        self.stop_placing()

    def progress(self) -> Progress:
        """How far the run is."""
        report = self.report
        elapsed_s = self.endpoint.now - self._placing_from if self._placing_from else 0.0
        counts = (report.answered, report.cancelled, report.failed)
        return Progress(
            self._to_place,
            report.calls,
            len(self._calls),
            *counts,
            round(elapsed_s, 3),
            len(self._dialogs),
            tuple(report.failures.most_common()),
            self.endpoint.traffic.received > 0,
        )

    # What calls need.

    def request_uri(self, caller: Caller) -> str:
        """The Request-URI of a call."""
        return self._uri.text if self._uri.user else self._uri.replace(user=caller.to_number).text

    def edge(self, flow: Flow) -> str:
        """Our `host:port` in Via and Record-Route."""
        return self.config.edge or (f"{EDGE}:{_DEFAULT_PORTS[flow.transport]}" if flow.reliable else flow.advertised)

    def dialog_flow(self, call: TwilioCall, dialog: SimDialog) -> Flow:
        """Where requests of a dialog go: over TCP and TLS by a connection that is open; over UDP to the next hop.

        Over UDP a next hop that we may not send to is replaced by the flow that the call came up on.
        """
        flow = call.flow
        assert flow is not None
        if flow.reliable:
            current = self._flows[call.caller.index % len(self._flows)]
            return current if flow.closed and current is not None and not current.closed else flow
        try:
            uri = parse_name_addr(dialog.routes[0]).uri if dialog.routes else parse_uri(dialog.target)
        except SipError as error:
            self.unexpected(f"unusable next hop: {error.reason}")
            return flow
        host = uri.host.strip("[]")
        if (uri.param("transport") or "udp").lower() != "udp" or not (_is_loopback(host) or self.config.allow_public):
            return flow
        return self.endpoint.flow_to((host, uri.port or 5060)) or flow

    def add_dialog(self, call: TwilioCall) -> None:
        """Requests with this Call-ID and our tag belong to a call."""
        self._dialogs[(call.identity.call_id, call.identity.tag)] = call

    def unexpected(self, what: str) -> None:
        """Count something that should not have happened."""
        self.report.unexpected[what] += 1

    def finished(self, call: TwilioCall, result: CallResult) -> None:
        """A call is over."""
        self.report.add(result)
        self._dialogs.pop((call.identity.call_id, call.identity.tag), None)
        self._calls.discard(call)
        if self._waits:
            self._waits = False
            self._tick()
        self._check_end()

    # What the transaction layer calls.

    def on_request(self, tx: ServerTransaction, now: float) -> None:
        """A request of the other side."""
        request = tx.request
        call = self._dialogs.get((request.call_id, request.to.tag or ""))
        if call is not None:
            call.on_request(tx)
            return
        status = 200 if tx.method == "OPTIONS" else 481
        if status != 200:
            self.unexpected(f"{tx.method} outside of any dialog")
        self.endpoint.respond(tx, make_response(request, status, remote=tx.flow.remote, to_tag="unknown"))

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """An ACK for a 2xx."""
        call = self._dialogs.get((request.call_id, request.to.tag or ""))
        if call is not None:
            call.on_ack(request)

    def on_cancel(self, tx: ServerTransaction, invite: ServerTransaction | None, now: float) -> None:
        """A CANCEL: we answer re-INVITEs at once, so that nothing is left to cancel."""
        status = 481 if invite is None else 200
        self.endpoint.respond(tx, make_response(tx.request, status, remote=tx.flow.remote))

    def on_stray_response(self, response: Response, flow: Flow, now: float) -> None:
        """A response to nothing."""
        self.unexpected(f"stray {response.status} to {_method(response)}")

    def on_server_failure(self, tx: ServerTransaction, now: float) -> None:
        """A response that could not be sent."""
        self.unexpected(f"answer to {tx.method} could not be sent")

    # Placing.

    def _tick(self) -> None:
        """Place the calls that are due, and come back for the next one."""
        self._next_tick = None
        config = self.config
        report = self.report
        now = self.endpoint.now
        while report.calls < self._to_place:
            due = self._placing_from + report.calls / config.rate
            if due > now:
                self._next_tick = self.endpoint.loop.call_at(due, self._tick)
                return
            if config.concurrency and len(self._calls) >= config.concurrency:
                self._waits = True
                report.delayed += 1
                return
            report.placed(now - due)
            self._placed_last = now
            call = TwilioCall(self, self._callers.next(), now - self._placing_from)
            self._calls.add(call)
            self._place(call)

    def _place(self, call: TwilioCall) -> None:
        slot = call.caller.index % len(self._flows)
        flow = self._flows[slot]
        if flow is not None and not flow.closed:
            call.start(flow)
        elif slot in self._connecting:
            self._connecting[slot].append(call)
        else:
            self._connecting[slot] = [call]
            task = asyncio.ensure_future(self._reconnect(slot))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reconnect(self, slot: int) -> None:
        assert self._hop is not None
        try:
            flow = await self.endpoint.connect(self._hop, self._tls)
        except OSError:
            for call in self._connecting.pop(slot):
                call.fail("no connection")
            return
        self._flows[slot] = flow
        for call in self._connecting.pop(slot):
            call.start(flow)

    def _check_end(self) -> None:
        if not self._calls and self.report.calls == self._to_place and self._all_over is not None:
            self._all_over.set()

    async def _connect_all(self) -> None:
        assert self._hop is not None
        for slot in range(len(self._flows)):
            try:
                self._flows[slot] = await self.endpoint.connect(self._hop, self._tls)
            except OSError as error:
                reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or error
                raise OSError(error.errno, f"no connection to {self._hop}: {reason}") from error

    async def _watch(self, on_progress: Callable[[Progress], None]) -> None:
        while True:
            on_progress(self.progress())
            await asyncio.sleep(_PROGRESS_INTERVAL_S)

    async def _resolve(self) -> Hop:
        config = self.config
        transport = _transport(config)
        host, port = self._uri.host, self._uri.port
        if config.next_hop is not None:
            try:
                host, port = split_host_port(config.next_hop)
            except SipError as error:
                raise ValueError(f"next hop {config.next_hop!r}: {error.reason}") from error
        host = host.strip("[]")
        address = "127.0.0.1" if host.lower() == "localhost" else host
        if not _is_loopback(address):
            if not config.allow_public:
                raise PublicTarget(f"{host} is not a loopback address; calls to it must be allowed explicitly")
            info = await self.endpoint.loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
            address = str(info[0][4][0])
        server_name = config.server_name or self._uri.host.strip("[]")
        return Hop(transport, address, port or _DEFAULT_PORTS[transport], server_name if transport == "tls" else "")


class _Callers:
    """Draws the calls of a run, one after another: problems and CANCELs spread evenly, kinds of problems in turn."""

    def __init__(self, config: TwilioConfig) -> None:
        self._config = config
        self._random = random.Random(config.seed)
        self._kinds = list(config.problems)
        self._random.shuffle(self._kinds)
        self._index = 0
        self._problems = 0

    def next(self) -> Caller:
        """The next call."""
        index = self._index
        self._index += 1
        problem = None
        if _falls(index, self._config.problem_share, 0.0):
            problem = self._kinds[self._problems % len(self._kinds)]
            self._problems += 1
        return make_caller(index, self._random, problem, _falls(index, self._config.cancel_share, 0.5))


def _falls(index: int, share: float, phase: float) -> bool:
    """Whether call `index` is one of an evenly spread share; of n calls floor(n * share + phase) are."""
    return floor((index + 1) * share + phase) > floor(index * share + phase)


def _transport(config: TwilioConfig) -> str:
    return config.transport or (_parse_target(config.target).param("transport") or "udp").lower()


def _parse_target(text: str) -> Uri:
    try:
        uri = parse_uri(text)
    except SipError as error:
        raise ValueError(f"target {text!r} is no URI such as sip:127.0.0.1:5060 ({error.reason})") from error
    if uri.scheme != "sip":
        raise ValueError(f"target {text!r} is not a sip: URI")
    if (uri.param("transport") or "udp").lower() not in TRANSPORTS:
        raise ValueError(f"target {text!r}: the transport is one of {', '.join(TRANSPORTS)}")
    return uri


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _method(response: Response) -> str:
    try:
        return response.cseq.method
    except SipError:
        return "nothing"
