"""UPDATE (RFC 3311): offers that cross, offers that meet, and what needs no offer at all."""

import pytest

from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OFFER, Bench

CONTACT = "Contact: <sip:+15550100002@192.0.2.10:5060>"
NEXT_OFFER = OFFER.replace("o=- 1 1", "o=- 1 2").replace("sendrecv", "sendonly")
THEIR_OFFER = ANSWER.replace("o=- 2 2", "o=- 2 3")


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    bench = make_bench(transport="tcp", caller_transport="tcp")
    bench.answered_call()
    return bench


def test_offer_and_answer_cross_and_no_ack_follows(bench: Bench) -> None:
    bench.caller_request("UPDATE", cseq=2, body=NEXT_OFFER, extra=CONTACT)
    update = bench.requests("UPDATE")[-1]
    assert update.body == NEXT_OFFER.encode()
    assert update.get("contact") == "<sip:trunkline@198.51.100.1:5060;transport=tcp>"
    bench.respond(200, request=update, body=ANSWER.replace("sendrecv", "recvonly"))
    assert b"a=recvonly" in bench.last_response.body
    assert bench.target_saw == ["INVITE", "ACK", "UPDATE"]


def test_target_moves_by_update(bench: Bench) -> None:
    bench.target_request("UPDATE", body=THEIR_OFFER, extra="Contact: <sip:agent@203.0.113.5:5090>")
    bench.caller_answers(bench.caller_requests("UPDATE")[-1], 200, body=OFFER, contact="<sip:moved@192.0.2.10:5070>")
    bench.caller_request("BYE")
    assert bench.requests("BYE")[-1].uri == "sip:agent@203.0.113.5:5090"


def test_offers_of_both_sides_meet_and_both_get_491(bench: Bench) -> None:
    bench.caller_request("UPDATE", cseq=2, body=NEXT_OFFER, extra=CONTACT)
    bench.target_request("UPDATE", body=THEIR_OFFER)
    assert bench.last_to_target.status == 491
    bench.respond(491, request=bench.requests("UPDATE")[-1])
    assert bench.last_response.status == 491
    bench.caller_request("UPDATE", cseq=3, body=NEXT_OFFER, extra=CONTACT)
    bench.respond(200, request=bench.requests("UPDATE")[-1], body=ANSWER)
    assert bench.last_response.status == 200


def test_second_offer_of_one_side_gets_500_with_retry_after(bench: Bench) -> None:
    bench.caller_request("UPDATE", cseq=2, body=NEXT_OFFER, extra=CONTACT)
    bench.caller_request("UPDATE", cseq=3, body=NEXT_OFFER, extra=CONTACT)
    assert (bench.last_response.status, bench.last_response.get("retry-after")) == (500, "1")
    assert len(bench.requests("UPDATE")) == 1
    bench.respond(200, request=bench.requests("UPDATE")[-1], body=ANSWER)


@pytest.mark.parametrize(("first", "second"), [("INVITE", "UPDATE"), ("UPDATE", "INVITE")])
def test_update_and_reinvite_of_one_side_do_not_overlap(bench: Bench, first: str, second: str) -> None:
    bench.caller_request(first, cseq=2, body=NEXT_OFFER, extra=CONTACT)
    bench.caller_request(second, cseq=3, body=NEXT_OFFER, extra=CONTACT)
    assert bench.last_response.status == 500
    assert bench.last_response.cseq.method == second


@pytest.mark.parametrize(("first", "second"), [("INVITE", "UPDATE"), ("UPDATE", "INVITE")])
def test_update_and_reinvite_of_two_sides_do_not_overlap(bench: Bench, first: str, second: str) -> None:
    bench.caller_request(first, cseq=2, body=NEXT_OFFER, extra=CONTACT)
    bench.target_request(second, body=THEIR_OFFER, extra="Contact: <sip:agent@203.0.113.5>")
    assert (bench.last_to_target.status, bench.last_to_target.cseq.method) == (491, second)


def test_update_without_an_offer_meets_nothing(bench: Bench) -> None:
    bench.caller_request("INVITE", cseq=2, body=NEXT_OFFER, extra=CONTACT)
    bench.caller_request("UPDATE", cseq=3, extra=CONTACT)
    update = bench.requests("UPDATE")[-1]
    bench.respond(200, request=update)
    assert (bench.last_response.status, bench.last_response.cseq.method) == (200, "UPDATE")


@pytest.mark.parametrize("status", [488, 503])
def test_offer_that_failed_is_out_of_the_way(bench: Bench, status: int) -> None:
    bench.caller_request("UPDATE", cseq=2, body=NEXT_OFFER, extra=CONTACT)
    if status == 503:
        bench.close(bench.target_flow)
    else:
        bench.respond(488, request=bench.requests("UPDATE")[-1])
    bench.caller_request("UPDATE", cseq=3, body=NEXT_OFFER, extra=CONTACT)
    assert len(bench.requests("UPDATE")) == 2


def test_offer_while_an_answer_is_still_due_in_the_ack_gets_491(bench: Bench) -> None:
    bench.caller_request("INVITE", cseq=2, extra=CONTACT)
    bench.respond(200, request=bench.invites[-1], body=THEIR_OFFER)
    bench.caller_request("UPDATE", cseq=3, body=NEXT_OFFER, extra=CONTACT)
    assert bench.last_response.status == 491
    bench.caller_request("ACK", cseq=2, body=OFFER)
    bench.caller_request("UPDATE", cseq=4, body=NEXT_OFFER, extra=CONTACT)
    assert len(bench.requests("UPDATE")) == 1


def test_answer_that_is_none_is_refused(bench: Bench) -> None:
    bench.caller_request("UPDATE", cseq=2, body=NEXT_OFFER, extra=CONTACT)
    bench.respond(200, request=bench.requests("UPDATE")[-1], body="no session at all")
    assert bench.last_response.status == 488
    bench.caller_request("UPDATE", cseq=3, body=NEXT_OFFER, extra=CONTACT)
    assert len(bench.requests("UPDATE")) == 2
