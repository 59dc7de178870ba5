"""The end of a call, from either side and at odd moments."""

import pytest

from proxy.sip.message import Request, Response
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, Bench

REASON = 'Q.850;cause=16;text="Normal call clearing"'


def test_bye_of_the_caller_crosses_with_reason_and_x_headers(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("BYE", extra=f"Reason: {REASON}\nX-Twilio-CallSid: CA1\nDiversion-Note: x")
    assert bench.caller_saw[-1] == "200 BYE"
    bye = bench.to_target[-1]
    assert isinstance(bye, Request)
    assert bye.method == "BYE"
    assert bye.get("reason") == REASON
    assert bye.get("x-twilio-callsid") == "CA1"
    assert bye.uri == "sip:agent@203.0.113.5:5060"
    assert bye.get("cseq") == "2 BYE"
    assert bye.get("max-forwards") == "70"
    end = bench.ends()[0]
    assert (end["ended_by"], end["outcome"], end["detail"]) == ("caller", "answered", REASON)


def test_bye_of_the_target_crosses_with_reason_and_x_headers(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("BYE", extra=f"Reason: {REASON}\nX-Session: s1")
    assert bench.target_saw[-1] == "200 BYE"
    bye = bench.to_caller[-1]
    assert isinstance(bye, Request)
    assert bye.get("reason") == REASON
    assert bye.get("x-session") == "s1"
    assert bye.uri == "sip:+15550100002@192.0.2.10:5060"
    assert bye.to.tag == "caller"
    assert bye.get("cseq") == "1 BYE"
    assert bench.ends()[0]["ended_by"] == "target"


def test_bye_is_answered_before_the_other_leg_answers(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    assert bench.caller_saw[-1] == "200 BYE"
    assert bench.stack.calls_in_progress == 0


def test_repeated_bye_gets_200_again_and_crosses_once(bench: Bench) -> None:
    bench.answered_call()
    branch = bench.caller_request("BYE")
    bench.caller_request("BYE", branch=branch)
    assert bench.caller_saw.count("200 BYE") == 2
    assert bench.target_saw.count("BYE") == 1


def test_second_bye_after_the_end_gets_481(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    bench.caller_request("BYE", cseq=3)
    assert bench.caller_saw[-1] == "481 BYE"


def test_bye_of_the_target_before_the_callers_ack_waits_for_it(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER)
    bench.target_request("BYE", extra=f"Reason: {REASON}")
    assert bench.target_saw[-1] == "200 BYE"
    assert bench.caller_requests("BYE") == []
    bench.advance(1.6)
    assert bench.caller_saw.count("200 INVITE") == 3
    bench.caller_request("ACK")
    assert bench.caller_saw[-1] == "BYE"
    assert bench.caller_requests("BYE")[0].get("reason") == REASON


def test_bye_of_the_target_goes_to_a_caller_that_never_acknowledges_after_64_t1(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER)
    bench.target_request("BYE", extra=f"Reason: {REASON}")
    bench.advance(31.9)
    assert bench.caller_requests("BYE") == []
    bench.advance(0.2)
    assert bench.caller_requests("BYE")[0].get("reason") == REASON


def test_caller_that_waits_with_a_bye_of_ours_pending_gets_481_for_anything_else(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER)
    bench.target_request("BYE")
    bench.caller_request("INFO", body="x", content_type="text/plain")
    assert bench.caller_saw[-1] == "481 INFO"
    bench.caller_request("BYE", cseq=3)
    assert bench.caller_saw[-1] == "200 BYE"
    bench.advance(60)
    assert bench.caller_requests("BYE") == []


def test_bye_of_the_caller_in_the_early_dialog_cancels(bench: Bench) -> None:
    bench.invite()
    bench.respond(180)
    bench.caller_request("BYE", extra=f"Reason: {REASON}")
    assert bench.caller_saw[-2:] == ["200 BYE", "487 INVITE"]
    assert bench.target_saw == ["INVITE", "CANCEL"]
    assert bench.requests("CANCEL")[0].get("reason") == REASON
    assert bench.ends()[0]["ended_by"] == "caller-bye"


def test_bye_of_the_target_in_the_early_dialog_is_refused(bench: Bench) -> None:
    bench.invite()
    bench.respond(180)
    bench.target_request("BYE")
    assert bench.target_saw[-1] == "481 BYE"
    assert bench.stack.calls_in_progress == 1


def test_bye_glare_leaves_nobody_waiting(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    bench.target_request("BYE")
    assert bench.caller_saw[-1] == "200 BYE"
    assert bench.target_saw[-2:] == ["BYE", "481 BYE"]
    bench.respond(481, request=bench.requests("BYE")[0])
    bench.advance(33)
    assert bench.stack.tables()["client_transactions"] == 0
    assert bench.ends()[0]["ended_by"] == "caller"


@pytest.mark.parametrize("status", [200, 404, 481, 500])
def test_any_answer_to_our_bye_ends_it(bench: Bench, status: int) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    bench.respond(status, request=bench.requests("BYE")[0])
    bench.advance(10)
    assert bench.target_saw.count("BYE") == 1


def test_bye_that_gets_no_answer_is_repeated_and_then_recorded(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    bench.advance(33)
    assert bench.target_saw.count("BYE") == 11
    assert "no-answer" in bench.kinds()


def test_bye_with_a_broken_body_still_ends_the_other_leg(make_bench: BenchMaker) -> None:
    for body, kind in (("v=0\r\nm=audio", "application/sdp"), ("x", "text/plain")):
        bench = make_bench()
        bench.answered_call()
        bench.caller_request("BYE", body=body, content_type=kind, extra=f"Reason: {REASON}")
        assert bench.target_saw[-1] == "BYE"
        assert bench.requests("BYE")[0].get("reason") == REASON


def test_response_to_a_bye_is_never_relayed(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    bench.forget()
    bench.respond(500, request=next(m for _, _, m in bench.wire if isinstance(m, Request) and m.method == "BYE"))
    assert not [m for m in bench.to_caller if isinstance(m, Response)]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO", "MESSAGE", "NOTIFY", "OPTIONS", "REFER"])
def test_requests_after_the_end_get_481(bench: Bench, method: str) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    bench.caller_request(method, cseq=3)
    assert bench.caller_saw[-1] == f"481 {method}"
    bench.respond(200, request=bench.requests("BYE")[0])
    bench.target_request(method)
    assert bench.target_saw[-1] == f"481 {method}"


def test_late_200_after_giving_up_gets_ack_and_bye(make_bench: BenchMaker) -> None:
    bench = make_bench(ring_timeout_s=30.0)
    bench.invite()
    bench.respond(180)
    bench.advance(31)
    assert bench.caller_saw[-1] == "408 INVITE"
    bench.respond(200, "OK", body=ANSWER)
    assert bench.target_saw == ["INVITE", "CANCEL", *["CANCEL"] * bench.target_saw[2:].count("CANCEL"), "ACK", "BYE"]


def test_late_200_after_a_failure_of_the_same_invite_gets_ack_and_bye(bench: Bench) -> None:
    """What a forking proxy may send (RFC 3261 section 16.7 step 5)."""
    bench.invite()
    bench.respond(486, "Busy Here")
    assert bench.caller_saw[-1] == "486 INVITE"
    bench.respond(200, "OK", tag="fork", body=ANSWER)
    assert bench.target_saw == ["INVITE", "ACK", "ACK", "BYE"]
    assert bench.caller_saw[-1] == "486 INVITE"


def test_bye_whose_connection_breaks_goes_by_a_new_one_three_times_at_most(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", target="sip:agent@203.0.113.5;transport=tcp")
    bench.answered_call()
    bench.caller_request("BYE", extra="Reason: Q.850;cause=16")
    for number in range(5):
        bench.close(bench.target_flow)
        assert bench.target_saw == ["INVITE", "ACK", *["BYE"] * min(number + 2, 3)]
    byes = bench.requests("BYE")
    assert [bye.cseq.number for bye in byes] == [2, 3, 4]
    assert {bye.get("reason") for bye in byes} == {"Q.850;cause=16"}


def test_bye_that_was_answered_is_not_repeated_when_the_connection_breaks(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", target="sip:agent@203.0.113.5;transport=tcp")
    bench.answered_call()
    bench.caller_request("BYE")
    bench.respond(200, request=bench.requests("BYE")[0])
    bench.close(bench.target_flow)
    assert len(bench.requests("BYE")) == 1


def test_bye_that_waited_for_a_connection_and_lost_it_goes_out_again_however_late(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", target="sip:agent@203.0.113.5;transport=tcp")
    bench.answered_call()
    bench.close(bench.target_flow)
    bench.hold_flows = True
    bench.caller_request("BYE", extra="X-Why: done")
    bench.advance(20)
    bench.hold_flows = False
    bench.release()
    bench.advance(25)
    bench.close(bench.target_flow)
    assert [bye.get("x-why") for bye in bench.requests("BYE")] == ["done", "done"]
    bench.respond(200, request=bench.requests("BYE")[-1])
