"""Attempts: what is tried again, with what, and what the caller hears of it."""

import pytest

from proxy.b2bua.config import AttemptPlan, RetryPolicy, Target
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import Context, Rule, RuleReject, RuleSet
from proxy.sip.flow import Flow
from proxy.sip.message import header
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, NO_RULES, OFFER, Bench
from tests.support.rules import shipped

EXACT = RetryPolicy(jitter=0.0)


def rule_set(name: str, *actions: str) -> RuleSet:
    """A set whose one rule adds header lines to every request and response."""

    def act(draft: Draft, context: Context) -> None:
        for line in actions:
            key, _, value = line.partition(": ")
            draft.append(header(key, value.replace("{attempt}", str(context.attempt))))

    return RuleSet(name, name, "1" * 12, (Rule("add", "for the test", f"rule:{name}/add", 1, actions=(act,)),))


def rejecting(name: str, status: int, reason: str, only_responses: bool = False) -> RuleSet:
    """A set that refuses every message, or every response."""

    def act(draft: Draft, context: Context) -> None:
        if draft.status or not only_responses:
            raise RuleReject(status, reason, f"rule:{name}/no")

    return RuleSet(name, name, "2" * 12, (Rule("no", "for the test", f"rule:{name}/no", 1, actions=(act,)),))


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    """Over TCP, so that no retransmissions stand between the attempts."""
    return make_bench(transport="tcp", retry=EXACT)


