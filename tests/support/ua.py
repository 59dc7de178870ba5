"""Small SIP user agents without I/O, to stand at both ends of a network: one places and takes calls by plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from proxy.dialog.dialog import Dialog
from proxy.sip.flow import Flow
from proxy.sip.message import Header, Request, Response, header
from proxy.sip.parser import check_request, parse_message
from proxy.sip.respond import make_response
from proxy.transaction.client import ClientTransaction, make_cancel
from proxy.transaction.layer import TransactionLayer
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import Timer, TimerQueue, TimerSettings
from tests.support.bench import ANSWER, OFFER
from tests.support.lossy import LossyNetwork

__all__ = ["Plan", "UaCall", "UserAgent"]

LIMIT_S = 32.0
MAX_FORWARDS = header("Max-Forwards", "70")


@dataclass
class Plan:
    """How one INVITE is answered: (seconds after it came, status) of its responses; none at all for silence.

    `hang_up_s`: when to send BYE after the ACK, or None.
    """

    responses: list[tuple[float, int]] = field(default_factory=lambda: [(0.1, 180), (0.3, 200)])
    hang_up_s: float | None = None


class UaCall:
    """One call at a user agent.

    Attributes:
        name: what the test calls it (X-Test).
        outcome: "calling", "ringing", "up" (2xx and ACK have passed) or "ended".
        status: the final status of its INVITE; 0 before.
        acknowledged: whether the ACK of a 2xx was sent or came.
        ended_by: "us" or "them" for a BYE, "refused", "cancelled", "timeout", "no ACK" …
    """

    def __init__(self, agent: UserAgent, name: str, flow: Flow) -> None:
        self.agent = agent
        self.name = name
        self.flow = flow
        self.outcome = "calling"
        self.status = 0
        self.acknowledged = False
        self.ended_by = ""
        self.dialog: Dialog | None = None
        self.invite: Request | None = None
        self.cancelled = False
        self.wants_cancel = False
        self.tx: ClientTransaction | ServerTransaction | None = None
        self.ack = b""
        self.repeat: Timer | None = None
        self.on_up: Callable[[float], None] | None = None

    def end(self, by: str) -> None:
        """The call is over, as far as this end knows."""
        if self.outcome != "ended":
            self.outcome = "ended"
            self.ended_by = by
        if self.repeat is not None:
            self.repeat.cancel()
            self.repeat = None

    # UAC

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        """What comes for INVITE, CANCEL and BYE."""
        if tx.method != "INVITE":
            return
        if response.status < 200:
            if self.outcome == "calling":
                self.outcome = "ringing"
            if self.wants_cancel:
                self.agent.cancel(self, now)
            return
        if response.status >= 300:
            self.status = self.status or response.status
            self.end("refused")
            return
        if self.ack:
            self.agent.send(self, self.ack)
            return
        self.status = response.status
        self.dialog = Dialog.as_uac(tx.request, response)
        self.ack = self.dialog.request("ACK", tx.request.cseq.number, self.agent.top(self.flow)).serialize()
        self.acknowledged = True
        self.agent.send(self, self.ack)
        if self.wants_cancel:
            self.agent.bye(self, now)
        else:
            self.outcome = "up"
            if self.on_up is not None:
                self.on_up(now)

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        """Nobody answers."""
        self.end("timeout")

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        """The connection is gone."""
        self.end("transport")


class UserAgent:
    """A node of a network that places calls (`place`) and takes them by `plans`.

    Attributes:
        calls: all calls, oldest first.
        plans: the plan for an INVITE, by its X-Test and how many INVITEs with that came before.
        odd: messages that had no place.
    """

    def __init__(self, network: LossyNetwork, tag: str, plans: Callable[[str, int], Plan] | None = None) -> None:
        self.network = network
        self.timers = TimerQueue()
        self.layer = TransactionLayer(TimerSettings(), self.timers, network.send, self)
        self.calls: list[UaCall] = []
        self.plans = plans or (lambda name, number: Plan())
        self.odd: list[str] = []
        self._tag = tag
        self._ids: Iterator[int] = count(1)
        self._dialogs: dict[tuple[str, str], UaCall] = {}
        self._ignored: dict[str, set[str]] = {}

    # Node

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """One message."""
        message = parse_message(data)
        if isinstance(message, Request):
            check_request(message)
            if not self._ignores(message):
                self.layer.receive_request(message, flow, now)
        else:
            self.layer.receive_response(message, flow, now)

    def _number(self, name: str) -> int:
        return sum(call.name == name for call in self.calls) + len(self._ignored.get(name, ()))

    def _ignores(self, request: Request) -> bool:
        """Whether the plan for an INVITE, or what belongs to it, is silence."""
        name, branch = request.get("x-test") or "", request.via.branch
        if any(branch in branches for branches in self._ignored.values()):
            return True
        known = any(isinstance(call.tx, ServerTransaction) and call.tx.key[0] == branch for call in self.calls)
        if request.method != "INVITE" or known or self.plans(name, self._number(name)).responses:
            return False
        self._ignored.setdefault(name, set()).add(branch)
        return True

    def next_deadline(self) -> float | None:
        """The earliest timer."""
        return self.timers.next_deadline()

    def handle_timers(self, now: float) -> None:
        """Do what is due."""
        self.timers.run(now)

    def flow_closed(self, flow: Flow, now: float) -> None:
        """A connection is gone."""
        self.layer.flow_closed(flow, now)

    def send(self, call: UaCall, data: bytes) -> None:
        """Send outside of transactions."""
        self.network.send(self.live(call), data)

    def live(self, call: UaCall) -> Flow:
        """The flow of a call; a new connection where that is gone."""
        flow = call.flow
        if flow.closed:
            flow = call.flow = self.network.flow(flow.local, flow.remote, flow.transport)
        return flow

    def top(self, flow: Flow) -> list[Header]:
        """Via and Max-Forwards."""
        branch = f"z9hG4bK{self._tag}{next(self._ids)}"
        return [header("Via", f"SIP/2.0/{flow.transport.upper()} {flow.advertised};branch={branch}"), MAX_FORWARDS]

    # What the test does

    def place(self, name: str, flow: Flow, now: float) -> UaCall:
        """Send an INVITE."""
        call = UaCall(self, name, flow)
        self.calls.append(call)
        tag = f"{self._tag}{next(self._ids)}"
        call.invite = Request(
            "INVITE",
            "sip:called@198.51.100.1",
            [
                *self.top(flow),
                header("From", f"<sip:caller@192.0.2.10>;tag={tag}"),
                header("To", "<sip:called@198.51.100.1>"),
                header("Call-ID", f"{tag}@caller"),
                header("CSeq", "1 INVITE"),
                header("Contact", f"<sip:caller@{flow.advertised}>"),
                header("X-Test", name),
                header("Content-Type", "application/sdp"),
                header("Content-Length", str(len(OFFER))),
            ],
            OFFER.encode(),
        )
        self._dialogs[call.invite.call_id, tag] = call
        call.tx = self.layer.send_request(call.invite, flow, call, now)
        return call

    def cancel(self, call: UaCall, now: float) -> None:
        """Take an INVITE back, as soon as a provisional response allows it; a call that is up gets a BYE."""
        if call.outcome == "up":
            self.bye(call, now)
        if call.outcome == "ended" or call.cancelled:
            return
        call.wants_cancel = True
        tx = call.tx
        assert isinstance(tx, ClientTransaction)
        if not tx.provisional_received:
            return
        call.cancelled = True
        assert call.invite is not None
        self.layer.send_request(make_cancel(call.invite), call.flow, _Quiet(), now)
        self.timers.schedule(now + LIMIT_S, lambda now: self._give_up(call, now))

    def _give_up(self, call: UaCall, now: float) -> None:
        if call.outcome in ("calling", "ringing") and isinstance(call.tx, ClientTransaction):
            call.tx.terminate(now)
            call.end("cancelled")

    def bye(self, call: UaCall, now: float) -> None:
        """Hang up."""
        if call.outcome == "ended" or call.dialog is None:
            return
        call.end("us")
        self.send_bye(call, call.dialog, now)

    def send_bye(self, call: UaCall, dialog: Dialog, now: float) -> None:
        """A BYE; another one when its connection breaks."""
        flow = self.live(call)
        request = dialog.request("BYE", dialog.next_seq(), self.top(flow))
        self.layer.send_request(request, flow, _Bye(self, call, dialog), now)

    # TransactionLayer's user

    def on_request(self, tx: ServerTransaction, now: float) -> None:
        """A new request."""
        request = tx.request
        tag = request.to.tag
        if tag is None and request.method == "INVITE":
            self._take_call(tx, now)
            return
        call = self._dialogs.get((request.call_id, tag or ""))
        if request.method == "BYE" and call is not None and call.dialog is not None:
            call.end("them")
            self._answer(tx, 200, now)
        else:
            if request.method != "BYE" or call is None:
                self.odd.append(f"{request.method} {request.call_id}")
            self._answer(tx, 481, now)

    def _take_call(self, tx: ServerTransaction, now: float) -> None:
        request = tx.request
        name = request.get("x-test") or ""
        plan = self.plans(name, self._number(name))
        call = UaCall(self, name, tx.flow)
        call.tx = tx
        tx.user = call
        self.calls.append(call)
        tag = f"{self._tag}{next(self._ids)}"
        call.dialog = Dialog.as_uas(request, tag)
        self._dialogs[request.call_id, tag] = call
        self._answer(tx, 100, now)
        for delay, status in plan.responses:
            self.timers.schedule(now + delay, _Step(self, call, status, plan.hang_up_s))

    def respond(self, call: UaCall, status: int, hang_up_s: float | None, now: float) -> None:
        """Answer an INVITE that is still open."""
        tx, dialog = call.tx, call.dialog
        assert isinstance(tx, ServerTransaction)
        assert dialog is not None
        if tx.last_status >= 200:
            return
        success = 200 <= status < 300
        headers = (("Contact", f"<sip:agent@{call.flow.advertised}>"),) if status < 300 else ()
        if success:
            headers = (*headers, ("Content-Type", "application/sdp"))
        response = make_response(
            tx.request,
            status,
            remote=call.flow.remote,
            to_tag=dialog.local_tag,
            headers=headers,
            body=ANSWER.encode() if success else b"",
        )
        tx.respond(response, now)
        if status < 200:
            call.outcome = "ringing"
            return
        call.status = status
        if not success:
            call.end("refused")
            return
        if hang_up_s is not None:
            call.on_up = lambda now: self._later(now + hang_up_s, call)
        _Repeat(self, call, response, now)

    def _later(self, when: float, call: UaCall) -> None:
        self.timers.schedule(when, lambda now: self.bye(call, now))

    def _answer(self, tx: ServerTransaction, status: int, now: float) -> None:
        tx.respond(make_response(tx.request, status, remote=tx.flow.remote, to_tag="none"), now)

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """An ACK of a 2xx."""
        call = self._dialogs.get((request.call_id, request.to.tag or ""))
        if call is None:
            self.odd.append(f"ACK {request.call_id}")
            return
        first, call.acknowledged = not call.acknowledged, True
        if call.repeat is not None:
            call.repeat.cancel()
            call.repeat = None
        if first and call.outcome != "ended":
            call.outcome = "up"
            if call.on_up is not None:
                call.on_up(now)

    def on_cancel(self, tx: ServerTransaction, invite: ServerTransaction | None, now: float) -> None:
        """A CANCEL."""
        self._answer(tx, 481 if invite is None else 200, now)
        call = None if invite is None else invite.user
        if isinstance(call, UaCall) and invite is not None and invite.last_status < 200:
            self.respond(call, 487, None, now)
            call.ended_by = "cancelled"

    def on_stray_response(self, response: Response, flow: Flow, now: float) -> None:
        """Too late for anything."""

    def on_server_failure(self, tx: ServerTransaction, now: float) -> None:
        """An ACK that never came, or a connection that is gone."""


class _Quiet:
    """Does not care what becomes of a request."""

    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None: ...

    def on_timeout(self, tx: ClientTransaction, now: float) -> None: ...

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None: ...


class _Bye(_Quiet):
    """Sends a BYE again whose connection broke."""

    def __init__(self, agent: UserAgent, call: UaCall, dialog: Dialog) -> None:
        self.agent, self.call, self.dialog = agent, call, dialog

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        self.agent.send_bye(self.call, self.dialog, now)


class _Step:
    """One response of a plan."""

    def __init__(self, agent: UserAgent, call: UaCall, status: int, hang_up_s: float | None) -> None:
        self.agent, self.call, self.status, self.hang_up_s = agent, call, status, hang_up_s

    def __call__(self, now: float) -> None:
        self.agent.respond(self.call, self.status, self.hang_up_s, now)


class _Repeat:
    """Repeats a 2xx until the ACK; hangs up when none comes (RFC 3261 section 13.3.1.4)."""

    def __init__(self, agent: UserAgent, call: UaCall, response: Response, now: float) -> None:
        self.agent, self.call, self.response = agent, call, response
        self.until = now + LIMIT_S
        self.interval_s = 0.5
        call.repeat = agent.timers.schedule(now + self.interval_s, self.again)

    def again(self, now: float) -> None:
        """The next copy, or the end."""
        self.call.repeat = None
        if now >= self.until:
            self.agent.bye(self.call, now)
            self.call.ended_by = "no ACK"
            return
        self.agent.send(self.call, self.response.serialize())
        self.interval_s = min(2 * self.interval_s, 4.0)
        self.call.repeat = self.agent.timers.schedule(min(now + self.interval_s, self.until), self.again)
