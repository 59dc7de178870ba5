"""Requests inside an answered call, both ways."""

import pytest

from proxy.sip.message import Request, Response
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OFFER, Bench

HOLD = OFFER.replace("a=sendrecv", "a=sendonly").replace("o=- 1 1", "o=- 1 2")
HOLD_ANSWER = ANSWER.replace("a=sendrecv", "a=recvonly").replace("o=- 2 2", "o=- 2 3")
B_OFFER = ANSWER.replace("o=- 2 2", "o=- 2 3")
A_ANSWER = OFFER.replace("o=- 1 1", "o=- 1 2")
CONTACT = "Contact: <sip:+15550100002@192.0.2.10:5060>"


def last_request(messages: list[Request], method: str) -> Request:
    assert messages
    assert messages[-1].method == method
    return messages[-1]


# re-INVITE


def test_reinvite_of_the_caller_crosses_and_its_answer_comes_back(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    assert bench.caller_saw[-1] == "100 INVITE"
    invite = last_request(bench.invites, "INVITE")
    assert invite.body == HOLD.encode()
    assert invite.to.tag == "target"
    assert invite.cseq.number == 2
    bench.respond(200, "OK", body=HOLD_ANSWER)
    assert bench.target_saw[-1] == "ACK"
    assert bench.requests("ACK")[-1].cseq.number == 2
    assert bench.last_response.body == HOLD_ANSWER.encode()
    bench.caller_request("ACK", cseq=2)
    bench.advance(60)
    assert bench.caller_saw.count("200 INVITE") == 2
    assert bench.stack.calls_in_progress == 1


def test_reinvite_of_the_target_crosses_and_its_answer_comes_back(bench: Bench) -> None:
    bench.answered_call()
    bench.target_request("INVITE", body=B_OFFER, extra="Contact: <sip:agent@203.0.113.5:5060>")
    invite = last_request(bench.caller_requests("INVITE"), "INVITE")
    assert invite.body == B_OFFER.encode()
    assert invite.get("cseq") == "1 INVITE"
    bench.caller_answers(invite, 200, body=A_ANSWER, contact="<sip:+15550100002@192.0.2.10:5060>")
    assert bench.caller_requests("ACK")[-1].cseq.number == 1
    assert bench.last_to_target.body == A_ANSWER.encode()
    bench.target_request("ACK", cseq=1)
    bench.advance(60)
    assert bench.target_saw.count("200 INVITE") == 1
    assert bench.stack.calls_in_progress == 1


def test_refused_reinvite_leaves_the_call_up(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.respond(488, "Not Acceptable Here", extra='Warning: 304 x "no"')
    assert (bench.last_response.status, bench.last_response.reason) == (488, "Not Acceptable Here")
    assert bench.stack.calls_in_progress == 1
    bench.caller_request("INVITE", cseq=3, body=HOLD, extra=CONTACT)
    assert bench.invites[-1].cseq.number == 3


def test_late_offer_in_a_reinvite_waits_for_the_callers_ack(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", extra=CONTACT)
    bench.respond(200, "OK", body=B_OFFER)
    assert len(bench.requests("ACK")) == 1
    bench.respond(200, "OK", body=B_OFFER)
    assert len(bench.requests("ACK")) == 1
    bench.caller_request("ACK", cseq=2, body=A_ANSWER)
    ack = bench.requests("ACK")[-1]
    assert ack.cseq.number == 2
    assert ack.body == A_ANSWER.encode()


def test_late_copy_of_the_first_ack_does_not_acknowledge_the_reinvite(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", extra=CONTACT)
    bench.respond(200, "OK", body=B_OFFER)
    bench.caller_request("ACK", cseq=1)
    bench.advance(0.6)
    assert bench.caller_saw.count("200 INVITE") == 3
    assert len(bench.requests("ACK")) == 1
    bench.caller_request("ACK", cseq=2, body=A_ANSWER)
    assert len(bench.requests("ACK")) == 2


def test_reinvite_glare_gets_491_on_the_side_that_comes_second(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.target_request("INVITE", body=B_OFFER)
    assert bench.target_saw[-1] == "491 INVITE"
    assert bench.caller_requests("INVITE") == []
    bench.respond(491, "Request Pending", request=bench.invites[-1])
    assert bench.last_response.status == 491
    assert bench.stack.calls_in_progress == 1


def test_reinvite_of_the_target_before_the_callers_ack_gets_491(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER)
    bench.target_request("INVITE", body=B_OFFER)
    assert bench.target_saw[-1] == "491 INVITE"
    bench.caller_request("ACK")
    bench.target_request("INVITE", cseq=2, body=B_OFFER)
    assert bench.caller_requests("INVITE")


def test_second_reinvite_while_one_is_pending_gets_500_with_retry_after(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.caller_request("INVITE", cseq=3, body=HOLD, extra=CONTACT)
    assert bench.last_response.status == 500
    assert bench.last_response.get("retry-after") is not None
    assert len(bench.invites) == 2


def test_cancel_of_a_reinvite_goes_on_once_and_the_487_comes_back(bench: Bench) -> None:
    bench.answered_call()
    branch = bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.caller_request("CANCEL", branch=branch, cseq=2)
    assert bench.caller_saw[-1] == "200 CANCEL"
    assert bench.requests("CANCEL") == []
    for status in (100, 100, 180):
        bench.respond(status)
    assert len(bench.requests("CANCEL")) == 1
    bench.respond(200, request=bench.requests("CANCEL")[0])
    bench.respond(487)
    assert bench.last_response.status == 487
    assert bench.stack.calls_in_progress == 1


def test_cancelled_reinvite_that_is_answered_all_the_same_is_acknowledged_and_relayed(bench: Bench) -> None:
    bench.answered_call()
    branch = bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.respond(100)
    bench.caller_request("CANCEL", branch=branch, cseq=2)
    bench.respond(200, "OK", body=HOLD_ANSWER, request=bench.invites[-1])
    assert bench.requests("ACK")[-1].cseq.number == 2
    assert bench.caller_saw[-1] == "200 INVITE"
    assert bench.stack.calls_in_progress == 1


def test_cancelled_reinvite_that_is_never_answered_ends_after_64_t1(bench: Bench) -> None:
    bench.answered_call()
    branch = bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch, cseq=2)
    bench.respond(200, request=bench.requests("CANCEL")[0])
    bench.advance(32.1)
    assert "487 INVITE" in bench.caller_saw
    assert bench.stack.tables()["client_transactions"] == 0
    assert bench.stack.calls_in_progress == 1


@pytest.mark.parametrize("late", ["487", "200", "none"])
def test_bye_ends_a_pending_reinvite_whatever_the_other_side_says_to_it(bench: Bench, late: str) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.respond(180)
    invite = bench.invites[-1]
    bench.caller_request("BYE", cseq=3)
    assert bench.caller_saw[-2:] == ["200 BYE", "487 INVITE"]
    bench.respond(200, request=bench.requests("BYE")[0])
    bench.forget()
    if late == "487":
        bench.respond(487, request=invite)
        assert bench.target_saw == ["ACK"]
    elif late == "200":
        bench.respond(200, "OK", request=invite, body=HOLD_ANSWER)
        assert bench.target_saw == ["ACK"]
        bench.respond(200, "OK", request=invite, body=HOLD_ANSWER)
        assert bench.target_saw == ["ACK", "ACK"]
    bench.advance(70)
    assert not [name for name in bench.caller_saw if name != "487 INVITE"]
    assert bench.stack.tables()["client_transactions"] == 0


def test_reinvite_that_finds_the_other_dialog_gone_ends_the_call(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.respond(481, "Call/Transaction Does Not Exist")
    assert "481 INVITE" in bench.caller_saw
    assert bench.caller_requests("BYE")
    assert bench.stack.calls_in_progress == 0


def test_reinvite_without_any_answer_ends_the_call(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.advance(33)
    assert "408 INVITE" in bench.caller_saw
    assert bench.stack.calls_in_progress == 0


def test_reinvite_answered_with_broken_sdp_is_acknowledged_and_refused(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.respond(200, "OK", body="v=0\r\nm=audio")
    assert bench.requests("ACK")[-1].cseq.number == 2
    assert bench.last_response.status == 488


def test_reinvite_with_broken_sdp_is_refused_and_does_not_cross(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body="v=0\r\nm=audio", extra=CONTACT)
    assert bench.last_response.status == 488
    assert len(bench.invites) == 1
    bench.caller_request("INVITE", cseq=3, body=HOLD, extra=CONTACT)
    assert len(bench.invites) == 2


@pytest.mark.parametrize("contact", ["<sip:new@203.0.113.77:5070>", "<sip:broken"])
def test_2xx_to_a_reinvite_moves_the_target_only_by_a_contact_that_can_be_read(bench: Bench, contact: str) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra=CONTACT)
    bench.respond(200, "OK", body=HOLD_ANSWER, contact=contact)
    assert bench.last_response.status == 200
    bench.caller_request("ACK", cseq=2)
    bench.caller_request("BYE", cseq=3)
    moved = "sip:new@203.0.113.77:5070" if "new" in contact else "sip:agent@203.0.113.5:5060"
    assert bench.requests("BYE")[0].uri == moved


def test_reinvite_moves_the_callers_target(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", body=HOLD, extra="Contact: <sip:moved@192.0.2.99:5099>")
    bench.respond(200, "OK", body=HOLD_ANSWER)
    bench.caller_request("ACK", cseq=2)
    bench.target_request("BYE")
    assert bench.caller_requests("BYE")[0].uri == "sip:moved@192.0.2.99:5099"


# Others


@pytest.mark.parametrize(
    ("method", "body", "kind"),
    [
        ("INFO", "Signal=5\r\nDuration=160\r\n", "application/dtmf-relay"),
        ("MESSAGE", "hello", "text/plain"),
        ("NOTIFY", "x", "message/sipfrag"),
        ("OPTIONS", "", ""),
        ("UPDATE", HOLD, "application/sdp"),
    ],
)
def test_request_of_the_caller_crosses_and_its_response_comes_back(
    bench: Bench, method: str, body: str, kind: str
) -> None:
    bench.answered_call()
    bench.caller_request(method, body=body, content_type=kind, extra="Event: x\nX-Note: 7")
    request = bench.requests(method)[0]
    assert request.body == body.encode()
    assert request.content_type == kind
    assert request.get("x-note") == "7"
    assert request.get("cseq") == f"2 {method}"
    answer = HOLD_ANSWER if method == "UPDATE" else ""
    bench.respond(200, "Fine", request=request, body=answer, extra="X-Back: 8")
    response = bench.last_response
    assert (response.status, response.reason, response.cseq.method) == (200, "Fine", method)
    assert response.get("x-back") == "8"
    assert response.body == answer.encode()


@pytest.mark.parametrize("method", ["INFO", "MESSAGE", "NOTIFY", "OPTIONS", "UPDATE"])
def test_request_of_the_target_crosses_and_its_response_comes_back(bench: Bench, method: str) -> None:
    bench.answered_call()
    bench.target_request(method, extra="Event: x\nX-Note: 7")
    request = bench.caller_requests(method)[0]
    assert request.get("x-note") == "7"
    bench.caller_answers(request, 415, reason="No", extra="X-Back: 8")
    response = bench.last_to_target
    assert (response.status, response.reason, response.cseq.method) == (415, "No", method)
    assert response.get("x-back") == "8"
    assert bench.stack.calls_in_progress == 1


def test_repeated_request_is_answered_once_and_crosses_once(bench: Bench) -> None:
    bench.answered_call()
    branch = bench.caller_request("INFO", body="x", content_type="text/plain")
    bench.caller_request("INFO", branch=branch, body="x", content_type="text/plain")
    assert len(bench.requests("INFO")) == 1
    bench.respond(200, request=bench.requests("INFO")[0])
    bench.caller_request("INFO", branch=branch, body="x", content_type="text/plain")
    assert bench.caller_saw.count("200 INFO") == 2


def test_request_without_any_answer_gets_408_and_ends_the_call(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INFO", body="x", content_type="text/plain")
    bench.advance(33)
    assert "408 INFO" in bench.caller_saw
    assert bench.stack.calls_in_progress == 0


@pytest.mark.parametrize(("method", "status"), [("SUBSCRIBE", 405), ("PUBLISH", 405), ("REGISTER", 405), ("FOO", 501)])
def test_method_that_is_not_taken_in_a_dialog_is_refused_with_allow(bench: Bench, method: str, status: int) -> None:
    bench.answered_call()
    bench.caller_request(method)
    assert bench.last_response.status == status
    assert "INVITE" in (bench.last_response.get("allow") or "")
    assert method not in (bench.last_response.get("allow") or "")
    assert bench.stack.calls_in_progress == 1


def test_required_extension_that_is_unknown_gets_420_inside_a_dialog_too(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INFO", extra="Require: timer, foo\nRequire: bar")
    assert bench.last_response.status == 420
    assert bench.last_response.get("unsupported") == "foo, bar"
    assert bench.requests("INFO") == []
    bench.caller_request("BYE", cseq=3, extra="Require: foo")
    assert bench.last_response.status == 200


def test_lower_or_same_cseq_gets_500(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INFO", cseq=5)
    bench.caller_request("INFO", cseq=4)
    assert bench.last_response.status == 500
    bench.caller_request("INFO", cseq=5)
    assert bench.last_response.status == 500
    bench.caller_request("INFO", cseq=600)
    assert len(bench.requests("INFO")) == 2


def test_max_forwards_is_one_less_in_the_dialog_and_0_gets_483(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INFO")
    assert bench.requests("INFO")[0].get("max-forwards") == "69"
    bench.caller_request("INFO", cseq=3, extra="Max-Forwards: 0")
    assert bench.last_response.status == 483
    assert len(bench.requests("INFO")) == 1


def test_request_in_the_early_dialog_is_told_to_wait(bench: Bench) -> None:
    bench.invite()
    bench.respond(180)
    bench.caller_request("INFO", body="x", content_type="text/plain")
    assert bench.last_response.status == 500
    assert bench.last_response.get("retry-after") is not None


def test_requests_cross_with_the_rules_of_the_attempt_that_was_answered(make_bench: BenchMaker) -> None:
    bench = make_bench()
    bench.answered_call()
    bench.caller_request("INFO", extra="Via: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bKinner\nRecord-Route: <sip:10.1.1.1;lr>")
    request = bench.requests("INFO")[0]
    assert len(request.get_all("via")) == 1
    assert b"10.1.1.1" not in request.serialize()


def test_failures_of_a_relayed_request_come_back_as_they_are(bench: Bench) -> None:
    bench.answered_call()
    for number, status in enumerate((400, 403, 415, 469, 500, 503, 603), 2):
        bench.caller_request("INFO", cseq=number)
        bench.respond(status, f"Reason {status}", request=bench.requests("INFO")[-1])
        response = bench.last_response
        assert isinstance(response, Response)
        assert (response.status, response.reason) == (status, f"Reason {status}")
    assert bench.stack.calls_in_progress == 1


@pytest.mark.parametrize("method", ["INVITE", "INFO", "UPDATE"])
def test_request_of_the_target_waits_until_the_caller_has_our_200(bench: Bench, method: str) -> None:
    """The 200 may have to wait for a PRACK; until then leg A is an early dialog."""
    bench.invite(extra="Require: 100rel")
    bench.respond(180)
    bench.respond(200, "OK", body=ANSWER)
    assert "200 INVITE" not in bench.caller_saw
    bench.target_request(method, body=B_OFFER if method != "INFO" else "")
    assert bench.last_to_target.status == 500
    assert bench.last_to_target.get("retry-after") is not None
    assert bench.caller_requests(method) == []
