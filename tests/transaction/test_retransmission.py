"""What goes out when: exact times of retransmissions, what is absorbed, and when transactions end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.sip.flow import Flow
from proxy.transaction.tables import State
from proxy.transaction.timers import TimerSettings
from tests.transaction.harness import Harness, request, response, tcp_flow, udp_flow

A_TIMES = [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
E_TIMES = [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]


def times(harness: Harness, what: str) -> list[float]:
    return [when for when, text in harness.sent if text == what]


def test_timer_a_doubles_without_a_cap_until_timer_b() -> None:
    harness = Harness()
    tx = harness.layer.send_request(request(), udp_flow(), harness, harness.now)
    harness.pass_time(31.999)
    assert times(harness, "INVITE") == A_TIMES
    assert harness.told == []
    harness.pass_time(0.001)
    assert harness.tellings() == ["timeout"]
    assert tx.state == State.TERMINATED
    harness.pass_time(100)
    assert times(harness, "INVITE") == A_TIMES


def test_timer_e_doubles_up_to_t2_until_timer_f() -> None:
    harness = Harness()
    harness.layer.send_request(request("OPTIONS"), udp_flow(), harness, harness.now)
    harness.pass_time(31.999)
    assert harness.told == []
    harness.pass_time(100)
    assert times(harness, "OPTIONS") == E_TIMES
    assert harness.tellings() == ["timeout"]


def test_timer_e_is_t2_once_a_provisional_came() -> None:
    harness = Harness()
    flow, sent = udp_flow(), request("OPTIONS")
    tx = harness.layer.send_request(sent, flow, harness, harness.now)
    harness.pass_time(1.0)
    harness.get(response(sent, 100), flow)
    assert tx.provisional_received
    harness.pass_time(100)
    assert times(harness, "OPTIONS") == [0.0, 0.5, 1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5, 29.5]
    assert harness.tellings() == ["response 100", "timeout"]


def test_timer_g_doubles_up_to_t2_until_timer_h() -> None:
    harness = Harness()
    harness.get(request(), udp_flow())
    harness.respond(486)
    harness.pass_time(31.999)
    assert harness.tellings() == ["request INVITE"]
    harness.pass_time(100)
    assert times(harness, "486") == E_TIMES
    assert harness.tellings() == ["server failure"]
    assert len(harness.layer) == 0


def test_timers_follow_the_settings() -> None:
    harness = Harness(TimerSettings(t1_s=0.25, t2_s=1.0, t4_s=2.0))
    harness.layer.send_request(request("OPTIONS"), udp_flow(), harness, harness.now)
    harness.pass_time(100)
    expected = [0.0, 0.25, 0.75, *[1.75 + at for at in range(15)]]
    assert times(harness, "OPTIONS") == expected


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_nothing_is_repeated_over_a_connection(method: str) -> None:
    harness = Harness()
    harness.layer.send_request(request(method), tcp_flow(), harness, harness.now)
    harness.pass_time(31.999)
    assert harness.told == []
    harness.pass_time(0.001)
    assert times(harness, method) == [0.0]
    assert harness.told == ["timeout"]


def test_a_failure_is_not_repeated_over_a_connection() -> None:
    harness = Harness()
    harness.get(request(), tcp_flow())
    harness.respond(486)
    harness.pass_time(31.999)
    assert harness.tellings() == ["request INVITE"]
    harness.pass_time(1)
    assert times(harness, "486") == [0.0]
    assert harness.tellings() == ["server failure"]


def test_invite_stops_at_the_first_provisional_and_waits_for_ever() -> None:
    harness = Harness()
    flow, sent = udp_flow(), request()
    tx = harness.layer.send_request(sent, flow, harness, harness.now)
    received = [tx.provisional_received]
    harness.pass_time(0.6)
    harness.get(response(sent, 100), flow)
    received.append(tx.provisional_received)
    assert received == [False, True]
    harness.pass_time(3600)
    assert times(harness, "INVITE") == [0.0, 0.5]
    assert len(harness.timers) == 0
    harness.get(response(sent, 180), flow)
    harness.get(response(sent, 180), flow)
    harness.get(response(sent, 200), flow)
    assert harness.tellings() == ["response 100", "response 180", "response 180", "response 200"]


def test_every_retransmission_is_the_same_bytes() -> None:
    harness = Harness()
    sent = request(body=b"v=0\r\n", extra=("Content-Type: application/sdp",))
    harness.layer.send_request(sent, udp_flow(), harness, harness.now)
    harness.pass_time(10)
    assert len(harness.wire) == 5
    assert {data for _, data in harness.wire} == {sent.serialize()}
    assert len({id(data) for _, data in harness.wire}) == 1


def test_invite_retransmission_gets_the_last_provisional_again() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.get(request(), flow)
    harness.get(request(), flow)
    assert harness.sends() == []
    harness.respond(100)
    harness.get(request(), flow)
    harness.respond(183)
    harness.get(request(), flow)
    harness.get(request(), flow)
    assert harness.sends() == ["100", "100", "183", "183", "183"]
    assert harness.tellings() == ["request INVITE"]


def test_no_100_comes_by_itself() -> None:
    harness = Harness()
    harness.get(request(), udp_flow())
    harness.pass_time(3600)
    assert harness.sends() == []


def test_failure_is_repeated_until_the_ack_and_acks_are_absorbed_for_t4() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.get(request(), flow)
    harness.respond(486)
    harness.pass_time(0.7)
    assert harness.sends() == ["486", "486"]
    harness.get(request("ACK", to_tag="t1"), flow)
    for _ in range(4):
        harness.pass_time(1)
        harness.get(request("ACK", to_tag="t1"), flow)
        harness.get(request(), flow)
    harness.pass_time(0.999)
    assert len(harness.layer) == 1
    harness.pass_time(0.001)
    assert len(harness.layer) == 0
    assert harness.sends() == []
    assert harness.tellings() == ["request INVITE"]


def test_repeated_failure_gets_the_same_ack_until_timer_d() -> None:
    harness = Harness()
    flow, sent = udp_flow(), request()
    harness.layer.send_request(sent, flow, harness, harness.now)
    for _ in range(3):
        harness.get(response(sent, 503), flow)
        harness.pass_time(10)
    assert harness.sends() == ["INVITE", "ACK", "ACK", "ACK"]
    assert len({id(data) for _, data in harness.wire[1:]}) == 1
    assert harness.tellings() == ["response 503"]
    harness.pass_time(1.999)
    assert len(harness.layer) == 1
    harness.pass_time(0.001)
    assert len(harness.layer) == 0
    harness.get(response(sent, 503), flow)
    assert harness.tellings() == ["stray 503"]


def test_final_response_is_repeated_for_non_invite_until_timer_j() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.get(request("BYE", to_tag="t"), flow)
    harness.get(request("BYE", to_tag="t"), flow)
    assert harness.sends() == []
    harness.respond(200)
    harness.get(request("BYE", to_tag="t"), flow)
    harness.pass_time(31.999)
    harness.get(request("BYE", to_tag="t"), flow)
    assert harness.sends() == ["200"] * 3
    assert harness.tellings() == ["request BYE"]
    harness.pass_time(0.001)
    assert len(harness.layer) == 0
    harness.get(request("BYE", to_tag="t"), flow)
    assert harness.tellings() == ["request BYE"]


def test_repeated_response_is_absorbed_for_non_invite_until_timer_k() -> None:
    harness = Harness()
    flow, sent = udp_flow(), request("OPTIONS")
    harness.layer.send_request(sent, flow, harness, harness.now)
    harness.get(response(sent, 200), flow)
    harness.pass_time(4.999)
    harness.get(response(sent, 200), flow)
    assert harness.tellings() == ["response 200"]
    harness.pass_time(0.001)
    harness.get(response(sent, 200), flow)
    assert harness.tellings() == ["stray 200"]


def test_a_second_final_response_is_dropped() -> None:
    for method, statuses in (("INVITE", (486, 503, 200)), ("INVITE", (200, 486)), ("BYE", (200, 481))):
        harness = Harness()
        harness.get(request(method), udp_flow())
        for status in statuses:
            harness.respond(status)
        assert harness.sends() == [str(statuses[0])]
        assert harness.need_server().last_status == statuses[0]


def test_last_status() -> None:
    harness = Harness()
    harness.get(request(), udp_flow())
    tx = harness.need_server()
    assert tx.last_status == 0
    harness.respond(180)
    assert tx.last_status == 180
    harness.respond(603)
    assert tx.last_status == 603


# RFC 6026


def test_the_tu_repeats_its_2xx_while_invites_are_absorbed() -> None:
    harness = Harness()
    flow = udp_flow()
    harness.get(request(), flow)
    harness.respond(200)
    tx = harness.need_server()
    assert tx.state == State.ACCEPTED
    harness.get(request(), flow)
    assert harness.sends() == ["200"]
    harness.pass_time(20)
    assert harness.sends() == []
    harness.respond(200)
    harness.respond(180)
    assert harness.sends() == ["200"]
    harness.pass_time(11.999)
    harness.get(request(), flow)
    assert harness.tellings() == ["request INVITE"]
    harness.pass_time(0.001)
    assert tx.state == State.TERMINATED
    harness.respond(200)
    assert harness.sends() == []
    harness.get(request(), flow)
    assert harness.tellings() == ["request INVITE"]


def test_every_ack_of_an_accepted_invite_reaches_the_tu() -> None:
    harness = Harness()
    flow, other = udp_flow(), udp_flow()
    harness.get(request(), flow)
    harness.respond(200)
    harness.get(request("ACK", to_tag="t1"), other)
    harness.get(request("ACK", to_tag="t1", branch="z9hG4bKother"), flow)
    assert harness.tellings() == ["request INVITE", "ACK", "ACK"]
    assert [at is other for _, at in harness.acks] == [True, False]
    assert harness.need_server().state == State.ACCEPTED


@pytest.mark.parametrize("make_flow", [udp_flow, tcp_flow])
def test_repeated_and_forked_2xx_reach_the_tu_until_timer_m(make_flow: Callable[[], Flow]) -> None:
    harness = Harness()
    path = make_flow()
    sent = request()
    tx = harness.layer.send_request(sent, path, harness, harness.now)
    harness.get(response(sent, 180, "one"), path)
    harness.get(response(sent, 200, "one"), path)
    harness.get(response(sent, 200, "one"), path)
    harness.get(response(sent, 180, "two"), path)
    harness.get(response(sent, 486, "three"), path)
    harness.pass_time(31.999)
    harness.get(response(sent, 200, "two"), path)
    assert harness.tellings() == ["response 180", *["response 200"] * 3]
    assert harness.sends() == ["INVITE"]
    assert tx.state == State.ACCEPTED
    harness.pass_time(0.001)
    assert tx.state == State.TERMINATED
    harness.get(response(sent, 200, "two"), path)
    assert harness.tellings() == ["stray 200"]