def test_every_attempt_is_a_new_call_from_the_saved_original(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", retry=EXACT, rules=(rule_set("add", "X-Attempt: {attempt}"),))
    bench.invite(extra="X-Note: kept\nP-Asserted-Identity: <sip:+15550100002@192.0.2.10>")
    for _ in range(3):
        bench.respond(500)
        bench.advance(2)
    first, second, third, fourth = bench.invites
    for values in (
        {invite.call_id for invite in bench.invites},
        {invite.from_.tag for invite in bench.invites},
        {invite.via.branch for invite in bench.invites},
    ):
        assert len(values) == 4
    for invite in (second, third, fourth):
        assert invite.body == first.body
        assert invite.cseq.number == first.cseq.number
        assert invite.get("x-note") == "kept"
        assert len(invite.headers) == len(first.headers)
    assert [invite.get_all("x-attempt") for invite in bench.invites] == [["1"], ["2"], ["3"], ["4"]]


def test_caller_hears_nothing_but_ringing(bench: Bench) -> None:
    bench.invite()
    bench.respond(180)
    bench.respond(503)
    bench.advance(0.2)
    bench.respond(180)
    bench.respond(500)
    bench.advance(0.4)
    bench.respond(200, "OK", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "180 INVITE", "180 INVITE", "200 INVITE"]
    assert len({message.to.tag for message in bench.to_caller[1:]}) == 1


def test_waits_between_attempts_are_the_backoff(bench: Bench) -> None:
    bench.invite()
    for wait in (0.2, 0.4, 0.8):
        bench.respond(500)
        count = len(bench.invites)
        bench.advance(wait - 0.01)
        assert len(bench.invites) == count
        bench.advance(0.02)
        assert len(bench.invites) == count + 1
        bench.respond(100)
    assert [event.fields["delay_s"] for event in bench.events if event.kind == "retry"] == [0.2, 0.4, 0.8]


def test_final_failure_has_the_last_status_phrase_and_a_reason_header(bench: Bench) -> None:
    bench.invite()
    for number in range(4):
        bench.respond(500 + number % 2, f"Failure number {number}", extra=f'X-Detail: {number}\nWarning: 399 x "y"')
        bench.advance(3)
        if bench.last_response.status >= 300:
            break
    response = bench.last_response
    assert (response.status, response.reason) == (501, "Failure number 1")
    assert response.get("reason") == 'SIP;cause=501;text="Failure number 1"'
    assert response.get("x-detail") == "1"
    assert bench.caller_saw[:2] == ["100 INVITE", "501 INVITE"]


def test_reason_header_of_the_target_is_kept_and_not_doubled(bench: Bench) -> None:
    bench.invite()
    bench.respond(486, "Busy", extra='Reason: Q.850;cause=17\nReason: SIP;cause=486;text="Theirs"')
    assert bench.last_response.get_all("reason") == ["Q.850;cause=17", 'SIP;cause=486;text="Theirs"']


def test_reason_phrase_with_odd_characters_survives_and_injects_nothing(bench: Bench) -> None:
    """drachtio lost the reason phrase of a failure that crossed."""
    bench.invite()
    phrase = 'Kein "Anschluß" unter dieser\\Nummer; x=<1>'
    bench.respond(404, phrase)
    assert bench.last_response.reason == phrase
    reason = bench.last_response.get("reason") or ""
    assert reason.count('"') == 2
    assert "\\" not in reason


def test_all_attempts_used_up_gives_the_last_failure(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", retry=RetryPolicy(max_attempts=4))
    bench.invite()
    for status in (400, 500, 502, 504):
        bench.respond(status, f"Number {status}")
        bench.advance(2)
    assert bench.caller_saw[:2] == ["100 INVITE", "504 INVITE"]
    assert bench.to_caller[1].get("reason") == 'SIP;cause=504;text="Number 504"'
    assert len(bench.invites) == 4
    outcomes = bench.ends()[0]["attempts"]
    assert isinstance(outcomes, list)
    assert [outcome["status"] for outcome in outcomes] == [400, 500, 502, 504]
    assert [outcome["next"] for outcome in outcomes[:1]] == ["retry in 0.200 s"]
    assert outcomes[-1]["next"] == "all 4 attempts are used up"


@pytest.mark.parametrize("status", [403, 404, 486, 487, 488, 600, 603])
def test_never_on_final_refusals(bench: Bench, status: int) -> None:
    bench.invite()
    bench.respond(status, "Said so")
    bench.advance(60)
    assert len(bench.invites) == 1
    assert bench.caller_saw[1] == f"{status} INVITE"
    assert bench.to_caller[1].start_line == f"SIP/2.0 {status} Said so"


def test_retry_after_is_honoured_where_it_fits(bench: Bench) -> None:
    bench.invite()
    bench.respond(503, extra="Retry-After: 7 (maintenance);duration=60")
    bench.advance(6.9)
    assert len(bench.invites) == 1
    bench.advance(0.2)
    assert len(bench.invites) == 2


def test_retry_after_beyond_the_deadline_forbids_another_attempt(bench: Bench) -> None:
    bench.invite()
    bench.respond(503, "Closed", extra="Retry-After: 3600")
    assert bench.caller_saw == ["100 INVITE", "503 INVITE"]
    assert bench.last_response.get("retry-after") == "3600"


@pytest.mark.parametrize("value", ["soon", "-1", "", "99999999999999999999", "1.5", "Mon, 01 Jan 2035 00:00:00 GMT"])
def test_retry_after_that_is_no_number_is_ignored(bench: Bench, value: str) -> None:
    bench.invite()
    bench.respond(503, extra=f"Retry-After: {value}")
    bench.advance(0.2)
    assert len(bench.invites) == 2


# Rule sets and targets


def test_attempts_use_the_rule_set_and_target_of_their_plan(make_bench: BenchMaker) -> None:
    bench = make_bench(
        transport="tcp",
        rules=(rule_set("full", "X-Rules: full"), rule_set("plain", "X-Rules: plain")),
        targets=(
            Target("main", parse_uri("sip:agent@203.0.113.5")),
            Target("second", parse_uri("sip:other@203.0.113.5;transport=tcp"), priority=1),
        ),
        retry=RetryPolicy(
            jitter=0.0,
            attempts=(AttemptPlan(), AttemptPlan(rules="plain"), AttemptPlan("plain", "second"), AttemptPlan("full")),
        ),
    )
    bench.invite()
    for _ in range(3):
        bench.respond(500)
        bench.advance(2)
    assert [invite.get("x-rules") for invite in bench.invites] == ["full", "plain", "plain", "full"]
    assert [invite.uri for invite in bench.invites] == [
        "sip:agent@203.0.113.5",
        "sip:agent@203.0.113.5",
        "sip:other@203.0.113.5;transport=tcp",
        "sip:agent@203.0.113.5",
    ]
    bench.respond(200, "OK", body=ANSWER)
    assert bench.last_response.get("x-rules") == "full"


def test_rule_that_refuses_an_invite_ends_the_call_before_the_target_hears_of_it(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", rules=(rejecting("no", 488, "No audio codec"),))
    bench.invite()
    assert bench.caller_saw == ["100 INVITE", "488 INVITE"]
    assert bench.last_response.reason == "No audio codec"
    assert bench.target_saw == []


def test_rule_that_refuses_the_answer_ends_the_session(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", rules=(rejecting("no", 488, "Not this one", only_responses=True),))
    bench.invite()
    bench.respond(180)
    assert bench.caller_saw == ["100 INVITE"]
    bench.respond(200, "OK", body=ANSWER)
    assert bench.target_saw == ["INVITE", "ACK", "BYE"]
    assert bench.caller_saw == ["100 INVITE", "502 INVITE"]
    assert bench.last_response.reason == "Unusable answer: Not this one"


def test_rule_that_refuses_a_refusal_gives_its_own(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", rules=(rejecting("no", 480, "Later", only_responses=True),))
    bench.invite()
    bench.respond(404)
    assert bench.caller_saw == ["100 INVITE", "480 INVITE"]


def test_target_without_a_user_takes_the_dialed_one(make_bench: BenchMaker) -> None:
    bench = make_bench(target="sip:203.0.113.5;transport=udp")
    bench.invite()
    assert bench.invites[0].uri == "sip:+15550100001@203.0.113.5;transport=udp"


# Time


def test_silent_target_is_given_up_and_the_next_attempt_begins(bench: Bench) -> None:
    bench.invite()
    bench.respond(100)
    bench.advance(7.9)
    assert bench.target_saw == ["INVITE"]
    bench.advance(0.5)
    assert bench.target_saw == ["INVITE", "CANCEL", "INVITE"]
    assert bench.requests("CANCEL")[0].call_id == bench.invites[0].call_id
    assert bench.caller_saw == ["100 INVITE"]


def test_cancel_of_a_silent_attempt_waits_for_its_provisional(bench: Bench) -> None:
    bench.invite()
    bench.advance(8.2)
    first, second = bench.invites
    assert bench.target_saw == ["INVITE", "INVITE"]
    bench.respond(100, request=first)
    assert bench.requests("CANCEL")[0].via.branch == first.via.branch
    bench.respond(200, "OK", request=second, body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]


def test_late_200_of_an_attempt_that_was_given_up_is_ended_and_the_caller_gets_no_second_answer(bench: Bench) -> None:
    bench.invite()
    bench.respond(100)
    first = bench.invites[0]
    bench.advance(8.2)
    bench.respond(200, "OK", request=first, tag="zombie", body=ANSWER)
    assert bench.target_saw == ["INVITE", "CANCEL", "INVITE", "ACK", "BYE"]
    assert bench.requests("ACK")[0].to.tag == bench.requests("BYE")[0].to.tag == "zombie"
    assert bench.caller_saw == ["100 INVITE"]
    bench.respond(200, "OK", body=ANSWER)
    bench.respond(200, "OK", request=first, tag="zombie", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]
    assert bench.target_saw[5:] == ["ACK", "ACK"]
    assert bench.requests("BYE")[0].call_id == first.call_id
    assert len(bench.requests("BYE")) == 1


def test_late_200_after_another_attempt_was_answered_is_ended(bench: Bench) -> None:
    bench.invite()
    bench.respond(100)
    bench.advance(8.2)
    first, second = bench.invites
    bench.respond(200, "OK", request=second, body=ANSWER)
    bench.respond(200, "OK", request=first, tag="zombie", body=ANSWER)
    assert bench.target_saw == ["INVITE", "CANCEL", "INVITE", "ACK", "ACK", "BYE"]
    assert bench.requests("BYE")[0].call_id == first.call_id
    assert bench.stack.calls_in_progress == 1


def test_late_ringing_of_an_attempt_that_was_given_up_is_not_relayed(bench: Bench) -> None:
    bench.invite()
    bench.respond(100)
    first = bench.invites[0]
    bench.advance(8.2)
    bench.respond(180, request=first)
    assert bench.caller_saw == ["100 INVITE"]


def test_late_failure_of_an_attempt_that_was_given_up_changes_nothing(bench: Bench) -> None:
    bench.invite()
    bench.respond(100)
    first = bench.invites[0]
    bench.advance(8.2)
    bench.respond(486, request=first)
    assert bench.caller_saw == ["100 INVITE"]
    assert bench.target_saw[-1] == "ACK"
    bench.respond(200, "OK", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]


def test_ringing_target_is_not_given_up(bench: Bench) -> None:
    bench.invite()
    bench.respond(180)
    bench.advance(60)
    assert bench.target_saw == ["INVITE"]
    bench.respond(200, "OK", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "180 INVITE", "200 INVITE"]


def test_no_attempt_begins_after_the_deadline_and_a_silent_one_ends_there(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", retry=RetryPolicy(jitter=0.0, answer_timeout_s=10.0))
    bench.invite()
    began = bench.now
    for wait in (10.3, 10.5, 4.0):
        bench.respond(100)
        bench.advance(wait)
    assert bench.target_saw == ["INVITE", "CANCEL", "INVITE", "CANCEL", "INVITE"]
    assert bench.caller_saw == ["100 INVITE"]
    bench.advance(began + 25.01 - bench.now)
    assert bench.caller_saw == ["100 INVITE", "408 INVITE"]
    assert bench.target_saw[5:] == ["CANCEL"]
    bench.advance(10)
    assert "INVITE" not in bench.target_saw[6:]


def test_timeouts_can_be_left_out_of_the_policy(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", retry=RetryPolicy(jitter=0.0, on_timeout=False))
    bench.invite()
    bench.respond(100)
    bench.advance(24.9)
    assert bench.target_saw == ["INVITE"]
    bench.advance(0.2)
    assert bench.caller_saw[1] == "408 INVITE"
    assert bench.target_saw == ["INVITE", "CANCEL"]


def test_one_attempt_by_policy_waits_until_the_deadline(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", retry=RetryPolicy(max_attempts=1))
    bench.invite()
    bench.respond(100)
    bench.advance(20)
    bench.respond(200, "OK", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]


def test_target_that_can_not_be_reached_is_tried_again(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", retry=EXACT)
    bench.unreachable = True
    bench.invite()
    assert bench.caller_saw == ["100 INVITE"]
    bench.unreachable = False
    bench.advance(0.2)
    assert bench.target_saw == ["INVITE"]
    bench.respond(200, "OK", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]


def test_target_that_can_never_be_reached_gives_503_with_a_reason(bench: Bench) -> None:
    bench.unreachable = True
    bench.invite()
    bench.advance(5)
    assert bench.to_caller[1].start_line == "SIP/2.0 503 Service Unavailable"
    assert bench.to_caller[1].get("reason") == 'SIP;cause=503;text="Service Unavailable"'


def test_retry_of_a_call_answers_once_and_only_the_answered_attempt_has_a_dialog(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", retry=EXACT, rules=(NO_RULES,))
    bench.invite()
    bench.respond(400, "Bad Request")
    bench.advance(0.2)
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("ACK")
    first, second = bench.invites
    bench.caller_request("BYE")
    assert bench.requests("BYE")[0].call_id == second.call_id != first.call_id
    assert bench.caller_saw == ["100 INVITE", "200 INVITE", "200 BYE"]


def test_offer_is_sent_in_full_on_every_attempt(bench: Bench) -> None:
    bench.invite(body=OFFER)
    bench.respond(500)
    bench.advance(0.2)
    assert [invite.body for invite in bench.invites] == [OFFER.encode()] * 2


# What a target may demand of the same INVITE


def test_422_is_answered_with_a_longer_session_interval_in_the_same_call(make_bench: BenchMaker) -> None:
    bench = make_bench(session_expires_s=120)
    bench.invite()
    bench.respond(422, extra="Min-SE: 600")
    first, second = bench.invites
    assert second.call_id == first.call_id
    assert second.from_.tag == first.from_.tag
    assert second.cseq.number == first.cseq.number + 1
    assert second.get("session-expires") == "600;refresher=uac"
    assert second.get("min-se") == "600"
    assert second.body == first.body
    bench.respond(200, "OK", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]
    assert bench.requests("ACK")[-1].cseq.number == 2


def test_amended_invite_has_the_same_offer_after_the_rules(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", rules=(shipped(),), session_expires_s=120)
    bench.invite(body=f"{OFFER}m=video 5000 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n")
    bench.respond(422, extra="Min-SE: 600")
    first, second = bench.invites
    assert b"m=video" not in first.body
    assert second.body == first.body
    bench.respond(200, "OK", body=ANSWER)
    assert b"m=video 0 " in bench.last_response.body


def test_late_200_over_a_new_connection_is_ended_over_a_new_one(bench: Bench) -> None:
    bench.invite()
    bench.respond(100)
    first, lost = bench.invites[0], bench.target_flow
    bench.advance(8.2)
    bench.respond(200, "OK", request=first, tag="zombie", body=ANSWER)
    bench.respond(200, request=bench.requests("BYE")[0])
    bench.respond(200, "OK", body=ANSWER)
    bench.close(lost)
    bench.forget()
    again = Flow("tcp", lost.local, (lost.remote[0], 40000), lost.advertised, listener="tcp")
    bench.respond(200, "OK", request=first, tag="zombie", body=ANSWER, flow=again)
    assert bench.target_saw == ["ACK"]
    assert bench.wire[-1][1] is bench.target_flow is not lost
