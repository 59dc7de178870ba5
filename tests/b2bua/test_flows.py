"""Which way messages go: flows, routes, Contacts, and connections that break."""

import pytest

from proxy.b2bua.config import RetryPolicy
from proxy.sip.flow import Flow, Hop
from proxy.sip.message import Request
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, CALLER, OFFER, OURS, TARGET, Bench

ROUTED = (
    "Record-Route: <sip:192.0.2.10:5061;transport=tls;r2=on;lr>\nRecord-Route: <sip:192.0.2.10;r2=on;lr>, <sip:p3;lr>"
)
PRIVATE = "<sip:+15550100002@172.25.75.240:5060;transport=udp>"


def flow_of(bench: Bench, request: Request) -> Flow:
    return next(flow for _, flow, message in reversed(bench.wire) if message is request)


# Routes


def test_callers_route_set_keeps_its_order(bench: Bench) -> None:
    """LiveKit had it the wrong way round."""
    bench.answered_call(extra=ROUTED)
    bench.target_request("BYE")
    bye = bench.caller_requests("BYE")[0]
    assert bye.get_all("route") == [
        "<sip:192.0.2.10:5061;transport=tls;r2=on;lr>",
        "<sip:192.0.2.10;r2=on;lr>",
        "<sip:p3;lr>",
    ]
    assert bye.uri == "sip:+15550100002@192.0.2.10:5060"


def test_responses_echo_the_record_route_set_as_it_came(bench: Bench) -> None:
    bench.answered_call(extra=ROUTED)
    assert [item.line for item in bench.last_response.headers if item.key == "record-route"] == ROUTED.split("\n")


def test_targets_route_set_is_turned_round(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER, extra="Record-Route: <sip:p1;lr>, <sip:p2;lr>\nRecord-Route: <sip:p3;lr>")
    bench.caller_request("ACK")
    bench.caller_request("BYE")
    for request in (bench.requests("ACK")[0], bench.requests("BYE")[0]):
        assert request.get_all("route") == ["<sip:p3;lr>", "<sip:p2;lr>", "<sip:p1;lr>"]
        assert request.uri == "sip:agent@203.0.113.5:5060"
    assert b"record-route" not in bench.last_response.serialize().lower()


def test_strict_router_becomes_the_request_uri(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER, extra="Record-Route: <sip:loose;lr>, <sip:strict>")
    ack = bench.requests("ACK")[0]
    assert ack.uri == "sip:strict"
    assert ack.get_all("route") == ["<sip:loose;lr>", "<sip:agent@203.0.113.5:5060>"]


def test_route_headers_of_a_request_to_us_do_not_cross(bench: Bench) -> None:
    bench.answered_call(extra="Route: <sip:198.51.100.1;lr>, <sip:10.0.0.1;lr>")
    bench.caller_request("INFO", extra="Route: <sip:198.51.100.1;lr>")
    for message in bench.to_target:
        assert message.get("route") is None


# The flow comes before the Contact


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_bye_for_the_caller_follows_the_flow_although_the_contact_is_private(
    make_bench: BenchMaker, transport: str
) -> None:
    bench = make_bench(caller_transport=transport)
    bench.answered_call(contact=PRIVATE)
    bench.target_request("BYE")
    bye = bench.caller_requests("BYE")[0]
    assert flow_of(bench, bye) is bench.caller_flow
    assert bye.uri == PRIVATE.strip("<>")
    assert bye.get(
        "via",
    ).startswith(f"SIP/2.0/{transport.upper()} 198.51.100.1:5060;")  # type: ignore[union-attr]
    assert [hop.host for hop in bench.opened] == [TARGET[0]]


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("contact", ["<sip:OAI@10.1.2.3:5061>", "<sip:OAI@sip.example.com:5061>"])
def test_ack_and_bye_for_the_target_follow_the_flow_whatever_the_contact(
    make_bench: BenchMaker, transport: str, contact: str
) -> None:
    """drachtio and LiveKit sent the ACK to a stale or private address."""
    bench = make_bench(transport=transport)
    bench.invite()
    bench.respond(200, "OK", body=ANSWER, contact=contact)
    bench.caller_request("ACK")
    bench.caller_request("BYE")
    for method in ("ACK", "BYE"):
        request = bench.requests(method)[0]
        assert request.uri == contact.strip("<>")
        assert flow_of(bench, request) is bench.target_flow
    assert len(bench.opened) == 1


def test_our_contact_is_reachable_over_the_same_transport(make_bench: BenchMaker) -> None:
    for transport, expected in (("udp", ""), ("tcp", ";transport=tcp"), ("tls", ";transport=tls")):
        bench = make_bench(transport=transport, caller_transport=transport)
        bench.invite()
        assert bench.invites[0].get("contact") == f"<sip:trunkline@198.51.100.1:5060{expected}>"
        bench.respond(200, "OK", body=ANSWER)
        assert bench.last_response.get("contact") == f"<sip:trunkline@198.51.100.1:5060{expected}>"


