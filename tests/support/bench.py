"""A stack on a bench: no sockets, a clock that the test turns, messages written as text.

The caller is at 192.0.2.10:5060, the target at 203.0.113.5:5060, the stack at 198.51.100.1:5060. The bench plays both
neighbours as the test says, and keeps all that the stack sent and recorded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from proxy.audit.records import Event
from proxy.b2bua.config import Network, Reach, RetryPolicy, StackConfig, Target
from proxy.b2bua.effects import Checkpoint, CloseFlow, Effect, Open, Resolve, Send
from proxy.b2bua.stack import Stack
from proxy.rewrite.engine import RuleSet
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Message, Request, Response
from proxy.sip.parser import parse_message
from proxy.sip.uri import Uri, parse_uri
from proxy.transaction.timers import TimerSettings

__all__ = ["ANSWER", "CALLER", "NO_RULES", "OFFER", "OURS", "TARGET", "Bench", "everywhere", "message_text", "network"]

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


def network(first: str, last: str | None = None) -> Network:
    """A range of IPv4 addresses."""
    ends = [int.from_bytes(bytes(int(part) for part in text.split(".")), "big") for text in (first, last or first)]
    return Network(4, ends[0], ends[1], f"{first}-{last or first}")


def everywhere() -> tuple[Network, ...]:
    """An allow-list that admits every IPv4 address."""
    return (network("0.0.0.0", "255.255.255.255"),)


def message_text(start_line: str, headers: Iterable[str], body: str = "", content_type: str = "application/sdp") -> str:
    """A message with Content-Length, and Content-Type where there is a body (and a type for it)."""
    lines = [start_line, *headers]
    if body and content_type:
        lines.append(f"Content-Type: {content_type}")
    return "\r\n".join([*lines, f"Content-Length: {len(body.encode())}", "", body])


def _lines(text: str) -> list[str]:
    """Header lines that a test gives as one text; a folded one stays one."""
    return [line for line in re.split(r"\n(?![ \t])", text) if line]


class Bench:
    """Drives a stack and plays both neighbours.

    Attributes:
        to_caller, to_target: what the stack has sent, oldest first.
        wire: the same and all else that it sent, with time and flow.
        received: what it was given, with the flow.
        events: what it has recorded.
        resolves, opened, closed: the URIs, hops and flows of those effects.
        checkpoints: the facts that are kept of each leg, by call and side, as they come back from where they are kept.
        hops: the hops of a host, best one first, where it has others than its own address.
        unreachable: set it to have every hop fail. refusing: hosts whose hops fail.
        hold_flows: set it to leave Open unanswered; `release` answers.
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
        targets: Iterable[Target] = (),
        random: Callable[[], float] = lambda: 0.5,
        **config: object,
    ) -> None:
        config.setdefault("refer_reach", Reach(anywhere=True))
        sets = {rule_set.name: rule_set for rule_set in rules}
        ids = count(1)
        self.stack = Stack(
            StackConfig(
                targets={one.name: one for one in [*targets] or [Target("main", parse_uri(target))]},
                rules=sets,
                default_rules=next(iter(sets)),
                allow=everywhere() if allow is None else allow,
                public_address=OURS[0],
                retry=retry or RetryPolicy(),
                timers=timers or TimerSettings(),
                **config,  # type: ignore[arg-type]
            ),
            lambda: f"id{next(ids)}",
            random,
        )
        self.now = 1000.0
        self.transport = transport
        self.hops: dict[str, list[Hop]] = {}
        self.unreachable = False
        self.refusing: set[str] = set()
        self.hold_flows = False
        self.to_caller: list[Message] = []
        self.to_target: list[Message] = []
        self.wire: list[tuple[float, Flow, Message]] = []
        self.received: list[tuple[bytes, Flow]] = []
        self.events: list[Event] = []
        self.closed: list[Flow] = []
        self.opened: list[Hop] = []
        self.resolves: list[Uri] = []
        self.checkpoints: dict[tuple[str, str], list[Any]] = {}
        self._held: list[Open] = []
        ours = f"{OURS[0]}:{OURS[1]}"
        self.caller_flow = Flow(caller_transport, OURS, CALLER, ours, listener=caller_transport)
        self.target_flow = Flow(transport, OURS, TARGET, ours, listener="udp" if transport == "udp" else "")
        self._branches = count(1)

    # The world

    def perform(self) -> None:
        """Do what the stack wants done."""
        while effects := self.stack.take_effects():
            for effect in effects:
                self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            assert not effect.flow.closed
            message = parse_message(effect.data)
            assert effect.data == message.serialize()
            self.wire.append((self.now, effect.flow, message))
            sent = {CALLER[0]: self.to_caller, TARGET[0]: self.to_target}.get(effect.flow.remote[0])
            if sent is not None:
                sent.append(message)
        elif isinstance(effect, Resolve):
            self.resolves.append(effect.uri)
            host = effect.uri.host.strip("[]")
            transport = effect.uri.param("transport") or self.transport
            hops = self.hops.get(host) or [Hop(transport, host, effect.uri.port or 5060)]
            self.stack.resolved(effect.token, hops, self.now)
        elif isinstance(effect, Open):
            self.opened.append(effect.hop)
            if self.hold_flows:
                self._held.append(effect)
            else:
                self._open(effect)
        elif isinstance(effect, CloseFlow):
            self.closed.append(effect.flow)
        elif isinstance(effect, Checkpoint):
            key = (effect.call, effect.side)
            if effect.facts is None:
                self.checkpoints.pop(key, None)
            else:
                self.checkpoints[key] = json.loads(json.dumps(effect.facts))
        elif isinstance(effect, Event):
            self.events.append(effect)

    def release(self) -> None:
        """Answer the Open effects that were held."""
        held, self._held = self._held, []
        for effect in held:
            self._open(effect)
        self.perform()

    def _open(self, effect: Open) -> None:
        if self.unreachable or effect.hop.host in self.refusing:
            self.stack.flow_failed(effect.token, "connection refused", self.now)
        else:
            self.stack.flow_opened(effect.token, self._flow(effect.hop), self.now)

    def _flow(self, hop: Hop) -> Flow:
        """A flow to a hop; the bench keeps one for the caller and one for the target, as long as they live."""
        address = (hop.host, hop.port)
        for flow in (self.caller_flow, self.target_flow):
            if address == flow.remote and hop.transport == flow.transport and not flow.closed:
                return flow
        flow = Flow(hop.transport, OURS, address, f"{OURS[0]}:{OURS[1]}", "udp" if hop.transport == "udp" else "")
        if address == TARGET:
            self.target_flow = flow
        elif address == CALLER:
            self.caller_flow = flow
        return flow

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

    def receive(self, message: Message | str | bytes, flow: Flow) -> None:
        """Hand a message to the stack."""
        if isinstance(message, Message):
            message = message.serialize()
        elif isinstance(message, str):
            message = message.encode("utf-8", "surrogateescape")
        self.received.append((message, flow))
        self.stack.receive(message, flow, self.now)
        self.perform()

    # The caller

    def branch(self) -> str:
        """A branch that no message has had."""
        return f"z9hG4bKx{next(self._branches)}"

    def invite(
        self,
        body: str = OFFER,
        extra: str = "",
        call_id: str = "call-1",
        tag: str = "caller",
        branch: str = "",
        cseq: int = 1,
        contact: str = "<sip:+15550100002@192.0.2.10:5060>",
        flow: Flow | None = None,
        uri: str = "sip:+15550100001@198.51.100.1",
    ) -> str:
        """Place a call; returns the branch. `extra`: header lines."""
        branch = branch or self.branch()
        flow = flow or self.caller_flow
        headers = [
            f"Via: SIP/2.0/{flow.transport.upper()} {flow.remote[0]}:{flow.remote[1]};branch={branch}",
            *([] if "max-forwards" in extra.lower() else ["Max-Forwards: 70"]),
            f"From: <sip:+15550100002@192.0.2.10>;tag={tag}",
            "To: <sip:+15550100001@198.51.100.1>",
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} INVITE",
            *([f"Contact: {contact}"] if contact else []),
            *_lines(extra),
        ]
        self.receive(message_text(f"INVITE {uri} SIP/2.0", headers, body), flow)
        return branch

    def caller_request(
        self,
        method: str,
        *,
        branch: str = "",
        cseq: int | None = None,
        extra: str = "",
        body: str = "",
        content_type: str = "application/sdp",
        call_id: str = "call-1",
        flow: Flow | None = None,
    ) -> str:
        """A request of the caller in its call: To has the tag of our latest response. CANCEL and ACK go with CSeq 1,
        others with 2, unless told otherwise."""
        to = "<sip:+15550100001@198.51.100.1>"
        if method != "CANCEL":
            for _, _, message in self.wire:
                if isinstance(message, Response) and message.get("call-id") == call_id and message.to.tag:
                    to = message.get("to") or ""
        number = cseq if cseq is not None else (1 if method in ("ACK", "CANCEL") else 2)
        branch = branch or self.branch()
        flow = flow or self.caller_flow
        headers = [
            f"Via: SIP/2.0/{flow.transport.upper()} {CALLER[0]}:{CALLER[1]};branch={branch}",
            *([] if "max-forwards" in extra.lower() else ["Max-Forwards: 70"]),
            "From: <sip:+15550100002@192.0.2.10>;tag=caller",
            f"To: {to}",
            f"Call-ID: {call_id}",
            f"CSeq: {number} {method}",
            *_lines(extra),
        ]
        start = f"{method} sip:{'+15550100001@198.51.100.1' if method == 'CANCEL' else 'trunkline@198.51.100.1:5060'}"
        self.receive(message_text(f"{start} SIP/2.0", headers, body, content_type), flow)
        return branch

    def caller_answers(self, request: Request, status: int, **rest: str) -> None:
        """The caller's answer to a request of ours."""
        self.respond(status, request=request, flow=self.caller_flow, tag="caller", **rest)

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
        content_type: str = "application/sdp",
        contact: str = "<sip:agent@203.0.113.5:5060>",
        flow: Flow | None = None,
    ) -> None:
        """Answer a request that the target (or, with `flow`, another peer) has received: by default the last INVITE."""
        request = request or self.invites[-1]
        to = request.get("to") or ""
        headers = [
            *[item.line for item in request.headers if item.key == "via"],
            f"From: {request.get('from')}",
            f"To: {to}" + (f";tag={tag}" if status > 100 and ";tag=" not in to else ""),
            f"Call-ID: {request.call_id}",
            f"CSeq: {request.get('cseq')}",
        ]
        if contact and 100 < status < 300 and request.method in ("INVITE", "UPDATE"):
            headers.append(f"Contact: {contact}")
        headers += _lines(extra)
        text = message_text(f"SIP/2.0 {status} {reason or 'Phrase'}", headers, body, content_type)
        self.receive(text, flow or self.target_flow)

    def target_request(
        self,
        method: str,
        *,
        cseq: int = 1,
        extra: str = "",
        body: str = "",
        content_type: str = "application/sdp",
        branch: str = "",
        tag: str = "target",
        flow: Flow | None = None,
    ) -> str:
        """A request of the target in the call that it answered last."""
        sent = [message for _, flow, message in self.wire if flow.remote[0] == TARGET[0]]
        invite = next(
            one for one in reversed(sent) if isinstance(one, Request) and one.method == "INVITE" and one.to.tag is None
        )
        branch = branch or self.branch()
        headers = [
            f"Via: SIP/2.0/{self.transport.upper()} 203.0.113.5:5060;branch={branch}",
            "Max-Forwards: 70",
            f"From: {invite.get('to')};tag={tag}",
            f"To: {invite.get('from')}",
            f"Call-ID: {invite.call_id}",
            f"CSeq: {cseq} {method}",
            *_lines(extra),
        ]
        start = f"{method} sip:trunkline@198.51.100.1:5060 SIP/2.0"
        self.receive(message_text(start, headers, body, content_type), flow or self.target_flow)
        return branch

    # Both

    def answered_call(self, **invite: str) -> None:
        """A call that is up: INVITE, 200 and ACK on both legs."""
        self.invite(**invite)  # type: ignore[arg-type]
        self.respond(200, "OK", body=ANSWER)
        self.caller_request("ACK")

    # What to look at

    @property
    def invites(self) -> list[Request]:
        """The INVITEs that the target got, retransmissions included."""
        return self.requests("INVITE")

    def requests(self, method: str) -> list[Request]:
        """The requests with a method that the target got."""
        return [m for m in self.to_target if isinstance(m, Request) and m.method == method]

    def caller_requests(self, method: str) -> list[Request]:
        """The requests with a method that the caller got."""
        return [m for m in self.to_caller if isinstance(m, Request) and m.method == method]

    def sent(self, messages: Iterable[Message]) -> list[str]:
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

    @property
    def last_response(self) -> Response:
        """The latest response that the caller got."""
        return next(m for m in reversed(self.to_caller) if isinstance(m, Response))

    @property
    def last_to_target(self) -> Response:
        """The latest response that the target got."""
        return next(m for m in reversed(self.to_target) if isinstance(m, Response))

    def forget(self) -> None:
        """Look from here on only."""
        self.to_caller.clear()
        del self.to_target[:]

    def kinds(self) -> list[str]:
        """The kinds of events but messages."""
        return [event.kind for event in self.events if event.kind != "message"]

    def ends(self) -> list[dict[str, object]]:
        """The fields of all call-end events."""
        return [event.fields for event in self.events if event.kind == "call-end"]
