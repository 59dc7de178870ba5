"""A caller whose connection is gone while its INVITE is still to be answered (RFC 3261 section 18.2.2)."""

import pytest

from proxy.b2bua.config import RetryPolicy
from proxy.sip.auth import best_challenge
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Response
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, CALLER, OFFER, OURS, Bench, message_text, network

ONCE = RetryPolicy(max_attempts=1)


def connection(transport: str = "tcp", port: int = 40_000, listener: str = "tcp") -> Flow:
    """The caller's connection, from a port of its system's choice."""
    return Flow(transport, OURS, (CALLER[0], port), f"{OURS[0]}:{OURS[1]}", listener=listener)


def call(bench: Bench, flow: Flow, sent_by: str = "192.0.2.10:5060", extra: str = "", cseq: int = 1) -> None:
    """An INVITE whose Via says where the caller listens."""
    bench.receive(
        message_text(
            "INVITE sip:+15550100001@198.51.100.1 SIP/2.0",
            [
                f"Via: SIP/2.0/{flow.transport.upper()} {sent_by};branch=z9hG4bK-{cseq}",
                "Max-Forwards: 70",
                "From: <sip:+15550100002@192.0.2.10>;tag=caller",
                "To: <sip:+15550100001@198.51.100.1>",
                "Call-ID: call-1",
                f"CSeq: {cseq} INVITE",
                "Contact: <sip:+15550100002@192.0.2.10:5060;transport=tcp>",
                *extra.splitlines(),
            ],
            OFFER,
        ),
        flow,
    )


def to_caller(bench: Bench) -> list[tuple[Flow, int]]:
    """The responses to the INVITE that went to the caller, with their flows."""
    return [
        (flow, message.status)
        for _, flow, message in bench.wire
        if isinstance(message, Response) and flow.remote[0] == CALLER[0] and message.cseq.method == "INVITE"
    ]


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    return make_bench(retry=ONCE)


def lost_call(bench: Bench) -> Flow:
    """A call whose caller has lost its connection."""
    flow = connection()
    call(bench, flow)
    bench.respond(100)
    bench.close(flow)
    return flow


def test_answer_goes_by_a_new_connection_to_where_the_caller_listens(bench: Bench) -> None:
    lost_call(bench)
    before = len(bench.opened)
    bench.respond(180)
    assert [str(hop) for hop in bench.opened[before:]] == ["tcp:192.0.2.10:5060"]
    bench.respond(200, body=ANSWER)
    again = bench.caller_flow
    assert to_caller(bench)[1:] == [(again, 180), (again, 200)]
    bench.caller_request("ACK", flow=again)
    bench.target_request("BYE")
    (bye,) = bench.caller_requests("BYE")
    bench.caller_answers(bye, 200)
    (end,) = bench.ends()
    assert (end["outcome"], end["ended_by"]) == ("answered", "target")


@pytest.mark.parametrize(
    ("transport", "sent_by", "hop"),
    [
        ("tcp", "192.0.2.10:5070", Hop("tcp", "192.0.2.10", 5070)),
        ("tcp", "192.0.2.10", Hop("tcp", "192.0.2.10", 5060)),
        ("tcp", "10.0.0.7:5070", Hop("tcp", "192.0.2.10", 5070)),
        ("tcp", "edge.example.net:5070", Hop("tcp", "192.0.2.10", 5070)),
        ("tls", "edge.example.net", Hop("tls", "192.0.2.10", 5061, "edge.example.net")),
        ("tls", "192.0.2.10", Hop("tls", "192.0.2.10", 5061)),
        ("tls", "[2001:db8::1]:5062", Hop("tls", "192.0.2.10", 5062)),
    ],
)
def test_address_is_where_the_invite_came_from_and_the_port_that_of_its_via(
    bench: Bench, transport: str, sent_by: str, hop: Hop
) -> None:
    flow = connection(transport, listener=transport)
    call(bench, flow, sent_by)
    bench.close(flow)
    bench.respond(180)
    assert bench.opened[-1] == hop
    bench.respond(486)
    assert [status for _, status in to_caller(bench)][1:] == [180, 486]


def test_caller_that_takes_no_connection_ends_the_call_as_it_rings(bench: Bench) -> None:
    lost_call(bench)
    bench.refusing.add(CALLER[0])
    bench.respond(180)
    assert bench.target_saw == ["INVITE", "CANCEL"]
    (end,) = bench.ends()
    assert (end["outcome"], end["ended_by"], end["detail"]) == ("cancelled", "transport", "caller's connection lost")


def test_caller_that_takes_no_connection_for_the_200_ends_the_session_of_the_target(bench: Bench) -> None:
    lost_call(bench)
    bench.refusing.add(CALLER[0])
    bench.respond(200, body=ANSWER)
    assert bench.target_saw == ["INVITE", "ACK", "BYE"]
    assert bench.requests("BYE")[0].get("reason") == 'SIP;cause=487;text="Caller\'s connection lost"'
    (end,) = bench.ends()
    assert (end["outcome"], end["status"], end["ended_by"]) == ("cancelled", 487, "transport")
    assert bench.stack.tables()["legs"] == 0


def test_refusal_goes_by_the_new_connection_and_is_acknowledged_there(bench: Bench) -> None:
    lost_call(bench)
    bench.respond(486, "Busy Here")
    assert to_caller(bench)[-1] == (bench.caller_flow, 486)
    assert bench.ends()[0]["status"] == 486


def test_one_connection_is_opened_for_all_that_waits_and_the_order_stays(bench: Bench) -> None:
    lost_call(bench)
    bench.hold_flows = True
    before = len(bench.opened)
    for status in (180, 183, 200):
        bench.respond(status, body=ANSWER if status != 180 else "")
    assert len(bench.opened) == before + 1
    bench.hold_flows = False
    bench.release()
    assert [status for _, status in to_caller(bench)][1:] == [180, 183, 200]
    bench.caller_request("ACK")


