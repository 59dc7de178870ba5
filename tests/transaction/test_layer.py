"""Which message belongs to which transaction, and what happens when paths break."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.sip.errors import SipError
from proxy.sip.flow import Flow
from proxy.sip.message import Request, Response, header
from proxy.sip.parser import parse_message
from proxy.transaction.client import make_ack, make_cancel
from proxy.transaction.tables import State
from tests.transaction.harness import Harness, request, response, tcp_flow, udp_flow


def lines(message: Request | Response) -> list[str]:
    return [message.start_line, *[item.line for item in message.headers]]


def parsed(data: bytes) -> Request:
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


# Matching requests (RFC 3261 section 17.2.3)


@pytest.mark.parametrize(
    "other",
    [
        request(branch="z9hG4bKother"),
        request(via="SIP/2.0/UDP 192.0.2.99:5060;branch=z9hG4bK776asdhds"),
        request(via="SIP/2.0/UDP 192.0.2.2:5062;branch=z9hG4bK776asdhds"),
        request(via="SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK776asdhds"),
        request("OPTIONS"),
    ],
    ids=["branch", "host", "port", "no port", "method"],
)
def test_another_request_is_another_transaction(other: Request) -> None:
    harness = Harness()
    harness.get(request(), udp_flow())
    harness.get(other, udp_flow())
    assert len(harness.told) == 2
    assert len(harness.layer) == 2


@pytest.mark.parametrize(
    "other",
    [
        request(),
        request(via="SIP/2.0/UDP 192.0.2.2:5060;rport;branch=z9hG4bK776asdhds;x=y"),
        request(via="SIP / 2.0 / udp 192.0.2.2:5060 ; branch=z9hG4bK776asdhds, SIP/2.0/UDP 192.0.2.3;branch=z9hG4bKx"),
        request(uri="sip:other@example.com", from_tag="f2", call_id="c2", number=9),
    ],
    ids=["same", "parameters", "spelling", "rest"],
)
def test_branch_sent_by_and_method_are_all_that_counts(other: Request) -> None:
    harness = Harness()
    harness.get(request(), udp_flow())
    harness.get(other, udp_flow())
    assert harness.tellings() == ["request INVITE"]


def test_sent_by_is_compared_without_case() -> None:
    harness = Harness()
    harness.get(request(via="SIP/2.0/UDP Edge.Example.com;branch=z9hG4bKa"), udp_flow())
    harness.get(request(via="SIP/2.0/UDP edge.example.COM;branch=z9hG4bKa"), udp_flow())
    assert harness.tellings() == ["request INVITE"]


def test_a_retransmission_by_another_flow_is_answered_by_the_first() -> None:
    harness = Harness()
    first, second = udp_flow(), udp_flow()
    harness.get(request(), first)
    harness.respond(100)
    harness.get(request(), second)
    assert [flow is first for flow, _ in harness.wire] == [True, True]


def test_two_transactions_do_not_mix() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.get(request(branch="z9hG4bKa", call_id="a"), flow)
    first = harness.need_server()
    harness.get(request(branch="z9hG4bKb", call_id="b"), flow)
    harness.respond(486)
    harness.get(request("ACK", branch="z9hG4bKb", call_id="b", to_tag="t1"), flow)
    assert harness.need_server().state == State.CONFIRMED
    assert first.state == State.PROCEEDING


def test_a_request_that_was_not_checked_raises_the_one_error() -> None:
    harness = Harness()
    broken = parsed(b"OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\n\r\n")
    with pytest.raises(SipError):
        harness.get(broken, udp_flow())
    assert len(harness.layer) == 0


# Requests from before RFC 3261: no magic cookie in the branch

LEGACY_VIAS = [
    "SIP/2.0/UDP 192.0.2.2:5060",
    "SIP/2.0/UDP 192.0.2.2:5060;branch=1",
]


@pytest.mark.parametrize("via", LEGACY_VIAS)
def test_legacy_invite_failure_and_ack(via: str) -> None:
    harness = Harness()
    flow = udp_flow()
    harness.get(request(via=via), flow)
    harness.get(request(via=via), flow)
    assert harness.tellings() == ["request INVITE"]
    harness.respond(486)
    tx = harness.need_server()
    harness.get(request("ACK", via=via, to_tag="wrong"), flow)
    assert (tx.state, harness.tellings()) == (State.COMPLETED, ["ACK"])
    harness.get(request("ACK", via=via, to_tag="t1"), flow)
    assert (tx.state, harness.tellings()) == (State.CONFIRMED, [])


def test_legacy_reinvite_failure_and_ack() -> None:
    harness = Harness()
    flow, via = udp_flow(), LEGACY_VIAS[1]
    harness.get(request(via=via, to_tag="t1", number=2), flow)
    harness.respond(491)
    harness.get(request("ACK", via=via, to_tag="t1", number=2), flow)
    assert harness.need_server().state == State.CONFIRMED


@pytest.mark.parametrize(
    "other",
    [
        request(via=LEGACY_VIAS[1], uri="sip:carol@example.com"),
        request(via=LEGACY_VIAS[1], from_tag="f2"),
        request(via=LEGACY_VIAS[1], to_tag="t2"),
        request(via=LEGACY_VIAS[1], call_id="call-2"),
        request(via=LEGACY_VIAS[1], number=2),
        request("OPTIONS", via=LEGACY_VIAS[1]),
        request(via=LEGACY_VIAS[0]),
    ],
    ids=["uri", "From tag", "To tag", "Call-ID", "CSeq number", "method", "Via"],
)
def test_legacy_requests_differ_by(other: Request) -> None:
    harness = Harness()
    harness.get(request(via=LEGACY_VIAS[1]), udp_flow())
    harness.get(other, udp_flow())
    assert len(harness.told) == 2


def test_legacy_only_the_top_via_counts() -> None:
    harness = Harness()
    harness.get(request(via="SIP/2.0/UDP 192.0.2.2, SIP/2.0/UDP 192.0.2.3"), udp_flow())
    harness.get(request(via="SIP/2.0/UDP 192.0.2.2", extra=("Via: SIP/2.0/UDP 192.0.2.4",)), udp_flow())
    assert harness.tellings() == ["request INVITE"]


def test_legacy_cancel_and_bye() -> None:
    harness = Harness()
    flow, via = udp_flow(), LEGACY_VIAS[1]
    harness.get(request(via=via), flow)
    invite = harness.need_server()
    harness.get(request("CANCEL", via=via), flow)
    assert harness.invite_of_cancel is invite
    harness.get(request("BYE", via=via, to_tag="t1", number=2), flow)
    harness.get(request("BYE", via=via, to_tag="t1", number=2), flow)
    assert harness.tellings() == ["request INVITE", "CANCEL", "request BYE"]


def test_legacy_ack_of_a_2xx_reaches_the_tu() -> None:
    harness = Harness()
    flow, via = udp_flow(), LEGACY_VIAS[1]
    harness.get(request(via=via), flow)
    harness.respond(200)
    harness.get(request("ACK", via=via, to_tag="t1", uri="sip:bob@192.0.2.1"), flow)
    harness.get(request("ACK", via=via, to_tag="t1"), flow)
    assert harness.tellings() == ["request INVITE", "ACK", "ACK"]


# ACK and CANCEL


def test_ack_without_an_invite_reaches_the_tu() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.get(request("ACK", to_tag="t1"), flow)
    assert harness.tellings() == ["ACK"]
    assert harness.acks[0][1] is flow
    assert len(harness.layer) == 0


def test_ack_before_any_final_response_is_dropped() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.get(request(), flow)
    harness.respond(180)
    harness.get(request("ACK", to_tag="t1"), flow)
    assert harness.tellings() == ["request INVITE"]
    assert harness.need_server().state == State.PROCEEDING


def test_cancel_finds_its_invite_and_is_a_transaction_of_its_own() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.get(request(), flow)
    harness.respond(180)
    invite = harness.need_server()
    harness.get(request("CANCEL"), flow)
    assert harness.invite_of_cancel is invite
    harness.respond(200)
    harness.get(request("CANCEL"), flow)
    invite.respond(response(invite.request, 487), harness.now)
    harness.get(request("CANCEL"), flow)
    harness.get(request("ACK", to_tag="t1"), flow)
    assert harness.sends() == ["180", "200", "200", "487", "200"]
    assert harness.tellings() == ["request INVITE", "CANCEL"]
    assert (invite.state, harness.need_server().method) == (State.CONFIRMED, "CANCEL")


@pytest.mark.parametrize("branch", ["z9hG4bKother", "old"])
def test_cancel_for_nothing(branch: str) -> None:
    harness = Harness()
    harness.get(request(), udp_flow())
    harness.get(request("CANCEL", branch=branch), udp_flow())
    assert harness.tellings() == ["request INVITE", "CANCEL"]
    assert harness.invite_of_cancel is None


def test_cancel_after_the_final_response_still_names_the_invite() -> None:
    harness = Harness()
    harness.get(request(), udp_flow())
    harness.respond(200)
    harness.get(request("CANCEL"), udp_flow())
    assert harness.invite_of_cancel is not None
    assert harness.invite_of_cancel.last_status == 200


def test_our_cancel_does_not_collide_with_our_invite() -> None:
    harness = Harness()
    flow, invite = udp_flow(), request()
    tx = harness.layer.send_request(invite, flow, harness, harness.now)
    harness.get(response(invite, 180), flow)
    cancel = make_cancel(invite)
    other = harness.layer.send_request(cancel, flow, harness, harness.now)
    assert tx.branch == other.branch
    harness.get(response(cancel, 200), flow)
    assert (other.state, tx.state) == (State.COMPLETED, State.PROCEEDING)
    harness.get(response(invite, 487), flow)
    assert tx.state == State.COMPLETED
    assert harness.tellings() == ["response 180", "response 200", "response 487"]
    assert harness.sends() == ["INVITE", "CANCEL", "ACK"]


def test_terminate_tells_nobody_and_makes_later_responses_stray() -> None:
    harness = Harness()
    flow, invite = udp_flow(), request()
    tx = harness.layer.send_request(invite, flow, harness, harness.now)
    harness.get(response(invite, 180), flow)
    tx.terminate(harness.now)
    tx.terminate(harness.now)
    assert len(harness.layer) == 0
    harness.get(response(invite, 200), flow)
    assert harness.tellings() == ["response 180", "stray 200"]


# What the layer itself sends (RFC 3261 sections 17.1.1.3 and 9.1)

INVITE = b"""INVITE sip:bob@example.com;transport=tls SIP/2.0\r
v: SIP/2.0/TLS 192.0.2.1:5061;branch=z9hG4bKx1, SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKy\r
Via: SIP/2.0/UDP 192.0.2.8;branch=z9hG4bKz\r
Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>\r
ROUTE:<sip:p3.example.com;lr>\r
f: "Alice, \xc3\xa9" <sip:alice@example.net>;tag=f1\r
t: <sip:bob@example.com>\r
i: abc@192.0.2.1\r
CSeq: 17 INVITE\r
Max-Forwards: 3\r
Contact: <sip:alice@192.0.2.1:5061;transport=tls>\r
Require: 100rel\r
Proxy-Authorization: Digest username="a"\r
Content-Type: application/sdp\r
Content-Length: 3\r
\r
v=0"""


def test_ack_for_a_failure() -> None:
    invite = parsed(INVITE)
    answer = response(invite, 486, "t9")
    assert lines(make_ack(invite, answer)) == [
        "ACK sip:bob@example.com;transport=tls SIP/2.0",
        "Via: SIP/2.0/TLS 192.0.2.1:5061;branch=z9hG4bKx1",
        "Max-Forwards: 70",
        "Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>",
        "ROUTE:<sip:p3.example.com;lr>",
        'From: "Alice, é" <sip:alice@example.net>;tag=f1',
        "To: <sip:bob@example.com>;tag=t9",
        "Call-ID: abc@192.0.2.1",
        "CSeq: 17 ACK",
        "Content-Length: 0",
    ]


def test_the_ack_on_the_wire_is_that_ack_and_parses() -> None:
    harness = Harness()
    flow, invite = tcp_flow(), parsed(INVITE)
    harness.layer.send_request(invite, flow, harness, harness.now)
    answer = response(invite, 503, "t9")
    harness.get(answer, flow)
    assert harness.wire[1][1] == make_ack(invite, answer).serialize()
    ack = parsed(harness.wire[1][1])
    assert (ack.method, ack.cseq.method, ack.cseq.number, ack.to.tag, ack.body) == ("ACK", "ACK", 17, "t9", b"")


def test_ack_for_a_folded_to_has_it_on_one_line() -> None:
    answer = parse_message(b"SIP/2.0 500 X\r\nt: <sip:bob@example.com>\r\n ;tag=q\r\n\r\n")
    assert isinstance(answer, Response)
    assert "To: <sip:bob@example.com> ;tag=q" in lines(make_ack(request(), answer))


def test_ack_for_a_response_without_to_keeps_our_own() -> None:
    answer = parse_message(b"SIP/2.0 500 X\r\nCSeq: 1 INVITE\r\n\r\n")
    assert isinstance(answer, Response)
    assert "To: <sip:bob@example.com>" in lines(make_ack(request(), answer))


def test_cancel() -> None:
    cancel = make_cancel(parsed(INVITE), (header("Reason", "Q.850;cause=16"),))
    assert lines(cancel) == [
        "CANCEL sip:bob@example.com;transport=tls SIP/2.0",
        "Via: SIP/2.0/TLS 192.0.2.1:5061;branch=z9hG4bKx1",
        "Max-Forwards: 70",
        "Route: <sip:p1.example.com;lr>, <sip:p2.example.com;lr>",
        "ROUTE:<sip:p3.example.com;lr>",
        'From: "Alice, é" <sip:alice@example.net>;tag=f1',
        "To: <sip:bob@example.com>",
        "Call-ID: abc@192.0.2.1",
        "CSeq: 17 CANCEL",
        "Reason: Q.850;cause=16",
        "Content-Length: 0",
    ]
    assert cancel.body == b""


# Matching responses (RFC 3261 section 17.1.3)


def test_response_goes_to_the_transaction_of_its_branch_and_method() -> None:
    harness = Harness()
    flow = udp_flow()
    one, two = request("OPTIONS", branch="z9hG4bKa"), request("OPTIONS", branch="z9hG4bKb")
    first = harness.layer.send_request(one, flow, harness, harness.now)
    second = harness.layer.send_request(two, flow, harness, harness.now)
    harness.get(response(two, 200), udp_flow())
    assert (first.state, second.state) == (State.TRYING, State.COMPLETED)
    harness.get(response(request("BYE", branch="z9hG4bKa"), 200), flow)
    harness.get(response(request("OPTIONS", branch="z9hG4bKc"), 200), flow)
    assert harness.tellings() == ["response 200", "stray 200", "stray 200"]
    assert first.state == State.TRYING


@pytest.mark.parametrize(
    "data",
    [
        b"SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK776asdhds\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: nonsense\r\nCSeq: 1 INVITE\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK776asdhds\r\nCSeq: x INVITE\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.2:5060\r\nCSeq: 1 INVITE\r\n\r\n",
    ],
)
def test_a_broken_response_is_stray_and_harms_nothing(data: bytes) -> None:
    harness = Harness()
    tx = harness.layer.send_request(request(), udp_flow(), harness, harness.now)
    message = parse_message(data)
    assert isinstance(message, Response)
    harness.get(message, udp_flow())
    assert harness.tellings() == ["stray 200"]
    assert tx.state == State.CALLING


def test_the_user_of_a_client_transaction_may_be_set_anew() -> None:
    first, second = Harness(), Harness()
    flow, sent = udp_flow(), request()
    tx = first.layer.send_request(sent, flow, first, first.now)
    first.get(response(sent, 180), flow)
    tx.user = second
    first.get(response(sent, 200), flow)
    assert (first.tellings(), second.tellings()) == (["response 180"], ["response 200"])


def test_what_cannot_be_sent_in_a_transaction_is_refused() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.layer.send_request(request(), flow, harness, harness.now)
    with pytest.raises(ValueError, match="in use"):
        harness.layer.send_request(request(), flow, harness, harness.now)
    with pytest.raises(ValueError, match="empty"):
        harness.layer.send_request(request(via="SIP/2.0/UDP 192.0.2.1"), flow, harness, harness.now)
    with pytest.raises(ValueError, match="ACK"):
        harness.layer.send_request(request("ACK", branch="z9hG4bKq"), flow, harness, harness.now)
    assert len(harness.layer) == 1


def test_attributes_of_a_client_transaction() -> None:
    harness = Harness()
    flow, sent = udp_flow(), request()
    tx = harness.layer.send_request(sent, flow, harness, harness.now)
    assert (tx.request, tx.flow, tx.user) == (sent, flow, harness)
    assert (tx.method, tx.branch, tx.created_at) == ("INVITE", "z9hG4bK776asdhds", harness.now)
    assert repr(tx) == "<ClientTransaction INVITE z9hG4bK776asdhds Calling>"


def test_attributes_of_a_server_transaction() -> None:
    harness = Harness()
    flow, got = udp_flow(), request()
    harness.get(got, flow)
    tx = harness.need_server()
    assert (tx.request, tx.flow, tx.user) == (got, flow, None)
    assert (tx.method, tx.created_at) == ("INVITE", harness.now)
    assert repr(tx) == "<ServerTransaction INVITE z9hG4bK776asdhds Proceeding>"


# Merged requests (RFC 3261 section 8.2.2.2)


def test_a_merged_request_is_found() -> None:
    harness = Harness()
    harness.get(request(), udp_flow())
    first = harness.need_server()
    copy = request(branch="z9hG4bKfork")
    assert harness.layer.find_merged(copy) is first
    harness.get(copy, udp_flow())
    assert harness.layer.find_merged(copy) is first
    assert harness.layer.find_merged(first.request) is None
    harness.respond(482)
    harness.get(request("ACK", branch="z9hG4bKfork", to_tag="t1"), udp_flow())
    harness.pass_time(5)
    assert harness.layer.find_merged(copy) is first


@pytest.mark.parametrize(
    "other",
    [
        request(branch="z9hG4bKb", from_tag="f2"),
        request(branch="z9hG4bKb", call_id="call-2"),
        request(branch="z9hG4bKb", number=2),
        request("OPTIONS", branch="z9hG4bKb"),
        request(branch="z9hG4bKb", to_tag="t1"),
        request(),
    ],
    ids=["From tag", "Call-ID", "CSeq number", "CSeq method", "in a dialog", "same transaction"],
)
def test_not_merged(other: Request) -> None:
    harness = Harness()
    harness.get(request(), udp_flow())
    assert harness.layer.find_merged(other) is None


def test_nothing_is_merged_with_an_ended_transaction() -> None:
    harness = Harness()
    harness.get(request("OPTIONS"), tcp_flow())
    harness.respond(200)
    assert harness.layer.find_merged(request("OPTIONS", branch="z9hG4bKb")) is None


# Broken paths


def test_a_closed_connection_fails_the_requests_that_wait_for_it_and_no_others() -> None:
    harness = Harness()
    mine, other = tcp_flow(), tcp_flow()
    layer, now = harness.layer, harness.now
    calling = layer.send_request(request(branch="z9hG4bK1"), mine, harness, now)
    invite = request(branch="z9hG4bK2")
    accepted = layer.send_request(invite, mine, harness, now)
    harness.get(response(invite, 200), mine)
    trying = layer.send_request(request("OPTIONS", branch="z9hG4bK3"), mine, harness, now)
    elsewhere = layer.send_request(request("OPTIONS", branch="z9hG4bK4"), other, harness, now)
    harness.tellings()
    mine.closed = True
    layer.flow_closed(mine, now)
    layer.flow_closed(mine, now)
    assert harness.tellings() == ["transport failure"] * 2
    assert (calling.state, trying.state) == (State.TERMINATED, State.TERMINATED)
    assert (accepted.state, elsewhere.state) == (State.ACCEPTED, State.TRYING)
    assert layer.tables()["flows_in_use"] == 1
    harness.pass_time(32)
    assert harness.tellings() == ["timeout"]
    assert set(layer.tables().values()) == {0}


def test_a_user_that_gives_up_while_a_connection_closes() -> None:
    harness = Harness()
    flow, layer = tcp_flow(), harness.layer
    second = layer.send_request(request(branch="z9hG4bK2"), flow, harness, harness.now)

    class GivesUp(Harness):
        def on_transport_failure(self, tx: object, now: float) -> None:
            second.terminate(now)

    second.terminate(harness.now)
    first = layer.send_request(request(branch="z9hG4bK1"), flow, GivesUp(), harness.now)
    second = layer.send_request(request(branch="z9hG4bK2"), flow, harness, harness.now)
    flow.closed = True
    layer.flow_closed(flow, harness.now)
    assert (first.state, second.state) == (State.TERMINATED, State.TERMINATED)
    assert harness.tellings() == []
    assert len(layer) == 0


@pytest.mark.parametrize("make_flow", [udp_flow, tcp_flow])
@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_a_request_over_a_closed_flow_fails_by_timer_and_is_not_sent(
    make_flow: Callable[[], Flow], method: str
) -> None:
    harness = Harness()
    flow = make_flow()
    flow.closed = True
    tx = harness.layer.send_request(request(method), flow, harness, harness.now)
    assert harness.tellings() == []
    assert harness.active() == [0.0]
    harness.pass_time(0)
    assert harness.tellings() == ["transport failure"]
    assert (tx.state, harness.sends(), len(harness.layer), len(harness.timers)) == (State.TERMINATED, [], 0, 0)


def test_a_request_over_a_closed_flow_may_be_given_up_first() -> None:
    harness = Harness()
    flow = tcp_flow()
    flow.closed = True
    harness.layer.send_request(request(), flow, harness, harness.now).terminate(harness.now)
    harness.pass_time(100)
    assert harness.tellings() == []


def test_a_closed_socket_fails_an_unreliable_request_at_its_next_retransmission() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.layer.send_request(request(), flow, harness, harness.now)
    harness.pass_time(0.6)
    flow.closed = True
    harness.layer.flow_closed(flow, harness.now)
    assert harness.tellings() == []
    harness.pass_time(0.9)
    assert harness.tellings() == ["transport failure"]
    assert (len(harness.layer), len(harness.timers)) == (0, 0)


@pytest.mark.parametrize("repeated", [False, True], ids=["first", "repeated"])
@pytest.mark.parametrize("make_flow", [udp_flow, tcp_flow])
def test_an_ack_that_cannot_be_sent_still_lets_the_tu_have_the_response(
    make_flow: Callable[[], Flow], repeated: bool
) -> None:
    harness = Harness()
    flow = make_flow()
    sent = request()
    tx = harness.layer.send_request(sent, flow, harness, harness.now)
    if repeated:
        harness.get(response(sent, 486), flow)
    flow.closed = True
    harness.get(response(sent, 486), flow)
    expected = ["response 486", "stray 486"] if repeated and flow.reliable else ["response 486"]
    assert harness.tellings() == expected
    assert (tx.state, len(harness.layer), len(harness.timers)) == (State.TERMINATED, 0, 0)


@pytest.mark.parametrize("make_flow", [udp_flow, tcp_flow])
@pytest.mark.parametrize(
    ("method", "statuses"),
    [("INVITE", (180,)), ("INVITE", (200, 200)), ("INVITE", (486,)), ("OPTIONS", (100,)), ("OPTIONS", (200,))],
)
def test_a_response_into_a_closed_flow_is_told_once(
    make_flow: Callable[[], Flow], method: str, statuses: tuple[int, ...]
) -> None:
    harness = Harness()
    flow = make_flow()
    harness.get(request(method), flow)
    flow.closed = True
    harness.layer.flow_closed(flow, harness.now)
    assert len(harness.layer) == 1
    for status in statuses:
        harness.respond(status)
    assert harness.tellings() == [f"request {method}"]
    harness.pass_time(0)
    assert harness.tellings() == ["server failure"]
    harness.pass_time(100)
    assert harness.tellings() == []
    assert harness.sends() == []
    if statuses != (180,):
        assert set(harness.layer.tables().values()) == {0}
    else:
        harness.respond(487)
        harness.pass_time(100)
        assert len(harness.layer) == 0
        assert harness.tellings() == []


def test_the_flow_index_holds_waiting_requests_over_connections_only() -> None:
    harness = Harness()
    flow, layer = tcp_flow(), harness.layer
    sent = [request("OPTIONS", branch=f"z9hG4bK{at}") for at in range(3)]
    for message in sent:
        layer.send_request(message, flow, harness, harness.now)
    layer.send_request(request(branch="z9hG4bKudp"), udp_flow(), harness, harness.now)
    harness.get(request(), tcp_flow())
    assert layer.tables() == {
        "client_transactions": 4,
        "server_transactions": 1,
        "initial_requests": 1,
        "flows_in_use": 1,
    }
    for message in sent:
        harness.get(response(message, 200), flow)
    assert layer.tables()["flows_in_use"] == 0
    assert len(layer) == 2
