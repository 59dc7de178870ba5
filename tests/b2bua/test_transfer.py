"""REFER that Trunkline carries out (RFC 3515, RFC 5589): the new call, the joining, the news, and every way to fail."""

import pytest

from proxy.b2bua.config import Target
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import Context, Rule, RuleSet
from proxy.sip.message import header
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.b2bua.transferring import (
    CALLER_ANSWER,
    REFER_TO,
    THIRD_ANSWER,
    Third,
    hears_news,
    join,
    news,
    refer,
    states,
    transfer,
)
from tests.support.bench import ANSWER, OFFER, Bench


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    """Over TCP, so that no retransmissions stand between the events."""
    return make_bench(refer="execute", transport="tcp", caller_transport="tcp")


@pytest.fixture
def third(bench: Bench) -> Third:
    return Third(bench)


# As it should go


def test_whole_transfer_of_the_caller(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench, f"{REFER_TO}\nX-Ticket: 77\nReferred-By: <sip:agent@203.0.113.5>")
    assert bench.last_to_target.status == 202
    assert bench.last_to_target.get("contact") == "<sip:trunkline@198.51.100.1:5060;transport=tcp>"
    assert news(bench) == [("SIP/2.0 100 Trying", "active")]
    first = bench.requests("NOTIFY")[0]
    assert first.get("event") == "refer;id=1"
    assert first.get("content-type") == "message/sipfrag;version=2.0"
    assert first.uri == "sip:agent@203.0.113.5:5060"
    hears_news(bench)

    invite = third.invite
    assert invite.uri == "sip:bob@198.18.0.7"
    assert invite.get("to") == "<sip:bob@198.18.0.7>"
    assert (invite.get("from") or "").startswith("<sip:+15550100002@198.51.100.1>;tag=")
    assert invite.body == OFFER.encode()
    assert (invite.get("x-ticket"), invite.get("referred-by")) == ("77", "<sip:agent@198.51.100.1>")
    assert invite.get("refer-to") is None
    assert invite.call_id not in ("call-1", bench.invites[0].call_id)
    assert bench.caller_requests("INVITE") == []

    third.answers(180)
    assert news(bench)[-1] == ("SIP/2.0 180 Phrase", "active")
    hears_news(bench)
    third.answers(200, body=THIRD_ANSWER)
    assert third.saw == ["INVITE", "ACK"]

    (again,) = bench.caller_requests("INVITE")
    assert again.to.tag == "caller"
    assert again.body == THIRD_ANSWER.replace("o=bob 7 7 IN IP4 198.18.0.7", "o=- 2 3 IN IP4 203.0.113.5").encode()
    assert "BYE" not in bench.target_saw
    bench.caller_answers(again, 200, body=CALLER_ANSWER)
    assert bench.caller_saw[-1] == "ACK"
    assert news(bench)[-1] == ("SIP/2.0 200 OK", "terminated")
    assert "BYE" not in bench.target_saw
    hears_news(bench)
    bye = bench.requests("BYE")[-1]
    assert bye.get("reason") == 'SIP;cause=200;text="Transferred"'
    bench.respond(200, request=bye)

    bench.caller_request("INFO", cseq=2)
    info = third.requests("INFO")[-1]
    assert (info.uri, info.to.tag) == ("sip:bob@198.18.0.7:5060", "third")
    third.answers(200, request=info)
    assert bench.last_response.status == 200
    third.asks("BYE", extra="Reason: Q.850;cause=16")
    assert bench.caller_requests("BYE")[-1].get("reason") == "Q.850;cause=16"
    assert states(bench) == [("received", None), ("accepted", 202), ("joined", 200)]
    (end,) = bench.ends()
    assert (end["outcome"], end["ended_by"]) == ("answered", "target")