# UDP: another port of the same host


def test_target_that_names_another_port_of_its_host_is_followed_there(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER, contact="<sip:agent@203.0.113.5:5080>")
    bench.caller_request("ACK")
    bench.caller_request("BYE")
    for method in ("ACK", "BYE"):
        assert flow_of(bench, bench.requests(method)[0]).remote == (TARGET[0], 5080)


def test_caller_that_names_another_port_of_its_host_is_followed_there_but_answered_where_it_asked(
    bench: Bench,
) -> None:
    bench.invite(contact="<sip:c@192.0.2.10:5070>")
    bench.respond(200, "OK", body=ANSWER)
    bench.advance(4)
    answers = [flow for _, flow, message in bench.wire if bench.sent([message]) == ["200 INVITE"]]
    assert len(answers) == 4
    assert set(answers) == {bench.caller_flow}
    bench.caller_request("ACK")
    bench.target_request("BYE")
    assert flow_of(bench, bench.caller_requests("BYE")[0]).remote == (CALLER[0], 5070)


def test_messages_that_wait_for_the_other_port_keep_their_order(bench: Bench) -> None:
    bench.invite()
    bench.hold_flows = True
    bench.respond(200, "OK", body=ANSWER, contact="<sip:agent@203.0.113.5:5080>")
    bench.caller_request("ACK")
    bench.caller_request("BYE")
    assert bench.target_saw == ["INVITE"]
    bench.release()
    assert bench.target_saw == ["INVITE", "ACK", "BYE"]


def test_other_port_that_can_not_be_had_leaves_the_flow_as_it_was(bench: Bench) -> None:
    bench.invite()
    bench.unreachable = True
    bench.respond(200, "OK", body=ANSWER, contact="<sip:agent@203.0.113.5:5080>")
    assert flow_of(bench, bench.requests("ACK")[0]) is bench.target_flow


# Connections that break


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_connection_lost_while_the_invite_is_pending_is_worth_another_attempt(
    make_bench: BenchMaker, transport: str
) -> None:
    bench = make_bench(transport=transport, retry=RetryPolicy(jitter=0.0))
    bench.invite()
    bench.respond(100)
    first = bench.target_flow
    bench.close(first)
    assert bench.caller_saw == ["100 INVITE"]
    bench.advance(0.2)
    assert len(bench.invites) == 2
    assert flow_of(bench, bench.invites[1]) is not first
    bench.respond(200, "OK", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]


def test_connection_of_the_target_lost_in_a_call_is_opened_anew_with_its_transport(make_bench: BenchMaker) -> None:
    """OpenAI's Contact names no transport; its port speaks TLS all the same."""
    bench = make_bench(transport="tls", target="sip:p@203.0.113.5:5060;transport=tls")
    bench.answered_call()
    lost = bench.target_flow
    bench.close(lost)
    assert bench.stack.calls_in_progress == 1
    bench.caller_request("BYE")
    bye = bench.requests("BYE")[0]
    assert bye.uri == "sip:agent@203.0.113.5:5060"
    assert (bench.resolves[-1].host, bench.resolves[-1].param("transport")) == ("203.0.113.5", "tls")
    assert flow_of(bench, bye) is bench.target_flow is not lost


def test_connection_of_the_caller_lost_in_a_call_is_opened_anew_by_the_route_set(make_bench: BenchMaker) -> None:
    bench = make_bench(caller_transport="tcp")
    bench.answered_call(contact=PRIVATE, extra="Record-Route: <sip:192.0.2.10;transport=tcp;lr>")
    bench.close(bench.caller_flow)
    bench.target_request("BYE")
    assert bench.resolves[-1].host == "192.0.2.10"
    assert len(bench.caller_requests("BYE")) == 1


def test_new_connection_of_the_caller_is_followed(make_bench: BenchMaker) -> None:
    bench = make_bench(caller_transport="tcp")
    bench.answered_call(contact=PRIVATE)
    bench.close(bench.caller_flow)
    again = Flow("tcp", OURS, (CALLER[0], 40001), "198.51.100.1:5060", listener="tcp")
    bench.caller_request("INFO", flow=again)
    bench.respond(200, request=bench.requests("INFO")[0])
    assert bench.caller_saw[-1] == "200 INFO"
    bench.target_request("BYE")
    assert flow_of(bench, bench.caller_requests("BYE")[0]) is again


