"""What peers do that is allowed, or not quite, and seldom."""

import pytest

from proxy.b2bua.config import RetryPolicy
from proxy.sip.message import Response
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OFFER, Bench

ONCE = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize(("status", "phrase"), [(300, "Choices"), (302, "Moved"), (305, "Use Proxy"), (380, "Other")])
def test_redirection_is_a_refusal_for_the_caller_who_could_not_follow_it(
    make_bench: BenchMaker, status: int, phrase: str
) -> None:
    bench = make_bench(retry=ONCE)
    bench.invite()
    bench.respond(status, phrase, extra="Contact: <sip:elsewhere@198.18.0.1>")
    answer = bench.last_response
    assert (answer.status, answer.reason) == (480, "Temporarily Unavailable")
    assert answer.get("reason") == f'SIP;cause={status};text="{phrase}"'
    assert answer.get("contact") is None
    assert bench.target_saw == ["INVITE", "ACK"]


def test_redirection_in_the_dialog_is_a_refusal_and_the_call_goes_on(bench: Bench) -> None:
    bench.answered_call()
    for cseq, method in ((2, "INVITE"), (3, "INFO")):
        bench.caller_request(method, cseq=cseq, body=OFFER if method == "INVITE" else "")
        bench.respond(302, request=bench.requests(method)[-1], extra="Contact: <sip:elsewhere@198.18.0.1>")
        assert (bench.last_response.status, bench.last_response.get("contact")) == (480, None)
    assert bench.stack.calls_in_progress == 1


def test_invitation_ends_with_487_when_the_time_is_over_that_the_caller_gave_it(bench: Bench) -> None:
    bench.invite(extra="Expires: 20")
    bench.respond(180)
    bench.advance(19.9)
    assert bench.target_saw == ["INVITE"]
    bench.advance(0.2)
    assert bench.target_saw == ["INVITE", "CANCEL"]
    assert bench.requests("CANCEL")[0].get("reason") == 'SIP;cause=487;text="INVITE expired"'
    assert bench.last_response.status == 487
    (end,) = bench.ends()
    assert (end["outcome"], end["ended_by"]) == ("cancelled", "caller-expires")


def test_invitation_that_expires_between_two_attempts_is_not_tried_again(make_bench: BenchMaker) -> None:
    bench = make_bench(retry=RetryPolicy(backoff_initial_s=5.0, backoff_max_s=5.0, jitter=0.0))
    bench.invite(extra="Expires: 3")
    bench.respond(503)
    bench.advance(10)
    assert bench.target_saw == ["INVITE", "ACK"]
    assert bench.last_response.status == 487


@pytest.mark.parametrize("value", ["0", "soon", "-1", "600", "99999999999"])
def test_expires_that_is_none_or_longer_than_we_wait_changes_nothing(make_bench: BenchMaker, value: str) -> None:
    bench = make_bench(ring_timeout_s=60)
    bench.invite(extra=f"Expires: {value}")
    bench.respond(180)
    bench.advance(59.9)
    assert bench.caller_saw == ["100 INVITE", "180 INVITE"]
    bench.advance(0.2)
    assert bench.last_response.status == 408


def test_expires_means_nothing_once_the_call_is_answered(bench: Bench) -> None:
    bench.invite(extra="Expires: 20")
    bench.respond(200, body=ANSWER)
    bench.caller_request("ACK")
    bench.advance(60)
    assert bench.stack.calls_in_progress == 1


def test_cancel_of_a_reinvite_that_was_answered_goes_nowhere(bench: Bench) -> None:
    bench.answered_call()
    branch = bench.caller_request("INVITE", cseq=2, body=OFFER)
    bench.respond(180, request=bench.invites[-1])
    bench.respond(200, request=bench.invites[-1], body=ANSWER)
    bench.caller_request("CANCEL", branch=branch, cseq=2)
    assert bench.caller_saw[-1] == "200 CANCEL"
    assert "CANCEL" not in bench.target_saw
    bench.caller_request("ACK", cseq=2)