def test_whole_transfer_of_the_target_by_the_caller(bench: Bench, third: Third) -> None:
    bench.answered_call()
    bench.caller_request("REFER", cseq=2, extra=REFER_TO)
    notify = bench.caller_requests("NOTIFY")[-1]
    assert notify.get("event") == "refer;id=2"
    bench.caller_answers(notify, 200)
    assert third.invite.body == ANSWER.encode()
    assert (third.invite.get("from") or "").startswith("<sip:+15550100001@198.51.100.1>;tag=")
    third.answers(200, body=THIRD_ANSWER)
    again = bench.invites[-1]
    assert again.to.tag == "target"
    assert b"m=audio 7000" in again.body
    assert b"o=- 1 2 IN IP4 192.0.2.10" in again.body
    bench.respond(200, request=again, body=ANSWER)
    bench.caller_answers(bench.caller_requests("NOTIFY")[-1], 200)
    assert bench.caller_saw[-1] == "BYE"
    bench.target_request("BYE")
    assert third.saw[-1] == "BYE"
    (end,) = bench.ends()
    assert end["ended_by"] == "target"


def test_the_new_leg_is_subject_to_the_rules_of_the_place_that_it_takes(make_bench: BenchMaker) -> None:
    def act(draft: Draft, context: Context) -> None:
        draft.append(header("X-Way", f"{context.direction} {context.target_host}"))

    rules = RuleSet("way", "way", "3" * 12, (Rule("way", "for the test", "rule:way/way", 1, actions=(act,)),))
    for caller_refers in (False, True):
        bench = make_bench(refer="execute", transport="tcp", caller_transport="tcp", rules=(rules,))
        third = Third(bench)
        bench.answered_call()
        if caller_refers:
            bench.caller_request("REFER", cseq=2, extra=REFER_TO)
        else:
            refer(bench)
        assert third.invite.get("x-way") == f"{'b-to-a' if caller_refers else 'a-to-b'} 198.18.0.7"
        third.answers(200, body=THIRD_ANSWER)
        again = (bench.invites if caller_refers else bench.caller_requests("INVITE"))[-1]
        assert (again.get("x-way") or "").startswith("a-to-b" if caller_refers else "b-to-a")


def test_session_of_a_caller_on_hold_is_offered_active(bench: Bench, third: Third) -> None:
    bench.answered_call()
    bench.target_request("INVITE", body=OFFER.replace("sendrecv", "sendonly"), extra="Contact: <sip:a@203.0.113.5>")
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=ANSWER.replace("sendrecv", "recvonly"))
    bench.target_request("ACK")
    refer(bench, cseq=2)
    assert b"a=sendrecv" in third.invite.body
    assert b"recvonly" not in third.invite.body
    third.answers(200, body=THIRD_ANSWER)
    assert b"a=sendrecv" in bench.caller_requests("INVITE")[-1].body


def test_session_of_a_late_offer_is_known_from_the_ack(bench: Bench, third: Third) -> None:
    bench.invite(body="")
    bench.respond(200, body=OFFER)
    bench.caller_request("ACK", body=ANSWER)
    refer(bench)
    assert third.invite.body == ANSWER.encode()


