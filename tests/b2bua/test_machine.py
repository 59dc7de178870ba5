"""Whole calls in random interleavings of messages, timers and broken connections: no exception, every call ends, every
message that crossed is explained, nothing is left behind."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.b2bua.config import Target
from proxy.sip.message import Request
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker, finish
from tests.support.bench import ANSWER, OFFER, Bench
from tests.support.rules import shipped

BODIES = st.sampled_from(["", OFFER, ANSWER, OFFER.replace("sendrecv", "sendonly"), "v=0\r\nm=audio", "no sdp"])
PROVISIONAL = [100, 180, 183, 199]
FINAL = [200, 200, 200, 202, 302, 400, 401, 403, 407, 408, 421, 422, 481, 486, 487, 488, 491, 500, 503, 603]
CONTACTS = st.sampled_from(
    ["<sip:agent@203.0.113.5:5060>", "<sip:agent@10.0.0.9>", "<sip:agent@203.0.113.5:5080>", "<sip:broken", ""]
)
EXTRAS = st.sampled_from(
    [
        "",
        "Record-Route: <sip:203.0.113.5;lr>, <sip:10.1.1.1;lr>",
        "Record-Route: <sip:strict.example>",
        'Record-Route: <sip:x;lr>, "',
        "Require: 100rel\nRSeq: 1",
        "Require: 100rel\nRSeq: 2",
        "Retry-After: 1",
        "Session-Expires: 90;refresher=uac\nRequire: timer",
        "Min-SE: 300",
        'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"',
        "Reason: SIP;cause=200",
    ]
)
METHODS = ["INVITE", "UPDATE", "INFO", "MESSAGE", "NOTIFY", "OPTIONS", "PRACK", "REFER", "SUBSCRIBE", "BYE", "BYE"]
ASKED = st.sampled_from(
    [
        "Contact: <sip:c@192.0.2.10:5060>",
        "Session-Expires: 1800\nSupported: timer",
        "RAck: 1 1 INVITE",
        "Refer-To: <sip:third@192.0.2.77>",
        "Refer-To: <tel:+15550100009>",
        "Require: unknown",
        "Event: refer;id=1\nSubscription-State: active",
    ]
)


class Calls(RuleBasedStateMachine):
    """A caller and a target without any manners."""

    @initialize(
        transport=st.sampled_from(["udp", "tcp"]),
        caller_transport=st.sampled_from(["udp", "tcp"]),
        rules=st.booleans(),
        random=st.floats(0, 1, exclude_max=True),
        first=st.sampled_from(["up", "up", "ringing", "none"]),
        options=st.fixed_dictionaries(
            {},
            optional={
                "session_expires_s": st.just(120),
                "relay_early_media": st.just(False),
                "reliable": st.sampled_from(["always", "never"]),
                "refer": st.sampled_from(["relay", "execute", "refuse"]),
                "max_call_s": st.just(50.0),
                "ring_timeout_s": st.just(20.0),
                "probe_s": st.just(15.0),
                "checkpoints": st.just(True),
                "targets": st.just([Target("main", parse_uri("sip:agent@203.0.113.5"), username="u", password="p")]),
            },
        ),
    )
    def begin(
        self,
        transport: str,
        caller_transport: str,
        rules: bool,
        random: float,
        first: str,
        options: dict[str, object],
    ) -> None:
        if rules:
            options = {**options, "rules": (shipped(),)}
        make: BenchMaker = Bench
        self.bench = make(transport=transport, caller_transport=caller_transport, random=lambda: random, **options)
        self.calls: list[str] = []
        self.last: dict[str, tuple[str, int]] = {}
        self.cseq = 1
        self.asked_by_target = 0
        if first != "none":
            self.invite(OFFER, "", "<sip:c@192.0.2.10:5060>", first == "up")

    # The caller

    @precondition(lambda self: len(self.calls) < 4)
    @rule(
        body=st.sampled_from([OFFER, OFFER, OFFER, "", "v=0\r\nm=audio"]),
        extra=st.sampled_from(
            ["", "Supported: 100rel, timer", "Require: 100rel", "Session-Expires: 600\nSupported: timer", "Expires: 8"]
        ),
        contact=st.sampled_from(["<sip:c@192.0.2.10:5060>", "<sip:c@172.16.0.1>", "<sip:c@192.0.2.10:5099>", ""]),
        goes_well=st.booleans(),
    )
    def invite(self, body: str, extra: str, contact: str, goes_well: bool) -> None:
        call = f"call-{len(self.calls)}"
        self.calls.append(call)
        self.cseq += 1
        branch = self.bench.invite(call_id=call, body=body, extra=extra, contact=contact, cseq=self.cseq)
        self.last[call] = (branch, self.cseq)
        if goes_well and self.bench.invites:
            self.accept()
            self.bench.caller_request("ACK", call_id=call, cseq=self.cseq, body="" if body else ANSWER)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def repeat_invite(self, data: st.DataObject) -> None:
        call = self.one_of(data)
        self.bench.invite(call_id=call, cseq=self.last[call][1] + data.draw(st.integers(0, 1)))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = self.one_of(data)
        branch, cseq = self.last[call]
        self.bench.caller_request("CANCEL", branch=branch, call_id=call, cseq=cseq)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), body=BODIES, failure=st.booleans())
    def ack(self, data: st.DataObject, body: str, failure: bool) -> None:
        call = self.one_of(data)
        branch, cseq = self.last[call]
        self.bench.caller_request("ACK", branch=branch if failure else "", call_id=call, cseq=cseq, body=body)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), method=st.sampled_from(METHODS), body=BODIES, extra=ASKED)
    def ask(self, data: st.DataObject, method: str, body: str, extra: str) -> None:
        call = self.one_of(data)
        self.cseq += 1
        branch = self.bench.caller_request(method, call_id=call, cseq=self.cseq, body=body, extra=extra)
        if method == "INVITE":
            self.last[call] = (branch, self.cseq)

    @precondition(lambda self: any(isinstance(message, Request) for message in self.bench.to_caller))
    @rule(data=st.data(), body=BODIES)
    def caller_answers(self, data: st.DataObject, body: str) -> None:
        requests = [m for m in self.bench.to_caller if isinstance(m, Request) and m.method != "ACK"]
        if requests:
            request = data.draw(st.sampled_from(requests[-6:]))
            status = data.draw(st.sampled_from([*PROVISIONAL, *FINAL]))
            self.bench.respond(status, request=request, flow=self.bench.caller_flow, tag="caller", body=body)

    # The target

    @precondition(lambda self: any(isinstance(message, Request) for message in self.bench.to_target))
    @rule(
        data=st.data(),
        status=st.sampled_from([*PROVISIONAL, *FINAL]),
        body=BODIES,
        tag=st.sampled_from(["target", "target", "fork"]),
        contact=CONTACTS,
        extra=EXTRAS,
        content_type=st.sampled_from(["application/sdp", ""]),
    )
    def answer(
        self, data: st.DataObject, status: int, body: str, tag: str, contact: str, extra: str, content_type: str
    ) -> None:
        requests = [m for m in self.bench.to_target if isinstance(m, Request) and m.method != "ACK"]
        if requests:
            request = data.draw(st.sampled_from(requests[-8:]))
            self.bench.respond(
                status, request=request, tag=tag, body=body, contact=contact, extra=extra, content_type=content_type
            )

    @precondition(lambda self: self.bench.invites)
    @rule()
    def accept(self) -> None:
        """As a good target does."""
        self.bench.respond(180)
        self.bench.respond(200, "OK", body=ANSWER)

    @precondition(lambda self: self.bench.invites)
    @rule(method=st.sampled_from([*METHODS, "ACK"]), body=BODIES, tag=st.sampled_from(["target", "fork"]), extra=ASKED)
    def target_asks(self, method: str, body: str, tag: str, extra: str) -> None:
        self.asked_by_target += method != "ACK"
        self.bench.target_request(method, cseq=max(self.asked_by_target, 1), tag=tag, body=body, extra=extra)

    # The world

    @precondition(lambda self: self.bench.received)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        message, flow = data.draw(st.sampled_from(self.bench.received[-12:]))
        self.bench.receive(message, flow)

    @rule(seconds=st.sampled_from([0.0, 0.3, 0.5, 2.0, 9.0, 33.0]))
    def wait(self, seconds: float) -> None:
        self.bench.advance(seconds)

    @rule(side=st.sampled_from(["caller", "target"]))
    def break_connection(self, side: str) -> None:
        flow = self.bench.caller_flow if side == "caller" else self.bench.target_flow
        if flow.reliable and not flow.closed:
            self.bench.close(flow)

    @rule(held=st.booleans(), unreachable=st.booleans())
    def world_changes(self, held: bool, unreachable: bool) -> None:
        self.bench.hold_flows, self.bench.unreachable = held, unreachable
        if not held:
            self.bench.release()

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "bench"):
            tables = self.bench.stack.tables()
            assert tables["calls"] == self.bench.stack.calls_in_progress <= 40
            started = self.bench.kinds().count("call-start")
            assert started == tables["calls"] + len(self.bench.ends())

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.bench.unreachable = self.bench.hold_flows = False
            finish(self.bench)

    def one_of(self, data: st.DataObject) -> str:
        """One of the calls, mostly the latest."""
        return data.draw(st.sampled_from([*self.calls, self.calls[-1]]))


Calls.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCalls = Calls.TestCase