def test_peer_that_can_not_be_reached_any_more_does_not_keep_the_call(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tls")
    bench.answered_call()
    bench.close(bench.target_flow)
    bench.unreachable = True
    bench.caller_request("BYE")
    assert bench.caller_saw[-1] == "200 BYE"
    assert "unreachable" in bench.kinds()
    assert bench.stack.calls_in_progress == 0


def test_relayed_request_for_a_peer_that_can_not_be_reached_gets_503(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tls")
    bench.answered_call()
    bench.close(bench.target_flow)
    bench.unreachable = True
    bench.caller_request("INFO")
    assert bench.last_response.status == 503
    bench.caller_request("INVITE", cseq=3, body=OFFER)
    assert bench.last_response.status == 503
    bench.unreachable = False
    bench.caller_request("INVITE", cseq=4, body=OFFER)
    assert bench.invites[-1].to.tag == "target"


def test_connection_lost_while_a_relayed_request_is_pending_gets_503_and_the_call_stays(
    make_bench: BenchMaker,
) -> None:
    bench = make_bench(transport="tls")
    bench.answered_call()
    bench.caller_request("INFO")
    bench.close(bench.target_flow)
    assert bench.last_response.status == 503
    assert bench.stack.calls_in_progress == 1


def test_reinvite_that_waits_for_a_connection_is_not_sent_once_the_call_is_over(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tls")
    bench.answered_call()
    bench.close(bench.target_flow)
    bench.hold_flows = True
    bench.caller_request("INVITE", body=OFFER)
    bench.caller_request("BYE", cseq=3)
    assert bench.caller_saw[-2:] == ["200 BYE", "487 INVITE"]
    bench.forget()
    bench.release()
    assert bench.target_saw == ["BYE"]


@pytest.mark.parametrize("method", ["INFO", "UPDATE"])
def test_request_that_waits_for_a_connection_is_not_sent_once_the_call_is_over(
    make_bench: BenchMaker, method: str
) -> None:
    bench = make_bench(transport="tls")
    bench.answered_call()
    bench.close(bench.target_flow)
    bench.hold_flows = True
    bench.caller_request(method)
    bench.caller_request("BYE", cseq=3)
    bench.forget()
    bench.hold_flows = False
    bench.release()
    assert bench.target_saw == ["BYE"]
    assert bench.caller_saw == [f"487 {method}"]


def test_cancelled_reinvite_that_waits_for_a_connection_is_not_sent(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tls")
    bench.answered_call()
    bench.close(bench.target_flow)
    bench.hold_flows = True
    branch = bench.caller_request("INVITE", body=OFFER)
    bench.caller_request("CANCEL", branch=branch, cseq=2)
    assert bench.caller_saw[-2:] == ["200 CANCEL", "487 INVITE"]
    bench.forget()
    bench.release()
    assert bench.target_saw == []


def test_bye_timers_begin_when_the_connection_is_there(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp")
    bench.answered_call()
    bench.close(bench.target_flow)
    bench.hold_flows = True
    bench.caller_request("BYE")
    bench.advance(30)
    bench.release()
    bench.advance(20)
    assert bench.stack.tables()["client_transactions"] == 1
    bench.respond(200, request=bench.requests("BYE")[0])
    assert bench.stack.tables()["client_transactions"] == 0


def test_next_address_is_tried_when_the_first_can_not_be_reached(bench: Bench) -> None:
    hops = [Hop("udp", "203.0.113.1", 5060), Hop("udp", "203.0.113.2", 5060), Hop("udp", "203.0.113.5", 5060)]
    bench.hops["203.0.113.5"] = hops
    bench.refusing = {"203.0.113.1", "203.0.113.2"}
    bench.invite()
    assert bench.opened == hops
    assert bench.target_saw == ["INVITE"]


def test_attempt_fails_when_no_address_can_be_reached(bench: Bench) -> None:
    bench.unreachable = True
    bench.invite()
    bench.advance(30)
    assert bench.caller_saw[:2] == ["100 INVITE", "503 INVITE"]
    assert [event.fields["detail"] for event in bench.events if event.kind == "attempt-end"] == [
        "connection refused"
    ] * 6


def test_answers_for_searches_that_nobody_waits_for_do_nothing(bench: Bench) -> None:
    bench.stack.resolved(99, [], bench.now)
    bench.stack.resolve_failed(99, "no such name", bench.now)
    bench.stack.flow_opened(99, bench.target_flow, bench.now)
    bench.stack.flow_failed(99, "refused", bench.now)
    bench.perform()
    assert bench.wire == []


# Via


def test_responses_follow_rport_and_received(bench: Bench) -> None:
    flow = Flow("udp", OURS, (CALLER[0], 40000), "198.51.100.1:5060", listener="udp")
    bench.receive(
        b"OPTIONS sip:x@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKr;rport\r\n"
        b"Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKinner\r\nFrom: <sip:a@b>;tag=t\r\nTo: <sip:x@y>\r\nCall-ID: r\r\n"
        b"CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        flow,
    )
    first, second = bench.last_response.get_all("via")
    assert "rport=40000" in first
    assert "received=192.0.2.10" in first
    assert second == "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKinner"


def test_bye_that_waits_for_a_connection_longer_than_its_call_is_kept_still_crosses(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp")
    bench.answered_call()
    bench.close(bench.target_flow)
    bench.hold_flows = True
    bench.caller_request("BYE", extra="X-Note: 7")
    bench.advance(200)
    bench.release()
    assert bench.requests("BYE")[0].get("x-note") == "7"
