"""A process dies with calls in it, and another one ends them with what was kept."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.b2bua.checkpoint import flow_of
from proxy.b2bua.config import Target
from proxy.b2bua.orphans import Remains
from proxy.sip.flow import Flow
from proxy.sip.message import Message, Request, Response
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, CALLER, TARGET, Bench

ROUTES = "Record-Route: <sip:192.0.2.10:5061;transport=tls;r2=on;lr>\nRecord-Route: <sip:192.0.2.10;r2=on;lr>"
REASON = 'SIP;cause=500;text="Process died"'


def doomed(**options: Any) -> Bench:
    """A bench that dies: nobody looks at what it would still do at the end of the test."""
    return Bench(checkpoints=True, **options)


def die(bench: Bench, make_bench: BenchMaker, *, alive: bool = True, **options: Any) -> Bench:
    """Another bench takes over what the first one has left, which is gone. `alive`: flows by UDP are those of sockets
    that both have."""
    successor = make_bench(transport=bench.transport, caller_transport=bench.caller_flow.transport, **options)
    successor.now = bench.now + 1.0
    remains: list[Remains] = []
    for (call, side), facts in bench.checkpoints.items():
        flow = flow_of(facts[1])
        if flow.transport == "udp" and alive:
            flow = Flow("udp", flow.local, flow.remote, flow.advertised, flow.listener)
        remains.append(Remains(call, side, flow, facts))
    successor.checkpoints.update(bench.checkpoints)
    successor.stack.adopt(remains, successor.now)
    successor.perform()
    return successor


def only(messages: list[Message], method: str) -> Request:
    found = [message for message in messages if isinstance(message, Request) and message.method == method]
    assert len(found) == 1
    return found[0]


def in_dialog(request: Request) -> tuple[str, str | None, str | None]:
    """What names the dialog of a request of ours."""
    return request.call_id, request.from_.tag, request.to.tag


def test_an_answered_call_gets_a_bye_on_both_legs(make_bench: BenchMaker) -> None:
    bench = doomed()
    bench.answered_call(extra=ROUTES)
    ok = bench.last_response
    invite = bench.invites[0]
    successor = die(bench, make_bench)
    assert successor.caller_saw == ["BYE"]
    assert successor.target_saw == ["BYE"]
    to_caller, to_target = only(successor.to_caller, "BYE"), only(successor.to_target, "BYE")
    assert in_dialog(to_caller) == ("call-1", ok.to.tag, "caller")
    assert to_caller.get_all("route") == [
        "<sip:192.0.2.10:5061;transport=tls;r2=on;lr>",
        "<sip:192.0.2.10;r2=on;lr>",
    ]
    assert to_caller.uri == "sip:+15550100002@192.0.2.10:5060"
    assert in_dialog(to_target) == (invite.call_id, invite.from_.tag, "target")
    assert to_target.uri == "sip:agent@203.0.113.5:5060"
    for bye in (to_caller, to_target):
        assert bye.get("reason") == REASON
        assert bye.cseq.number > 10_000
    successor.caller_answers(to_caller, 200)
    successor.respond(200, request=to_target)
    assert successor.checkpoints == {}
    assert successor.stack.orphans == 0
    assert successor.kinds() == ["call-end"]


def test_the_record_says_how_the_call_ended(make_bench: BenchMaker) -> None:
    bench = doomed()
    bench.invite(extra="X-Twilio-CallSid: CA1\nUser-Agent: Twilio Gateway")
    bench.advance(2.0)
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("ACK")
    bench.advance(10.0)
    end = die(bench, make_bench).ends()[0]
    found = {
        name: end[name] for name in ("call_id", "from", "to", "uri", "twilio_call_sid", "user_agent", "lost", "setup_s")
    }
    assert found == {
        "call_id": "call-1",
        "from": "sip:+15550100002@192.0.2.10",
        "to": "sip:+15550100001@198.51.100.1",
        "uri": "sip:+15550100001@198.51.100.1",
        "twilio_call_sid": "CA1",
        "user_agent": "Twilio Gateway",
        "lost": True,
        "setup_s": 2.0,
    }
    assert (end["outcome"], end["ended_by"], end["detail"]) == ("answered", "trunkline", "Process died")
    assert (end["talk_s"], end["duration_s"]) == (11.0, 13.0)


def test_a_ringing_call_is_cancelled_and_refused(make_bench: BenchMaker) -> None:
    bench = doomed()
    branch = bench.invite(extra=ROUTES)
    bench.respond(180, "Ringing")
    ringing = bench.last_response
    invite = bench.invites[0]
    successor = die(bench, make_bench)
    assert successor.caller_saw == ["503 INVITE"]
    refusal = successor.last_response
    assert (refusal.via.branch, refusal.to.tag, refusal.call_id) == (branch, ringing.to.tag, "call-1")
    assert refusal.get("reason") == REASON
    assert successor.target_saw == ["CANCEL"]
    cancel = only(successor.to_target, "CANCEL")
    assert (cancel.via.branch, cancel.uri, cancel.cseq.number) == (invite.via.branch, invite.uri, 1)
    assert cancel.get("reason") == REASON
    # Both transactions are there: the refusal is repeated until its ACK comes, and the 487 is acknowledged.
    successor.respond(200, request=cancel)
    successor.advance(0.5)
    assert successor.caller_saw == ["503 INVITE"] * 2
    successor.caller_request("ACK", branch=branch)
    successor.advance(5.0)
    assert successor.caller_saw == ["503 INVITE"] * 2
    successor.respond(487, "Request Terminated", request=invite)
    assert successor.target_saw == ["CANCEL", "ACK"]
    end = successor.ends()[0]
    assert (end["outcome"], end["status"], end["lost"]) == ("failed", 503, True)


def test_a_target_that_answers_all_the_same_is_hung_up(make_bench: BenchMaker) -> None:
    bench = doomed()
    bench.invite()
    bench.respond(180, "Ringing")
    invite = bench.invites[0]
    successor = die(bench, make_bench)
    successor.respond(200, "OK", request=invite, body=ANSWER)
    assert successor.target_saw == ["CANCEL", "ACK", "BYE"]
    bye = only(successor.to_target, "BYE")
    assert in_dialog(bye) == (invite.call_id, invite.from_.tag, "target")


def test_a_caller_that_cancels_meanwhile_is_answered(make_bench: BenchMaker) -> None:
    bench = doomed()
    branch = bench.invite()
    bench.respond(180, "Ringing")
    successor = die(bench, make_bench)
    successor.caller_request("CANCEL", branch=branch)
    assert successor.caller_saw == ["503 INVITE", "200 CANCEL"]


def test_an_invite_that_comes_again_before_it_is_refused_is_a_call(make_bench: BenchMaker) -> None:
    bench = doomed()
    branch = bench.invite()
    facts = {key: value for key, value in bench.checkpoints.items() if key[1] == "a"}
    successor = make_bench()
    successor.invite(branch=branch)
    for (call, side), fact in facts.items():
        flow = flow_of(fact[1])
        flow.closed = False
        successor.stack.adopt([Remains(call, side, flow, fact)], successor.now)
    successor.perform()
    assert successor.caller_saw == ["100 INVITE"]
    successor.respond(200, "OK", body=ANSWER)
    assert successor.caller_saw == ["100 INVITE", "200 INVITE"]


def test_between_attempts_only_the_caller_is_told(make_bench: BenchMaker) -> None:
    bench = doomed()
    bench.invite()
    bench.respond(503, "Service Unavailable")
    successor = die(bench, make_bench)
    assert (successor.caller_saw, successor.target_saw) == (["503 INVITE"], [])


def test_nothing_is_left_of_a_call_that_ended(make_bench: BenchMaker) -> None:
    bench = make_bench()
    bench.answered_call()
    assert sorted(side for _, side in bench.checkpoints) == ["a", "b"]
    bench.caller_request("BYE")
    assert bench.checkpoints == {}


def test_nothing_is_kept_unless_wanted(make_bench: BenchMaker) -> None:
    bench = make_bench(checkpoints=False)
    bench.answered_call()
    assert bench.checkpoints == {}


def test_our_own_connection_is_made_anew(make_bench: BenchMaker) -> None:
    """The target's Contact is not where it is reached; the address of the connection is."""
    bench = doomed(transport="tls", target="sip:agent@203.0.113.5;transport=tls")
    bench.invite()
    bench.respond(200, "OK", body=ANSWER, contact="<sip:OAI@sip.api.example.com:5061>")
    bench.caller_request("ACK")
    successor = die(bench, make_bench)
    assert str(successor.opened[0]) == "tls:203.0.113.5:5060"
    bye = only(successor.to_target, "BYE")
    assert bye.uri == "sip:OAI@sip.api.example.com:5061"
    assert bye.via.transport == "TLS"


