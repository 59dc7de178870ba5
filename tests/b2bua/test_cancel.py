"""CANCEL: before, between and after provisionals, and its races with the final response (RFC 3261 section 9)."""

import pytest

from proxy.b2bua.config import RetryPolicy
from proxy.sip.message import Request
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, Bench


def test_cancel_before_any_provisional_waits_for_one(bench: Bench) -> None:
    branch = bench.invite()
    bench.caller_request("CANCEL", branch=branch)
    assert bench.caller_saw == ["100 INVITE", "200 CANCEL", "487 INVITE"]
    assert bench.target_saw == ["INVITE"]
    bench.respond(100)
    assert bench.target_saw == ["INVITE", "CANCEL"]
    bench.respond(200, request=bench.requests("CANCEL")[0])
    bench.respond(487)
    assert bench.target_saw == ["INVITE", "CANCEL", "ACK"]
    assert bench.stack.calls_in_progress == 0


@pytest.mark.parametrize("provisionals", [(100,), (100, 180), (183,), (100, 180, 183)])
def test_cancel_after_provisionals_goes_on_at_once(bench: Bench, provisionals: tuple[int, ...]) -> None:
    branch = bench.invite()
    for status in provisionals:
        bench.respond(status)
    bench.caller_request("CANCEL", branch=branch)
    assert bench.target_saw == ["INVITE", "CANCEL"]
    assert bench.caller_saw[-2:] == ["200 CANCEL", "487 INVITE"]
    bench.respond(180)
    assert bench.target_saw == ["INVITE", "CANCEL"]
    assert bench.caller_saw[-1] == "487 INVITE"


def test_cancel_matches_its_invite_and_carries_max_forwards_and_reason(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch, extra='Reason: Q.850;cause=16;text="Hung up"\nReason: SIP;cause=487')
    invite, cancel = bench.to_target
    assert isinstance(invite, Request)
    assert isinstance(cancel, Request)
    assert cancel.uri == invite.uri
    assert cancel.get_all("via") == invite.get_all("via")
    assert (cancel.get("from"), cancel.get("to")) == (invite.get("from"), invite.get("to"))
    assert cancel.call_id == invite.call_id
    assert cancel.get("cseq") == "1 CANCEL"
    assert cancel.get("max-forwards") == "70"
    assert cancel.get_all("reason") == ['Q.850;cause=16;text="Hung up"', "SIP;cause=487"]


def test_cancel_while_the_target_is_looked_for_sends_it_nothing(bench: Bench) -> None:
    bench.hold_flows = True
    branch = bench.invite()
    bench.caller_request("CANCEL", branch=branch)
    assert bench.caller_saw == ["100 INVITE", "200 CANCEL", "487 INVITE"]
    bench.release()
    assert bench.target_saw == []


def test_cancel_between_two_attempts_stops_the_retries_and_sends_no_cancel(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(100)
    bench.respond(503, "Busy")
    bench.caller_request("CANCEL", branch=branch)
    assert bench.caller_saw == ["100 INVITE", "200 CANCEL", "487 INVITE"]
    bench.advance(60)
    assert bench.target_saw == ["INVITE", "ACK"]


def test_cancel_race_with_200_gives_ack_then_bye_and_487(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch)
    bench.respond(200, "OK", body=ANSWER)
    assert bench.target_saw == ["INVITE", "CANCEL", "ACK", "BYE"]
    _, _, ack, bye = bench.to_target
    assert ack.to.tag == bye.to.tag == "target"
    assert isinstance(bye, Request)
    assert bye.uri == "sip:agent@203.0.113.5:5060"
    assert bye.get("reason") == 'SIP;cause=487;text="Call no longer wanted"'
    assert bench.caller_saw == ["100 INVITE", "180 INVITE", "200 CANCEL", "487 INVITE"]
    assert bench.stack.calls_in_progress == 0
    assert bench.ends()[0]["outcome"] == "cancelled"


def test_200_that_overtakes_the_cancel_before_any_provisional_gives_ack_then_bye(bench: Bench) -> None:
    branch = bench.invite()
    bench.caller_request("CANCEL", branch=branch)
    bench.respond(200, "OK", body=ANSWER)
    assert bench.target_saw == ["INVITE", "ACK", "BYE"]
    bench.respond(200, "OK", body=ANSWER)
    assert bench.target_saw == ["INVITE", "ACK", "BYE", "ACK"]


def test_200_is_final_even_when_its_cseq_races_with_the_cancel(bench: Bench) -> None:
    """The answer to the CANCEL has the same branch and CSeq number, and must not be taken for one to the INVITE."""
    branch = bench.invite()
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch)
    cancel = bench.requests("CANCEL")[0]
    bench.respond(200, request=cancel)
    assert bench.target_saw == ["INVITE", "CANCEL"]
    bench.respond(200, "OK", request=bench.invites[0], body=ANSWER)
    assert bench.target_saw == ["INVITE", "CANCEL", "ACK", "BYE"]
    bye = bench.requests("BYE")[0]
    assert bye.cseq.number == 2


