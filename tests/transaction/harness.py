"""A transaction layer with a user that writes down what it is told, and messages to feed it."""

from __future__ import annotations

from proxy.sip.flow import Flow
from proxy.sip.message import Request, Response
from proxy.sip.parser import check_request, parse_message
from proxy.sip.respond import make_response
from proxy.transaction.client import ClientTransaction
from proxy.transaction.layer import TransactionLayer
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import TimerQueue, TimerSettings

START = 100.0


def udp_flow() -> Flow:
    return Flow("udp", ("192.0.2.1", 5060), ("192.0.2.2", 5060), "192.0.2.1:5060")


def tcp_flow() -> Flow:
    return Flow("tcp", ("192.0.2.1", 5060), ("192.0.2.2", 40000), "192.0.2.1:5060")


def request(
    method: str = "INVITE",
    *,
    branch: str = "z9hG4bK776asdhds",
    via: str | None = None,
    uri: str = "sip:bob@example.com",
    from_tag: str = "f1",
    to_tag: str = "",
    call_id: str = "call-1",
    number: int = 1,
    extra: tuple[str, ...] = (),
    body: bytes = b"",
) -> Request:
    """A request as it comes from the parser."""
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP 192.0.2.2:5060;branch={branch}" if via is None else f"Via: {via}",
        f"From: Alice <sip:alice@example.net>;tag={from_tag}",
        f"To: <sip:bob@example.com>{f';tag={to_tag}' if to_tag else ''}",
        f"Call-ID: {call_id}",
        f"CSeq: {number} {method}",
        "Max-Forwards: 70",
        *extra,
        f"Content-Length: {len(body)}",
    ]
    message = parse_message("\r\n".join([*lines, "", ""]).encode() + body)
    assert isinstance(message, Request)
    check_request(message)
    return message


def response(to: Request, status: int, to_tag: str = "t1") -> Response:
    """A response as it comes from the parser."""
    message = parse_message(make_response(to, status, to_tag=to_tag).serialize())
    assert isinstance(message, Response)
    return message


class Harness:
    """A layer, its user and its clock.

    Attributes:
        now: the virtual time.
        sent: (time, start line without the version) of every message that went out.
        wire: the same as (flow, bytes).
        told: what the users were told, as short texts.
    """

    def __init__(self, settings: TimerSettings | None = None) -> None:
        self.now = START
        self.sent: list[tuple[float, str]] = []
        self.wire: list[tuple[Flow, bytes]] = []
        self.told: list[str] = []
        self.server: ServerTransaction | None = None
        self.invite_of_cancel: ServerTransaction | None = None
        self.acks: list[tuple[Request, Flow]] = []
        self.timers = TimerQueue()
        self.layer = TransactionLayer(settings or TimerSettings(), self.timers, self._send, self)

    def active(self) -> list[float]:
        """Seconds from now to each active deadline, ascending."""
        return [round(deadline - self.now, 9) for deadline in self.timers.deadlines()]

    def _send(self, flow: Flow, data: bytes) -> None:
        message = parse_message(data)
        text = message.method if isinstance(message, Request) else str(message.status)
        self.sent.append((round(self.now - START, 9), text))
        self.wire.append((flow, data))

    def sends(self) -> list[str]:
        """What went out since the last call."""
        found = [text for _, text in self.sent]
        self.sent.clear()
        return found

    def tellings(self) -> list[str]:
        """What the users were told since the last call."""
        found = list(self.told)
        self.told.clear()
        return found

    def pass_time(self, seconds: float) -> None:
        """Let time pass, stopping at each deadline on the way."""
        end = self.now + seconds
        while (deadline := self.timers.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.timers.run(self.now)
        self.now = end

    def get(self, message: Request | Response, flow: Flow) -> None:
        """Receive a message now."""
        if isinstance(message, Request):
            self.layer.receive_request(message, flow, self.now)
        else:
            self.layer.receive_response(message, flow, self.now)

    def need_server(self) -> ServerTransaction:
        """The server transaction of the last request."""
        assert self.server is not None
        return self.server

    def respond(self, status: int, to_tag: str = "t1") -> None:
        """Answer the last request."""
        tx = self.need_server()
        tx.respond(make_response(tx.request, status, to_tag=to_tag), self.now)

    # LayerUser
    def on_request(self, tx: ServerTransaction, now: float) -> None:
        assert now == self.now
        self.server = tx
        self.told.append(f"request {tx.method}")

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        assert now == self.now
        self.acks.append((request, flow))
        self.told.append("ACK")

    def on_cancel(self, tx: ServerTransaction, invite: ServerTransaction | None, now: float) -> None:
        assert now == self.now
        self.server = tx
        self.invite_of_cancel = invite
        self.told.append("CANCEL")

    def on_stray_response(self, response: Response, flow: Flow, now: float) -> None:
        assert now == self.now
        self.told.append(f"stray {response.status}")

    def on_server_failure(self, tx: ServerTransaction, now: float) -> None:
        assert now == self.now
        self.told.append("server failure")

    # ClientUser
    def on_response(self, tx: ClientTransaction, response: Response, now: float) -> None:
        assert now == self.now
        self.told.append(f"response {response.status}")

    def on_timeout(self, tx: ClientTransaction, now: float) -> None:
        assert now == self.now
        self.told.append("timeout")

    def on_transport_failure(self, tx: ClientTransaction, now: float) -> None:
        assert now == self.now
        self.told.append("transport failure")