def test_reinvite_that_demands_reliable_responses_gets_no_other_ones(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", cseq=2, body=OFFER, extra="Require: 100rel")
    bench.respond(183, request=bench.invites[-1], body=ANSWER)
    assert bench.caller_saw[-1] == "100 INVITE"
    bench.respond(200, request=bench.invites[-1], body=ANSWER)
    assert bench.caller_saw[-1] == "200 INVITE"
    bench.caller_request("ACK", cseq=2)


@pytest.mark.parametrize("hops", ["0", "1", "60"])
def test_bye_crosses_with_hops_of_its_own(bench: Bench, hops: str) -> None:
    bench.answered_call()
    bench.caller_request("BYE", extra=f"Max-Forwards: {hops}")
    assert bench.requests("BYE")[0].get("max-forwards") == "70"


def test_routes_and_demands_on_proxies_in_an_invite_are_none_of_the_targets_business(bench: Bench) -> None:
    bench.invite(extra="Route: <sip:198.51.100.1;lr>\nRoute: <sip:elsewhere.example;lr>\nProxy-Require: privacy")
    assert [uri.host for uri in bench.resolves] == ["203.0.113.5"]
    assert (bench.invites[0].get("route"), bench.invites[0].get("proxy-require")) == (None, None)


def test_cseq_may_jump_but_not_go_back(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INFO", cseq=2**31 - 2)
    bench.respond(200, request=bench.requests("INFO")[-1])
    bench.caller_request("INFO", cseq=5)
    assert bench.last_response.status == 500
    bench.caller_request("BYE", cseq=2**31 - 1)
    assert bench.last_response.status == 200


def test_acks_that_fit_nothing_are_without_effect(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, body=ANSWER)
    bench.caller_request("ACK", cseq=7)
    bench.advance(0.6)
    assert [m.status for m in bench.to_caller if isinstance(m, Response)].count(200) == 2
    for _ in range(3):
        bench.caller_request("ACK")
    bench.advance(10)
    assert [m.status for m in bench.to_caller if isinstance(m, Response)].count(200) == 2
    assert bench.target_saw == ["INVITE", "ACK"]


def test_info_without_a_body_crosses(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INFO")
    assert (bench.requests("INFO")[0].body, bench.requests("INFO")[0].get("content-length")) == (b"", "0")


def test_late_offer_survives_a_retry(make_bench: BenchMaker) -> None:
    bench = make_bench(retry=RetryPolicy(jitter=0.0))
    bench.invite(body="")
    bench.respond(503)
    bench.advance(0.3)
    assert [invite.body for invite in bench.invites] == [b"", b""]
    bench.respond(200, body=OFFER)
    bench.caller_request("ACK", body=ANSWER)
    assert bench.requests("ACK")[-1].body == ANSWER.encode()


def test_progress_of_an_attempt_that_was_given_up_is_not_told(make_bench: BenchMaker) -> None:
    bench = make_bench(retry=RetryPolicy(answer_timeout_s=2.0, jitter=0.0))
    bench.invite()
    bench.respond(100)
    bench.advance(2.5)
    first, second = bench.invites
    bench.respond(180, request=first, tag="old")
    assert bench.caller_saw == ["100 INVITE"]
    bench.respond(487, request=first, tag="old")
    bench.respond(180, request=second)
    assert bench.caller_saw == ["100 INVITE", "180 INVITE"]


def test_reinvites_that_follow_each_other_before_the_ack_get_491(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INVITE", cseq=2, body=OFFER)
    bench.respond(200, request=bench.invites[-1], body=ANSWER)
    bench.caller_request("INVITE", cseq=3, body=OFFER)
    assert bench.last_response.status == 491
    bench.caller_request("ACK", cseq=2)
    bench.caller_request("INVITE", cseq=4, body=OFFER)
    assert bench.invites[-1].cseq.number == 3