def test_the_caller_sees_one_session_whoever_it_is_with(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    join(bench)
    third.asks("INVITE", body=THIRD_ANSWER.replace("sendrecv", "sendonly"), extra="Contact: <sip:bob@198.18.0.7>")
    hold = bench.caller_requests("INVITE")[-1]
    assert b"o=- 2 4 IN IP4 203.0.113.5" in hold.body
    bench.caller_answers(hold, 200, body=CALLER_ANSWER.replace("sendrecv", "recvonly"))
    third.asks("ACK")
    bench.caller_request(
        "INVITE", cseq=2, body=OFFER.replace("o=- 1 1", "o=- 1 3"), extra="Contact: <sip:x@192.0.2.10>"
    )
    third.answers(200, request=third.requests("INVITE")[-1], body=THIRD_ANSWER)
    assert b"o=- 2 5 IN IP4 203.0.113.5" in bench.last_response.body
    bench.caller_request("ACK", cseq=2)


def test_new_session_timer_runs_on_the_new_leg(make_bench: BenchMaker) -> None:
    bench = make_bench(refer="execute", transport="tcp", caller_transport="tcp", session_expires_s=600)
    third = Third(bench)
    bench.answered_call()
    refer(bench)
    hears_news(bench)
    assert third.invite.get("session-expires") == "600;refresher=uac"
    third.answers(422, extra="Min-SE: 900")
    assert third.invite.get("session-expires") == "900;refresher=uac"
    assert third.invite.cseq.number == 2
    third.answers(200, body=THIRD_ANSWER, extra="Session-Expires: 900;refresher=uac")
    join(bench)
    bench.respond(200, request=bench.requests("BYE")[-1])
    before = len(third.saw)
    bench.advance(451)
    assert third.saw[before:] == ["INVITE"]
    assert third.requests("INVITE")[-1].get("min-se") == "900"
    third.answers(200, request=third.requests("INVITE")[-1], body=THIRD_ANSWER)


def test_second_transfer_follows_the_first(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    join(bench)
    bench.respond(200, request=bench.requests("BYE")[-1])
    third.asks("REFER", extra="Refer-To: <sip:carol@203.0.113.5>")
    bench.respond(200, body=ANSWER, tag="carol")
    again = bench.caller_requests("INVITE")[-1]
    assert b"o=- 2 4 IN IP4 203.0.113.5" in again.body
    bench.caller_answers(again, 200, body=CALLER_ANSWER)
    for number in range(2):
        third.answers(200, request=third.requests("NOTIFY")[number])
    assert third.saw[-1] == "BYE"
    bench.caller_request("BYE", cseq=2)
    assert bench.requests("BYE")[-1].to.tag == "carol"
    legs = {event.leg for event in bench.events if event.kind == "message"}
    assert legs == {"a", "b", "c", "d"}


def test_answer_that_moves_the_media_is_told_to_the_transfer_target(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    join(bench, CALLER_ANSWER.replace("m=audio 4000", "m=audio 4010"))
    assert third.saw == ["INVITE", "ACK", "INVITE"]
    assert b"m=audio 4010" in third.invite.body
    third.answers(200, body=THIRD_ANSWER)
    assert third.saw[-1] == "ACK"


def test_answer_with_another_key_is_told_to_the_transfer_target(make_bench: BenchMaker) -> None:
    def secure(text: str, key: str) -> str:
        line = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n"
        return text.replace("RTP/AVP", "RTP/SAVP").replace("a=sendrecv\r\n", f"{line}a=sendrecv\r\n")

    keys = [letter * 40 for letter in "abcde"]
    bench = make_bench(refer="execute", transport="tcp", caller_transport="tcp")
    third = Third(bench)
    bench.invite(body=secure(OFFER, keys[0]))
    bench.respond(200, body=secure(ANSWER, keys[1]))
    bench.caller_request("ACK")
    refer(bench)
    hears_news(bench)
    third.answers(200, body=secure(THIRD_ANSWER, keys[2]))
    join(bench, secure(CALLER_ANSWER, keys[3]))
    assert third.saw == ["INVITE", "ACK", "INVITE"]
    assert keys[3].encode() in third.invite.body
    third.answers(200, body=secure(THIRD_ANSWER, keys[2]))


def test_answer_with_fewer_codecs_is_no_reason_to_tell(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    join(bench, CALLER_ANSWER.replace("RTP/AVP 0 101", "RTP/AVP 0"))
    assert third.saw == ["INVITE", "ACK"]


# The referrer


def test_referrer_that_hangs_up_at_once_leaves_the_transfer_to_us(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    bench.target_request("BYE", cseq=2)
    assert bench.last_to_target.status == 200
    assert bench.caller_requests("BYE") == []
    third.answers(200, body=THIRD_ANSWER)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    assert "BYE" not in bench.target_saw
    assert len(bench.requests("NOTIFY")) == 1
    bench.caller_request("BYE")
    assert third.saw[-1] == "BYE"


def test_referrer_that_left_and_a_transfer_that_fails_end_the_call(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    bench.target_request("BYE", cseq=2)
    third.answers(486)
    assert bench.caller_requests("BYE")[-1].get("reason") == 'SIP;cause=486;text="Transfer failed"'
    assert bench.stack.calls_in_progress == 0


def test_request_of_the_side_that_stays_is_told_to_wait_when_the_referrer_has_left(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    bench.target_request("BYE", cseq=2)
    bench.caller_request("INFO", cseq=2)
    assert (bench.last_response.status, bench.last_response.get("retry-after")) == (500, "1")
    third.answers(200, body=THIRD_ANSWER)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    bench.caller_request("INFO", cseq=3)
    assert third.saw[-1] == "INFO"


def test_old_call_goes_on_while_the_new_one_rings(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    third.answers(180)
    bench.caller_request("INFO", cseq=2)
    assert bench.target_saw[-1] == "INFO"


def test_referrer_that_hangs_up_after_the_last_notify_gets_no_bye(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    bench.target_request("BYE", cseq=2)
    assert bench.last_to_target.status == 200
    hears_news(bench)
    assert bench.requests("BYE") == []
    assert bench.stack.calls_in_progress == 1
    bench.caller_request("BYE")
    assert third.saw[-1] == "BYE"


def test_other_requests_of_a_referrer_that_was_replaced_get_481(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    bench.target_request("INFO", cseq=2)
    assert bench.last_to_target.status == 481


def test_referrer_that_answers_no_notify_gets_its_bye_all_the_same(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    third.answers(180)
    third.answers(200, body=THIRD_ANSWER)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    assert news(bench) == [("SIP/2.0 100 Trying", "active")]
    bench.advance(31.9)
    assert "BYE" not in bench.target_saw
    bench.advance(0.2)
    assert bench.target_saw[-1] == "BYE"
    assert len(bench.requests("NOTIFY")) == 1


def test_one_notify_at_a_time_and_only_the_latest_news(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    third.answers(180)
    third.answers(181)
    third.answers(183)
    assert len(news(bench)) == 1
    hears_news(bench)
    assert news(bench)[1:] == [("SIP/2.0 183 Phrase", "active")]
    third.answers(200, body=THIRD_ANSWER)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    assert len(news(bench)) == 2
    hears_news(bench)
    assert news(bench)[2:] == [("SIP/2.0 200 OK", "terminated")]
    hears_news(bench)
    assert bench.target_saw[-1] == "BYE"


def test_referrer_that_ends_the_subscription_hears_nothing_more_but_the_bye(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    bench.respond(481, request=bench.requests("NOTIFY")[-1])
    third.answers(180)
    third.answers(200, body=THIRD_ANSWER)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    assert len(news(bench)) == 1
    assert bench.target_saw[-1] == "BYE"


def test_no_subscription_where_none_is_wanted(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench, f"{REFER_TO}\nRefer-Sub: false\nRequire: norefersub")
    assert (bench.last_to_target.status, bench.last_to_target.get("refer-sub")) == (202, "false")
    third.answers(200, body=THIRD_ANSWER)
    assert third.invite.get("refer-sub") is None
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    assert bench.requests("NOTIFY") == []
    assert bench.target_saw[-1] == "BYE"


def test_challenged_notify_goes_out_again_with_credentials(make_bench: BenchMaker) -> None:
    target = Target("main", parse_uri("sip:agent@203.0.113.5"), username="u", password="p")
    bench = make_bench(refer="execute", transport="tcp", targets=[target])
    bench.answered_call()
    refer(bench)
    bench.respond(401, request=bench.requests("NOTIFY")[-1], extra='WWW-Authenticate: Digest realm="r", nonce="n"')
    first, second = bench.requests("NOTIFY")
    assert second.get("authorization") is not None
    assert second.body == first.body


# How it fails: the old call stays


@pytest.mark.parametrize(("status", "reason"), [(486, "Busy Here"), (404, "Not Found"), (603, "Decline")])
def test_refusal_of_the_transfer_target_is_told_and_the_old_call_goes_on(
    bench: Bench, third: Third, status: int, reason: str
) -> None:
    bench.answered_call()
    refer(bench)
    hears_news(bench)
    bench.respond(status, reason, request=third.invite, flow=third.flow, tag="third")
    assert third.saw == ["INVITE", "ACK"]
    assert news(bench)[-1] == (f"SIP/2.0 {status} {reason}", "terminated")
    hears_news(bench)
    assert "BYE" not in bench.target_saw
    assert bench.caller_requests("INVITE") == []
    assert states(bench)[-1] == ("failed", status)
    bench.caller_request("INFO", cseq=2)
    assert bench.target_saw[-1] == "INFO"
    bench.respond(200, request=bench.requests("INFO")[-1])
    refer(bench, cseq=2)
    assert bench.last_to_target.status == 202


def test_transfer_target_that_can_not_be_reached(bench: Bench) -> None:
    bench.answered_call()
    bench.unreachable = True
    refer(bench)
    hears_news(bench)
    assert news(bench)[-1] == ("SIP/2.0 503 Service Unavailable", "terminated")
    bench.unreachable = False
    assert bench.stack.calls_in_progress == 1


def test_connection_to_the_transfer_target_breaks(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    hears_news(bench)
    bench.close(third.flow)
    assert news(bench)[-1][0] == "SIP/2.0 503 Service Unavailable"
    assert bench.stack.calls_in_progress == 1


def test_transfer_target_that_never_answers_is_given_up(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    hears_news(bench)
    bench.advance(33)
    assert news(bench)[-1][0] == "SIP/2.0 408 Request Timeout"
    assert bench.stack.calls_in_progress == 1


def test_transfer_target_that_rings_for_too_long_is_cancelled(make_bench: BenchMaker) -> None:
    bench = make_bench(refer="execute", transport="tcp", ring_timeout_s=60)
    third = Third(bench)
    bench.answered_call()
    refer(bench)
    hears_news(bench)
    third.answers(180)
    hears_news(bench)
    bench.advance(60.1)
    assert third.saw == ["INVITE", "CANCEL"]
    assert news(bench)[-1] == ("SIP/2.0 408 Request Timeout", "terminated")
    third.answers(200, request=third.requests("CANCEL")[-1])
    third.answers(487, request=third.requests("INVITE")[-1])
    assert bench.stack.calls_in_progress == 1


def test_answer_after_we_gave_up_is_ended(make_bench: BenchMaker) -> None:
    bench = make_bench(refer="execute", transport="tcp", ring_timeout_s=20)
    third = Third(bench)
    bench.answered_call()
    refer(bench)
    bench.advance(20.1)
    assert third.saw == ["INVITE"]
    third.answers(180)
    assert third.saw == ["INVITE", "CANCEL"]
    third.answers(200, request=third.requests("INVITE")[-1], body=THIRD_ANSWER)
    assert third.saw == ["INVITE", "CANCEL", "ACK", "BYE"]
    third.answers(200, request=third.requests("INVITE")[-1], body=THIRD_ANSWER)
    assert third.saw[4:] == ["ACK"]


def test_caller_that_refuses_its_new_session_keeps_the_old_call(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 488)
    assert third.saw == ["INVITE", "ACK", "BYE"]
    assert news(bench)[-1] == ("SIP/2.0 488 Phrase", "terminated")
    bench.caller_request("INFO", cseq=2)
    assert bench.target_saw[-1] == "INFO"


def test_caller_that_has_a_reinvite_of_its_own_under_way_is_asked_again(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 491)
    bench.advance(2.1)
    first, second = bench.caller_requests("INVITE")
    assert second.cseq.number > first.cseq.number
    assert second.body == first.body
    join(bench)
    assert states(bench)[-1] == ("joined", 200)


def test_joining_waits_for_a_reinvite_that_is_pending(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    hears_news(bench)
    bench.caller_request("INVITE", cseq=2, body=CALLER_ANSWER, extra="Contact: <sip:x@192.0.2.10>")
    third.answers(200, body=THIRD_ANSWER)
    bench.advance(3)
    assert bench.caller_requests("INVITE") == []
    bench.respond(200, request=bench.invites[-1], body=ANSWER)
    bench.caller_request("ACK", cseq=2)
    bench.advance(0.3)
    assert len(bench.caller_requests("INVITE")) == 1


def test_caller_whose_dialog_is_lost_ends_everything(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 481)
    assert third.saw[-1] == "BYE"
    assert bench.target_saw[-1] == "BYE"
    assert bench.stack.calls_in_progress == 0


@pytest.mark.parametrize("body", ["", "no session", THIRD_ANSWER.replace("RTP/AVP 0 101", "RTP/AVP 3 101")])
def test_answer_without_a_usable_session_fails_the_transfer(bench: Bench, third: Third, body: str) -> None:
    bench.answered_call()
    refer(bench)
    hears_news(bench)
    third.answers(200, body=body)
    assert third.saw == ["INVITE", "ACK", "BYE"]
    assert news(bench)[-1][0].startswith("SIP/2.0 488")
    assert bench.caller_requests("INVITE") == []


def test_transfer_target_that_hangs_up_before_it_is_joined_gives_the_caller_its_old_session_back(
    bench: Bench, third: Third
) -> None:
    transfer(bench, third)
    third.asks("BYE")
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    again = bench.caller_requests("INVITE")[-1]
    assert again.body == ANSWER.replace("o=- 2 2", "o=- 2 4").encode()
    bench.caller_answers(again, 200, body=CALLER_ANSWER)
    assert news(bench)[-1] == ("SIP/2.0 480 Temporarily Unavailable", "terminated")
    bench.caller_request("INFO", cseq=2)
    assert bench.target_saw[-1] == "INFO"


def test_transfer_target_that_hangs_up_with_nobody_left_ends_the_call(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    bench.target_request("BYE", cseq=2)
    third.asks("BYE")
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    assert bench.caller_saw[-1] == "BYE"
    assert bench.stack.calls_in_progress == 0


# Who hangs up meanwhile


def test_caller_that_hangs_up_before_the_new_call_rings_ends_it_all(bench: Bench, third: Third) -> None:
    bench.answered_call()
    refer(bench)
    hears_news(bench)
    bench.caller_request("BYE", extra="Reason: Q.850;cause=16")
    assert bench.requests("BYE")[-1].get("reason") == "Q.850;cause=16"
    assert third.saw == ["INVITE"]
    third.answers(180)
    assert third.saw == ["INVITE", "CANCEL"]
    assert third.requests("CANCEL")[-1].get("reason") == "Q.850;cause=16"
    third.answers(200, request=third.requests("INVITE")[-1], body=THIRD_ANSWER)
    assert third.saw == ["INVITE", "CANCEL", "ACK", "BYE"]
    assert states(bench)[-1] == ("ended", 487)


def test_caller_that_hangs_up_before_there_is_a_way_to_the_transfer_target(bench: Bench, third: Third) -> None:
    bench.answered_call()
    bench.hold_flows = True
    refer(bench)
    bench.caller_request("BYE")
    bench.release()
    assert third.saw == []


def test_caller_that_hangs_up_while_it_is_joined_ends_both(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    bench.caller_request("BYE")
    assert third.saw == ["INVITE", "ACK", "BYE"]
    assert bench.target_saw[-1] == "BYE"
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 487)
    assert bench.stack.tables()["legs"] == 0


def test_end_from_the_middle_ends_all_three(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    bench.stack.hang_up_all("Maintenance", bench.now)
    bench.perform()
    assert third.saw[-1] == bench.target_saw[-1] == bench.caller_saw[-1] == "BYE"


def test_forked_answer_of_the_transfer_target_is_ended(bench: Bench, third: Third) -> None:
    transfer(bench, third)
    third.answers(200, request=third.requests("INVITE")[0], tag="other", body=THIRD_ANSWER)
    assert third.saw[-2:] == ["ACK", "BYE"]
    assert third.requests("BYE")[-1].to.tag == "other"
    third.answers(200, request=third.requests("INVITE")[0], body=THIRD_ANSWER)
    assert third.requests("ACK")[-1].to.tag == "third"
    join(bench)