def test_session_that_the_target_ends_while_the_200_waits_is_never_offered(bench: Bench) -> None:
    lost_call(bench)
    bench.hold_flows = True
    bench.respond(180)
    bench.respond(200, body=ANSWER)
    bench.target_request("BYE")
    bench.hold_flows = False
    bench.release()
    assert [status for _, status in to_caller(bench)][1:] == [480]
    assert bench.caller_requests("BYE") == []


def test_source_that_may_not_call_by_its_address_is_not_called_back(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(network("198.18.0.1"),), users={"alice": "secret"}, retry=ONCE)
    flow = connection()
    call(bench, flow)
    asked = best_challenge(bench.last_response)
    assert asked is not None
    line = asked.answer("alice", "secret", "INVITE", "sip:+15550100001@198.51.100.1", "c", 1).line
    call(bench, flow, extra=line, cseq=2)
    bench.respond(100)
    bench.close(flow)
    opened = len(bench.opened)
    bench.respond(180)
    bench.advance(0)
    assert len(bench.opened) == opened
    assert bench.target_saw == ["INVITE", "CANCEL"]
    assert bench.ends()[0]["ended_by"] == "transport"


def test_200_that_was_lost_with_the_connection_is_repeated_by_a_new_one(bench: Bench) -> None:
    flow = connection()
    call(bench, flow)
    bench.respond(200, body=ANSWER)
    bench.close(flow)
    bench.advance(0.5)
    assert to_caller(bench)[-1] == (bench.caller_flow, 200)
    bench.advance(1)
    assert [status for _, status in to_caller(bench)].count(200) == 3
    bench.caller_request("ACK")
    bench.advance(10)
    assert [status for _, status in to_caller(bench)].count(200) == 3


def test_200_that_nobody_can_get_any_more_ends_the_call(bench: Bench) -> None:
    flow = connection()
    call(bench, flow)
    bench.respond(200, body=ANSWER)
    bench.close(flow)
    bench.refusing.add(CALLER[0])
    bench.advance(0.5)
    assert bench.target_saw[-1] == "BYE"
    assert bench.stack.calls_in_progress == 0


def test_reliable_response_is_repeated_by_the_new_connection_until_its_prack(bench: Bench) -> None:
    flow = connection()
    call(bench, flow, extra="Require: 100rel")
    bench.respond(180)
    bench.close(flow)
    bench.advance(0.6)
    again = bench.caller_flow
    assert to_caller(bench)[-1] == (again, 180)
    rseq = bench.last_response.get("rseq")
    bench.caller_request("PRACK", extra=f"RAck: {rseq} 1 INVITE", flow=again)
    assert bench.last_response.status == 200
    bench.respond(200, body=ANSWER)
    assert to_caller(bench)[-1] == (again, 200)
    bench.caller_request("ACK", flow=again)


def test_copy_of_the_invite_by_another_connection_shows_the_way(bench: Bench) -> None:
    lost_call(bench)
    again = connection(port=40_001)
    call(bench, again)
    assert to_caller(bench)[-1] == (again, 100)
    opened = len(bench.opened)
    bench.respond(200, body=ANSWER)
    assert to_caller(bench)[-1] == (again, 200)
    assert len(bench.opened) == opened
    bench.caller_request("ACK", flow=again)
    bench.target_request("BYE")
    assert [flow for _, flow, message in bench.wire if message in bench.caller_requests("BYE")] == [again]


def test_copy_from_another_address_shows_no_way(bench: Bench) -> None:
    lost_call(bench)
    other = Flow("tcp", OURS, ("192.0.2.66", 40_001), f"{OURS[0]}:{OURS[1]}", listener="tcp")
    call(bench, other)
    assert [flow for _, flow, _ in bench.wire if flow is other] == []
    bench.respond(486)


def test_cancel_by_another_connection_is_answered_there_with_487(bench: Bench) -> None:
    lost_call(bench)
    again = connection(port=40_001)
    bench.receive(
        message_text(
            "CANCEL sip:+15550100001@198.51.100.1 SIP/2.0",
            [
                "Via: SIP/2.0/TCP 192.0.2.10:5060;branch=z9hG4bK-1",
                "Max-Forwards: 70",
                "From: <sip:+15550100002@192.0.2.10>;tag=caller",
                "To: <sip:+15550100001@198.51.100.1>",
                "Call-ID: call-1",
                "CSeq: 1 CANCEL",
            ],
        ),
        again,
    )
    assert to_caller(bench)[-1] == (again, 487)
    assert bench.target_saw == ["INVITE", "CANCEL"]


def test_refusal_that_had_to_wait_and_is_never_acknowledged_ends_all_the_same(bench: Bench) -> None:
    lost_call(bench)
    bench.hold_flows = True
    bench.respond(486)
    bench.advance(20)
    bench.hold_flows = False
    bench.release()
    assert to_caller(bench)[-1][1] == 486
    bench.advance(60)
    assert bench.stack.tables(bench.now)["ended_calls"] == 0


def test_caller_that_comes_back_after_we_gave_up_begins_a_new_call(bench: Bench) -> None:
    lost_call(bench)
    bench.refusing.add(CALLER[0])
    bench.respond(180)
    assert bench.target_saw == ["INVITE", "CANCEL"]
    again = connection(port=40_001)
    call(bench, again)
    assert to_caller(bench)[-1] == (again, 100)
    assert len(bench.invites) == 2
    bench.respond(200, body=ANSWER)
    assert to_caller(bench)[-1] == (again, 200)
    bench.caller_request("ACK", flow=again)