def test_a_target_that_moved_is_found_by_its_contact(make_bench: BenchMaker) -> None:
    bench = doomed(transport="tls", target="sip:agent@203.0.113.5;transport=tls")
    bench.invite()
    bench.respond(200, "OK", body=ANSWER, contact="<sip:OAI@203.0.113.77:5061>")
    bench.caller_request("ACK")
    successor = make_bench(transport="tls", caller_transport="udp")
    successor.refusing.add(TARGET[0])
    call, side = next(key for key in bench.checkpoints if key[1] == "b")
    facts = bench.checkpoints[call, side]
    successor.stack.adopt([Remains(call, side, flow_of(facts[1]), facts)], successor.now)
    successor.perform()
    assert [str(hop) for hop in successor.opened] == ["tls:203.0.113.5:5060", "tls:203.0.113.77:5061"]
    assert only([message for _, _, message in successor.wire], "BYE").uri == "sip:OAI@203.0.113.77:5061"


def test_the_callers_connection_is_found_by_the_route(make_bench: BenchMaker) -> None:
    bench = doomed(caller_transport="tls")
    bench.answered_call(extra=ROUTES)
    successor = die(bench, make_bench)
    assert str(successor.opened[0]) == "tls:192.0.2.10:5061"
    bye = only(successor.to_caller, "BYE")
    assert bye.get_all("route")[0] == "<sip:192.0.2.10:5061;transport=tls;r2=on;lr>"


