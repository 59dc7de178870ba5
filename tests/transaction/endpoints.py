"""A caller and a callee that talk through transaction layers alone, for runs over a lossy network."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request, Response, header
from proxy.sip.parser import check_request, parse_message
from proxy.sip.respond import make_response
from proxy.transaction.client import ClientTransaction, make_cancel
from proxy.transaction.layer import TransactionLayer
from proxy.transaction.server import ServerTransaction
from proxy.transaction.tables import State
from proxy.transaction.timers import Timer, TimerQueue, TimerSettings
from tests.support.lossy import LossyNetwork

PATIENCE_S = 90.0
CANCEL_LIMIT_S = 32.0


@dataclass
class Plan:
    """How the callee answers a request: (seconds after it came, status) of its responses."""

    provisionals: list[tuple[float, int]]
    final: tuple[float, int]


class Endpoint:
    """A node with a transaction layer."""

    def __init__(self, network: LossyNetwork) -> None:
        self.network = network
        self.timers = TimerQueue()
        self.layer = TransactionLayer(TimerSettings(), self.timers, network.send, self)
        self.strays = 0

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        message = parse_message(data)
        if isinstance(message, Request):
            check_request(message)
            self.layer.receive_request(message, flow, now)
        else:
            self.layer.receive_response(message, flow, now)

    def next_deadline(self) -> float | None:
        return self.timers.next_deadline()

    def handle_timers(self, now: float) -> None:
        self.timers.run(now)

    def flow_closed(self, flow: Flow, now: float) -> None:
        self.layer.flow_closed(flow, now)

    def on_request(self, tx: ServerTransaction, now: float) -> None:
        raise AssertionError("a request at an endpoint that takes none")

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        raise AssertionError("an ACK at an endpoint that takes none")

    def on_cancel(self, tx: ServerTransaction, invite: ServerTransaction | None, now: float) -> None:
        raise AssertionError("a CANCEL at an endpoint that takes none")

    def on_server_failure(self, tx: ServerTransaction, now: float) -> None:
        raise AssertionError("a server failure at an endpoint that takes no requests")

    def on_stray_response(self, response: Response, flow: Flow, now: float) -> None:
        self.strays += 1


@dataclass
class Outcome:
    """What the user of one client transaction was told. `ended_at`: when it was told that no response is to come."""

    tx: ClientTransaction
    provisionals: list[int] = field(default_factory=list)
    finals: list[int] = field(default_factory=list)
    timeouts: int = 0
    failures: int = 0
    given_up: bool = False
    cancelled: bool = False
    ended_at: float = inf


class Caller(Endpoint):
    """Sends requests; ACKs each 2xx to INVITE; after `PATIENCE_S` cancels, and then gives up."""

    def __init__(self, network: LossyNetwork) -> None:
        super().__init__(network)
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self._count = 0

    def start(self, method: str, flow: Flow, now: float) -> Outcome:
        """Send a new request."""
        self._count += 1
        name = str(self._count)
        lines = [
            header("Via", f"SIP/2.0/{flow.transport.upper()} {flow.advertised};branch=z9hG4bK{name}"),
            header("Max-Forwards", "70"),
            header("From", f"<sip:caller@example.net>;tag=f{name}"),
            header("To", "<sip:callee@example.com>"),
            header("Call-ID", name),
            header("CSeq", f"1 {method}"),
            header("Contact", f"<sip:caller@{flow.advertised}>"),
            header("Content-Length", "0"),
        ]
        outcome = self._send(Request(method, "sip:callee@example.com", lines), flow, now)
        if method == "INVITE":
            _Patience(self, outcome, now)
        return outcome

    def cancel(self, outcome: Outcome, now: float) -> bool:
        """Send a CANCEL, if that makes sense now."""
        tx = outcome.tx
        if outcome.cancelled or not tx.provisional_received or tx.state != State.PROCEEDING:
            return False
        outcome.cancelled = True
        self._send(make_cancel(tx.request), tx.flow, now)
        return True

    def _send(self, request: Request, flow: Flow, now: float) -> Outcome:
        tx = self.layer.send_request(request, flow, self, now)
        outcome = self.outcomes[tx.key] = Outcome(tx)
        return outcome

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        outcome = self.outcomes[tx.key]
        if response.status < 200:
            outcome.provisionals.append(response.status)
            return
        outcome.finals.append(response.status)
        if tx.method == "INVITE" and response.status < 300:
            self._acknowledge(tx, response)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        self.outcomes[tx.key].timeouts += 1
        self.outcomes[tx.key].ended_at = now

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        self.outcomes[tx.key].failures += 1
        self.outcomes[tx.key].ended_at = now

    def _acknowledge(self, tx: ClientTransaction, response: Response) -> None:
        lines: list[Header] = []
        for item in tx.request.headers:
            if item.key == "via":
                lines.append(header("Via", f"{item.value}ack"))
            elif item.key == "to":
                lines.append(header("To", response.get("to") or ""))
            elif item.key == "cseq":
                lines.append(header("CSeq", "1 ACK"))
            else:
                lines.append(item)
        self.network.send(tx.flow, Request("ACK", "sip:callee@example.com", lines).serialize())


class _Patience:
    """Cancels an INVITE that rings for too long, and drops it when not even that ends it (RFC 3261 section 9.1)."""

    def __init__(self, caller: Caller, outcome: Outcome, now: float) -> None:
        self.caller = caller
        self.outcome = outcome
        caller.timers.schedule(now + PATIENCE_S, self.cancel)

    def cancel(self, now: float) -> None:
        self.caller.cancel(self.outcome, now)
        if self.outcome.tx.state in (State.CALLING, State.PROCEEDING):
            self.caller.timers.schedule(now + CANCEL_LIMIT_S, self.give_up)

    def give_up(self, now: float) -> None:
        if self.outcome.tx.state in (State.CALLING, State.PROCEEDING):
            self.outcome.given_up = True
            self.outcome.ended_at = now
            self.outcome.tx.terminate(now)


class Callee(Endpoint):
    """Answers requests by their plan; repeats a 2xx to INVITE until the ACK comes (RFC 3261 section 13.3.1.4)."""

    def __init__(self, network: LossyNetwork) -> None:
        super().__init__(network)
        self.plans: dict[str, Plan] = {}
        self.requests: list[ServerTransaction] = []
        self.acknowledged: set[str] = set()
        self.unacknowledged: set[str] = set()
        self.failed: list[ServerTransaction] = []

    def on_request(self, tx: ServerTransaction, now: float) -> None:
        self.requests.append(tx)
        _Answer(self, tx, self.plans[tx.request.call_id], now)

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        self.acknowledged.add(request.call_id)

    def on_cancel(self, tx: ServerTransaction, invite: ServerTransaction | None, now: float) -> None:
        self.requests.append(tx)
        tx.respond(make_response(tx.request, 481 if invite is None else 200, to_tag="callee"), now)
        if invite is not None and invite.last_status < 200:
            invite.respond(make_response(invite.request, 487, to_tag="callee"), now)

    def on_server_failure(self, tx: ServerTransaction, now: float) -> None:
        self.failed.append(tx)


class _Answer:
    """Carries out a plan."""

    def __init__(self, callee: Callee, tx: ServerTransaction, plan: Plan, now: float) -> None:
        self.callee = callee
        self.tx = tx
        self.pending = sorted([*plan.provisionals, plan.final], key=lambda step: (step[1] >= 200, step[0]))
        self.began = now
        self.interval_s = 0.5
        self.timer: Timer | None = None
        if tx.method == "INVITE":
            self.respond(100, now)
        self.wait(now)

    def wait(self, now: float) -> None:
        self.callee.timers.schedule(max(now, self.began + self.pending[0][0]), self.next)

    def next(self, now: float) -> None:
        status = self.pending.pop(0)[1]
        if self.tx.last_status >= 200:
            return
        self.respond(status, now)
        if status < 200:
            self.wait(now)
        elif self.tx.method == "INVITE" and status < 300:
            self.began = now
            self.callee.timers.schedule(now + self.interval_s, self.repeat)

    def repeat(self, now: float) -> None:
        call_id = self.tx.request.call_id
        if call_id in self.callee.acknowledged:
            return
        if now - self.began >= 32 or self.tx.state == State.TERMINATED:
            self.callee.unacknowledged.add(call_id)
            return
        self.respond(self.tx.last_status, now)
        self.interval_s = min(2 * self.interval_s, 4.0)
        self.callee.timers.schedule(now + self.interval_s, self.repeat)

    def respond(self, status: int, now: float) -> None:
        self.tx.respond(make_response(self.tx.request, status, to_tag="callee"), now)
