"""A stack on a bench: no sockets, a clock that the test turns, messages written as text.

The caller is at 192.0.2.10:5060, the target at 203.0.113.5:5060, the stack at 198.51.100.1:5060.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from proxy.audit.records import Event
from proxy.b2bua.config import Network, RetryPolicy, StackConfig, Target
from proxy.b2bua.effects import CloseFlow, Open, Record, Resolve, Send
from proxy.b2bua.stack import Stack
from proxy.rewrite.engine import RuleSet
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Message, Request, Response
from proxy.sip.parser import parse_message
from proxy.sip.uri import parse_uri
from proxy.transaction.timers import TimerSettings

__all__ = ["ANSWER", "CALLER", "NO_RULES", "OFFER", "TARGET", "Bench"]

CALLER = ("192.0.2.10", 5060)
TARGET = ("203.0.113.5", 5060)
OURS = ("198.51.100.1", 5060)

OFFER = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=sendrecv\r\n"
)
ANSWER = (
    "v=0\r\no=- 2 2 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0 101\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=sendrecv\r\n"
)
NO_RULES = RuleSet("none", "none", "0" * 12, ())


def everywhere() -> tuple[Network, ...]:
    """An allow-list that admits every IPv4 address."""
    return (Network(4, 0, 2**32 - 1, "0.0.0.0/0"),)


class Bench:
    """Drives a stack and plays both neighbours.

    Attributes:
        to_caller, to_target: what the stack has sent, oldest first.
        events: what it has recorded.
        unreachable: set it to have every hop fail.
        transport: what leg B goes over.
    """

    def __init__(
        self,
        *,
        rules: Iterable[RuleSet] = (NO_RULES,),
        retry: RetryPolicy | None = None,
        allow: tuple[Network, ...] | None = None,
        timers: TimerSettings | None = None,
        transport: str = "udp",
        caller_transport: str = "udp",
        target: str = "sip:agent@203.0.113.5",
        **config: object,
    ) -> None:
        sets = {rule_set.name: rule_set for rule_set in rules}
        ids = count(1)
        self.stack = Stack(
            StackConfig(
                targets={"main": Target("main", parse_uri(target))},
                rules=sets,
                default_rules=next(iter(sets)),
                allow=everywhere() if allow is None else allow,
                public_address=OURS[0],
                retry=retry or RetryPolicy(),
                timers=timers or TimerSettings(),
                **config,  # type: ignore[arg-type]
            ),
            lambda: f"id{next(ids)}",
            lambda: 0.5,
        )
        self.now = 1000.0
        self.transport = transport
        self.unreachable = False
        self.to_caller: list[Message] = []
        self.to_target: list[Message] = []
        self.events: list[Event] = []
        self.closed: list[Flow] = []
        self.opened: list[Hop] = []
        ours = f"{OURS[0]}:{OURS[1]}"
        self.caller_flow = Flow(caller_transport, OURS, CALLER, ours, listener=caller_transport)
        self.target_flow = Flow(transport, OURS, TARGET, ours, listener="udp" if transport == "udp" else "")
        self._branches = count(1)

    # The world

    def perform(self) -> None:
        """Do what the stack wants done."""
        while effects := self.stack.take_effects():
            for effect in effects:
                if isinstance(effect, Send):
                    message = parse_message(effect.data)
                    assert effect.data == message.serialize()
                    sent = self.to_caller if effect.flow.remote == CALLER else self.to_target
                    sent.append(message)
                elif isinstance(effect, Resolve):
                    host = effect.uri.host.strip("[]")
                    self.stack.resolved(effect.token, [Hop(self.transport, host, effect.uri.port or 5060)], self.now)
                elif isinstance(effect, Open):
                    self.opened.append(effect.hop)
                    if self.unreachable:
                        self.stack.flow_failed(effect.token, "connection refused", self.now)
                    else:
                        self.stack.flow_opened(effect.token, self._flow(effect.hop), self.now)
                elif isinstance(effect, CloseFlow):
                    self.closed.append(effect.flow)
                elif isinstance(effect, Record):
                    self.events.append(effect.event)

    def _flow(self, hop: Hop) -> Flow:
        if self.target_flow.closed:
            self.target_flow = Flow(self.transport, OURS, TARGET, f"{OURS[0]}:{OURS[1]}")
        if (hop.host, hop.port) == self.caller_flow.remote:
            return self.caller_flow
        return self.target_flow

    def advance(self, seconds: float) -> None:
        """Let time pass, firing every timer at its own moment."""
        end = self.now + seconds
        while (deadline := self.stack.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.stack.handle_timers(self.now)
            self.perform()
        self.now = end

    def close(self, flow: Flow) -> None:
        """Break a connection."""
        flow.closed = True
        self.stack.flow_closed(flow, self.now)
        self.perform()

    # The caller

    def receive(self, message: Message | str, flow: Flow) -> None:
        """Hand a message to the stack."""
        data = message.replace("\n", "\r\n").encode() if isinstance(message, str) else message.serialize()
        self.stack.receive(data, flow, self.now)
        self.perform()

    def invite(
        self,
        body: str = OFFER,
        extra: str = "",
        call_id: str = "call-1",
        tag: str = "caller",
        branch: str = "",
        cseq: int = 1,
    ) -> str:
        """Place a call; returns the branch."""
        branch = branch or f"z9hG4bKa{next(self._branches)}"
        head = (
            "INVITE sip:+15550100001@198.51.100.1 SIP/2.0\r\n"
            f"Via: SIP/2.0/{self.caller_flow.transport.upper()} 192.0.2.10:5060;branch={branch}\r\n"
            "Max-Forwards: 70\r\n"
            f"From: <sip:+15550100002@192.0.2.10>;tag={tag}\r\n"
            "To: <sip:+15550100001@198.51.100.1>\r\n"
            f"Call-ID: {call_id}\r\nCSeq: {cseq} INVITE\r\nContact: <sip:+15550100002@192.0.2.10:5060>\r\n"
            + "".join([f"{line}\r\n" for line in extra.split("\n") if line])
            + ("Content-Type: application/sdp\r\n" if body else "")
            + f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self.stack.receive(head.encode(), self.caller_flow, self.now)
        self.perform()
        return branch

    def caller_request(
        self, method: str, *, branch: str = "", cseq: int | None = None, extra: str = "", body: str = ""
    ) -> None:
        """A request of the caller in the call: its To is what our last response said."""
        to = self.to_caller[-1].get("to") if self.to_caller else "<sip:+15550100001@198.51.100.1>"
        for message in reversed(self.to_caller):
            if isinstance(message, Response) and ";tag=" in (message.get("to") or ""):
                to = message.get("to")
                break
        if method == "CANCEL":
            to = "<sip:+15550100001@198.51.100.1>"
        number = cseq if cseq is not None else (1 if method in ("ACK", "CANCEL") else 2)
        text = (
            f"{method} sip:trunkline@198.51.100.1:5060 SIP/2.0\r\n"
            f"Via: SIP/2.0/{self.caller_flow.transport.upper()} 192.0.2.10:5060;branch={branch or f'z9hG4bKa{next(self._branches)}'}\r\n"
            "Max-Forwards: 70\r\nFrom: <sip:+15550100002@192.0.2.10>;tag=caller\r\n"
            f"To: {to}\r\nCall-ID: call-1\r\nCSeq: {number} {method}\r\n"
            + "".join([f"{line}\r\n" for line in extra.split("\n") if line])
            + ("Content-Type: application/sdp\r\n" if body else "")
            + f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self.stack.receive(text.encode(), self.caller_flow, self.now)
        self.perform()

    # The target

    def respond(
        self,
        status: int,
        reason: str = "",
        *,
        request: Request | None = None,
        tag: str = "target",
        extra: str = "",
        body: str = "",
        content_type: bool = True,
        flow: Flow | None = None,
    ) -> None:
        """Answer a request that the target (or, with `flow`, another peer) has received: by default the last INVITE."""
        request = request or self.invites[-1]
        lines = [f"SIP/2.0 {status} {reason or 'Phrase'}"]
        lines += [item.line for item in request.headers if item.key == "via"]
        to = request.get("to") or ""
        lines += [
            f"From: {request.get('from')}",
            f"To: {to}" + (f";tag={tag}" if status > 100 and ";tag=" not in to else ""),
            f"Call-ID: {request.call_id}",
            f"CSeq: {request.get('cseq')}",
        ]
        if 100 < status < 300 and request.method == "INVITE":
            lines.append("Contact: <sip:agent@203.0.113.5:5060>")
        lines += [line for line in extra.split("\n") if line]
        if body and content_type:
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body)}")
        self.stack.receive(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), flow or self.target_flow, self.now)
        self.perform()

    def target_request(self, method: str, *, cseq: int = 1, extra: str = "", body: str = "") -> None:
        """A request of the target in the call that it answered with the tag `target`."""
        invite = self.invites[-1]
        text = (
            f"{method} sip:trunkline@198.51.100.1:5060 SIP/2.0\r\n"
            f"Via: SIP/2.0/{self.transport.upper()} 203.0.113.5:5060;branch=z9hG4bKb{next(self._branches)}\r\n"
            f"Max-Forwards: 70\r\nFrom: {invite.get('to')};tag=target\r\nTo: {invite.get('from')}\r\n"
            f"Call-ID: {invite.call_id}\r\nCSeq: {cseq} {method}\r\n"
            + "".join([f"{line}\r\n" for line in extra.split("\n") if line])
            + ("Content-Type: application/sdp\r\n" if body else "")
            + f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self.stack.receive(text.encode(), self.target_flow, self.now)
        self.perform()

    # What to look at

    @property
    def invites(self) -> list[Request]:
        """The INVITEs that the target got, retransmissions included."""
        return [m for m in self.to_target if isinstance(m, Request) and m.method == "INVITE"]

    def sent(self, messages: list[Message]) -> list[str]:
        """Messages in short: methods, and status with method."""
        return [
            m.method if isinstance(m, Request) else f"{m.status} {m.cseq.method}"
            for m in messages
            if isinstance(m, (Request, Response))
        ]

    @property
    def caller_saw(self) -> list[str]:
        """What the caller got, in short."""
        return self.sent(self.to_caller)

    @property
    def target_saw(self) -> list[str]:
        """What the target got, in short."""
        return self.sent(self.to_target)

    def kinds(self) -> list[str]:
        """The kinds of events but messages."""
        return [event.kind for event in self.events if event.kind != "message"]