def test_or_by_its_address_and_the_usual_port(make_bench: BenchMaker) -> None:
    """A Contact that nobody can reach, and no route: as from behind a NAT."""
    bench = doomed(caller_transport="tcp")
    bench.answered_call(contact="<sip:+15550100002@172.25.75.240:5060;transport=tcp>")
    successor = make_bench(caller_transport="tcp")
    successor.refusing.add("172.25.75.240")
    call, side = next(key for key in bench.checkpoints if key[1] == "a")
    facts = bench.checkpoints[call, side]
    successor.stack.adopt([Remains(call, side, flow_of(facts[1]), facts)], successor.now)
    assert successor.stack.orphans == 1
    successor.perform()
    assert [str(hop) for hop in successor.opened] == ["tcp:172.25.75.240:5060", "tcp:192.0.2.10:5060"]
    assert only(successor.to_caller, "BYE").uri == "sip:+15550100002@172.25.75.240:5060;transport=tcp"
    assert successor.stack.orphans == 0


def test_who_can_not_be_reached_is_on_record(make_bench: BenchMaker) -> None:
    bench = doomed(caller_transport="tcp")
    bench.answered_call()
    bench_facts = dict(bench.checkpoints)
    successor = make_bench(caller_transport="tcp")
    successor.unreachable = True
    successor.checkpoints.update(bench_facts)
    remains = [Remains(call, side, flow_of(facts[1]), facts) for (call, side), facts in bench_facts.items()]
    successor.stack.adopt(remains, successor.now)
    successor.perform()
    assert successor.kinds().count("unreachable") == 2
    assert successor.stack.orphans == 0
    assert successor.checkpoints == {}


def test_the_caller_who_rings_by_tcp_is_answered_where_its_via_says(make_bench: BenchMaker) -> None:
    """RFC 3261 section 18.2.2."""
    bench = doomed(caller_transport="tcp")
    bench.invite(contact="<sip:+15550100002@192.0.2.10:5070>")
    bench.respond(180, "Ringing")
    successor = die(bench, make_bench)
    assert str(successor.opened[0]) == "tcp:192.0.2.10:5060"
    assert successor.caller_saw == ["503 INVITE"]