def test_cancel_after_our_200_has_no_effect(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("CANCEL", branch=branch)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE", "200 CANCEL"]
    assert bench.target_saw == ["INVITE", "ACK"]
    bench.caller_request("ACK")
    assert bench.stack.calls_in_progress == 1


def test_cancel_after_our_refusal_has_no_effect(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(486, "Busy Here")
    bench.caller_request("CANCEL", branch=branch)
    assert bench.caller_saw == ["100 INVITE", "486 INVITE", "200 CANCEL"]


def test_cancel_for_nothing_gets_481(bench: Bench) -> None:
    bench.caller_request("CANCEL", branch="z9hG4bKunknown")
    assert bench.caller_saw == ["481 CANCEL"]


def test_cancel_of_a_refused_invite_without_a_call_gets_200(make_bench: BenchMaker) -> None:
    bench = make_bench(max_calls=0)
    branch = bench.invite()
    bench.caller_request("CANCEL", branch=branch)
    assert bench.caller_saw == ["503 INVITE", "200 CANCEL"]


def test_repeated_cancel_is_answered_again_and_sends_no_second_one(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch)
    bench.caller_request("CANCEL", branch=branch)
    bench.respond(180)
    assert bench.caller_saw.count("200 CANCEL") == 2
    assert bench.caller_saw.count("487 INVITE") == 1
    assert bench.target_saw == ["INVITE", "CANCEL"]


def test_487_is_repeated_until_the_callers_ack(bench: Bench) -> None:
    branch = bench.invite()
    bench.caller_request("CANCEL", branch=branch)
    bench.advance(4)
    assert bench.caller_saw.count("487 INVITE") == 4
    bench.caller_request("ACK", branch=branch)
    bench.advance(60)
    assert bench.caller_saw.count("487 INVITE") == 4


def test_cancelled_invite_without_a_final_response_is_given_up_after_64_t1(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch)
    bench.respond(200, request=bench.requests("CANCEL")[0])
    bench.advance(31.9)
    assert bench.stack.tables()["client_transactions"] == 1
    bench.advance(0.2)
    assert bench.stack.tables()["client_transactions"] == 0


def test_cancel_pending_for_a_provisional_is_dropped_when_the_target_stays_silent(bench: Bench) -> None:
    branch = bench.invite()
    bench.caller_request("CANCEL", branch=branch)
    bench.advance(33)
    assert set(bench.target_saw) == {"INVITE"}
    assert bench.stack.tables()["client_transactions"] == 0


def test_cancel_reaches_the_attempt_that_is_under_way(make_bench: BenchMaker) -> None:
    bench = make_bench(retry=RetryPolicy(jitter=0.0))
    branch = bench.invite()
    bench.respond(500)
    bench.advance(0.2)
    bench.respond(180)
    assert bench.target_saw == ["INVITE", "ACK", "INVITE"]
    bench.caller_request("CANCEL", branch=branch)
    assert bench.requests("CANCEL")[0].call_id == bench.invites[1].call_id


def test_cancels_of_many_calls_find_each_its_own(bench: Bench) -> None:
    """drachtio lost CANCELs under load."""
    branches = [bench.invite(call_id=f"call-{number}", tag="caller") for number in range(50)]
    for number, branch in enumerate(branches):
        if number % 2:
            bench.respond(180, request=bench.invites[number])
        bench.caller_request("CANCEL", branch=branch, call_id=f"call-{number}")
    for number, invite in enumerate(bench.invites[:50]):
        if not number % 2:
            bench.respond(100, request=invite)
    cancels = bench.requests("CANCEL")
    assert len(cancels) == 50
    assert {cancel.via.branch for cancel in cancels} == {invite.via.branch for invite in bench.invites[:50]}
    assert bench.stack.calls_in_progress == 0