def test_a_target_that_wants_credentials_gets_them(make_bench: BenchMaker) -> None:
    target = Target("main", parse_uri("sip:agent@203.0.113.5"), username="us", password="secret")
    bench = doomed(targets=[target])
    bench.answered_call()
    successor = die(bench, make_bench, targets=[target])
    challenge = 'WWW-Authenticate: Digest realm="r", nonce="n", algorithm=MD5'
    successor.respond(401, request=only(successor.to_target, "BYE"), extra=challenge)
    byes = successor.requests("BYE")
    assert len(byes) == 2
    assert 'username="us"' in (byes[1].get("authorization") or "")
    assert byes[1].cseq.number == byes[0].cseq.number + 1


def test_a_new_contact_is_kept(make_bench: BenchMaker) -> None:
    bench = doomed()
    bench.answered_call()
    reinvite = "Contact: <sip:+15550100002@192.0.2.99:5060>\nAllow: UPDATE"
    bench.caller_request("INVITE", extra=reinvite)
    successor = die(bench, make_bench)
    assert only(successor.to_caller, "BYE").uri == "sip:+15550100002@192.0.2.99:5060"


def test_bytes_that_are_not_utf_8_are_kept(make_bench: BenchMaker) -> None:
    bench = doomed()
    bench.invite(extra="X-Twilio-CallSid: CA\udcff1", tag="caller")
    bench.respond(200, "OK", body=ANSWER)
    assert die(bench, make_bench).ends()[0]["twilio_call_sid"] == "CA\udcff1"


def test_many_legs_are_ended_a_few_at_a_time(make_bench: BenchMaker) -> None:
    bench = doomed()
    for number in range(120):
        bench.invite(call_id=f"call-{number}", tag=f"t{number}")
        bench.respond(200, "OK", body=ANSWER)
    successor = die(bench, make_bench)
    assert len(successor.caller_requests("BYE")) + len(successor.requests("BYE")) == 100
    assert successor.stack.orphans == 140
    successor.advance(0.3)
    sent = [message for _, flow, message in successor.wire if flow.remote in (CALLER, TARGET)]
    assert {(m.call_id, m.from_.tag) for m in sent if isinstance(m, Request)} == {
        (m.call_id, m.from_.tag) for m in sent
    }
    assert len({m.call_id for m in successor.caller_requests("BYE")}) == 120
    assert len({m.call_id for m in successor.requests("BYE")}) == 120


@pytest.mark.parametrize(
    "facts",
    [
        ["dialog", ["udp"], [], [], "", None],
        ["dialog", ["udp"], ["c", "l", "lt", "r", "rt", "x", "sip:a@b"], [], "", None],
        ["dialog", ["udp"], ["c", "l", "lt", "r", "rt", 1, "nonsense"], [], "", None],
        ["invite-out", ["udp"], "sip:a@b", ["Via"], "main"],
        ["invite-in", ["udp"], "sip:a@b", [], "tag", [1.0, 0.0, "", "", "", ""]],
    ],
)
def test_what_can_not_be_read_is_let_go(make_bench: BenchMaker, facts: list[Any]) -> None:
    bench = make_bench()
    bench.checkpoints["c1", "b"] = facts
    bench.stack.adopt([Remains("c1", "b", bench.target_flow, facts)], bench.now)
    bench.perform()
    assert bench.checkpoints == {}
    assert bench.wire == []
    assert [event.kind for event in bench.events if event.leg == "b"] == ["unreachable"]


def test_answers_to_our_byes_are_welcome_from_anywhere_we_sent_them(make_bench: BenchMaker) -> None:
    bench = doomed()
    bench.answered_call()
    successor = die(bench, make_bench, allow=())
    bye = only(successor.to_target, "BYE")
    successor.respond(200, request=bye)
    answers = [event for event in successor.events if isinstance(event.fields.get("message"), Response)]
    assert [event.fields["direction"] for event in answers] == ["in"]
