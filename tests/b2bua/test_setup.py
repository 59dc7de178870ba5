"""From the caller's INVITE to the answered call, over one attempt."""

from proxy.sip.message import Request, Response
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OFFER, Bench

REPEATS_AT = [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]


def test_100_leaves_at_once_before_anything_else(bench: Bench) -> None:
    bench.hold_flows = True
    bench.invite()
    assert bench.caller_saw == ["100 INVITE"]
    assert bench.last_response.to.tag is None
    assert bench.target_saw == []
    bench.release()
    assert bench.target_saw == ["INVITE"]


def test_repeated_invite_gets_the_last_response_again_and_makes_no_second_call(bench: Bench) -> None:
    branch = bench.invite()
    bench.invite(branch=branch)
    assert bench.caller_saw == ["100 INVITE", "100 INVITE"]
    bench.respond(180)
    bench.invite(branch=branch)
    assert bench.caller_saw[2:] == ["180 INVITE", "180 INVITE"]
    assert bench.target_saw == ["INVITE"]
    assert bench.stack.calls_in_progress == 1


def test_180_and_183_with_sdp_are_relayed_with_one_tag_and_our_contact(bench: Bench) -> None:
    bench.invite()
    bench.respond(180, "Ringing")
    bench.respond(183, "Session Progress", body=ANSWER)
    ringing, progress = bench.to_caller[1:]
    assert isinstance(ringing, Response)
    assert isinstance(progress, Response)
    assert (ringing.status, ringing.reason) == (180, "Ringing")
    assert (progress.status, progress.reason) == (183, "Session Progress")
    assert progress.body == ANSWER.encode()
    assert ringing.to.tag == progress.to.tag != "target"
    assert ringing.contact is not None
    assert ringing.contact.uri_text == "sip:trunkline@198.51.100.1:5060"


def test_100_of_the_target_is_not_relayed(bench: Bench) -> None:
    bench.invite()
    bench.respond(100)
    assert bench.caller_saw == ["100 INVITE"]


def test_early_media_can_be_withheld(make_bench: BenchMaker) -> None:
    bench = make_bench(relay_early_media=False)
    bench.invite()
    bench.respond(183, "Session Progress", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "180 INVITE"]
    assert bench.last_response.body == b""


def test_200_brings_the_answer_and_the_target_gets_its_ack_at_once(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]
    assert bench.last_response.body == ANSWER.encode()
    assert bench.target_saw == ["INVITE", "ACK"]
    invite, ack = bench.to_target
    assert isinstance(ack, Request)
    assert ack.uri == "sip:agent@203.0.113.5:5060"
    assert ack.cseq.number == invite.cseq.number
    assert ack.to.tag == "target"
    assert ack.via.branch != invite.via.branch
    assert ack.get("max-forwards") == "70"


def test_ack_for_the_target_leaves_before_the_200_for_the_caller(bench: Bench) -> None:
    bench.invite()
    before = len(bench.wire)
    bench.respond(200, "OK", body=ANSWER)
    assert bench.sent(message for _, _, message in bench.wire[before:]) == ["ACK", "200 INVITE"]


def test_200_is_repeated_at_exact_times_until_the_ack(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER)
    answered = bench.now
    bench.advance(9)
    bench.caller_request("ACK")
    bench.advance(100)
    times = [
        when - answered for when, _, message in bench.wire if isinstance(message, Response) if message.status == 200
    ]
    assert times == [0.0, *REPEATS_AT[:4]]
    copies = {
        message.serialize() for message in bench.to_caller if isinstance(message, Response) if message.status == 200
    }
    assert len(copies) == 1
    assert bench.stack.calls_in_progress == 1


def test_200_is_repeated_over_tcp_too(make_bench: BenchMaker) -> None:
    bench = make_bench(caller_transport="tcp")
    bench.invite()
    bench.respond(200, "OK", body=ANSWER)
    bench.advance(4)
    assert bench.caller_saw.count("200 INVITE") == 4


def test_both_legs_get_bye_when_the_ack_never_comes(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER)
    answered = bench.now
    bench.advance(32.1)
    times = [
        when - answered for when, _, message in bench.wire if isinstance(message, Response) if message.status == 200
    ]
    assert times == [0.0, *REPEATS_AT]
    byes = [(when - answered, message) for when, _, message in bench.wire if isinstance(message, Request)]
    byes = [(when, message) for when, message in byes if message.method == "BYE"]
    assert [when for when, _ in byes] == [32.0, 32.0]
    assert {message.get("reason") for _, message in byes} == {'SIP;cause=408;text="ACK not received"'}
    assert bench.caller_requests("BYE")
    assert bench.requests("BYE")
    assert bench.ends()[0]["ended_by"] == "trunkline"


def test_late_copy_of_the_ack_does_no_harm(bench: Bench) -> None:
    bench.answered_call()
    bench.forget()
    bench.caller_request("ACK")
    bench.advance(60)
    assert bench.caller_saw == bench.target_saw == []
    assert bench.stack.calls_in_progress == 1


def test_repeated_200_of_the_target_gets_the_same_ack_again(bench: Bench) -> None:
    bench.answered_call()
    bench.respond(200, "OK", body=ANSWER)
    acks = bench.requests("ACK")
    assert len(acks) == 2
    assert acks[0].serialize() == acks[1].serialize()
    assert bench.caller_saw.count("200 INVITE") == 1


def test_repeated_200_is_acknowledged_even_when_the_call_is_over(bench: Bench) -> None:
    bench.answered_call()
    invite = bench.invites[0]
    bench.caller_request("BYE")
    bench.forget()
    bench.respond(200, "OK", body=ANSWER, request=invite)
    assert bench.target_saw == ["ACK"]


def test_forked_200_gets_ack_and_bye_in_its_own_dialog_and_repeated_an_ack_only(bench: Bench) -> None:
    bench.answered_call()
    invite = bench.invites[-1]
    bench.forget()
    fork = "<sip:other@203.0.113.5:5060>"
    bench.respond(200, "OK", request=invite, tag="fork", body=ANSWER, contact=fork)
    assert bench.target_saw == ["ACK", "BYE"]
    ack, bye = bench.to_target
    assert isinstance(ack, Request)
    assert isinstance(bye, Request)
    assert ack.uri == bye.uri == "sip:other@203.0.113.5:5060"
    assert ack.to.tag == bye.to.tag == "fork"
    assert bye.cseq.number == ack.cseq.number + 1
    bench.respond(200, request=bye)
    bench.forget()
    bench.respond(200, "OK", request=invite, tag="fork", body=ANSWER, contact=fork)
    assert bench.target_saw == ["ACK"]
    assert bench.to_target[0].serialize() == ack.serialize()
    assert bench.caller_saw == []
    assert bench.stack.calls_in_progress == 1


def test_provisionals_of_several_forks_are_one_dialog_for_the_caller(bench: Bench) -> None:
    bench.invite()
    for tag in ("fork1", "fork2", "fork1"):
        bench.respond(180, tag=tag)
    bench.respond(200, "OK", tag="fork2", body=ANSWER)
    tags = {message.to.tag for message in bench.to_caller[1:]}
    assert len(tags) == 1
    assert bench.to_target[-1].to.tag == "fork2"


def test_late_offer_crosses_in_the_200_and_its_answer_in_the_ack(bench: Bench) -> None:
    bench.invite(body="")
    assert bench.invites[0].body == b""
    offer, answer = ANSWER, OFFER
    bench.respond(200, "OK", body=offer)
    assert bench.last_response.body == offer.encode()
    assert bench.target_saw == ["INVITE"]
    bench.advance(3)
    bench.respond(200, "OK", body=offer)
    assert bench.target_saw == ["INVITE"]
    bench.caller_request("ACK", body=answer, extra="X-Note: from the caller")
    assert bench.target_saw == ["INVITE", "ACK"]
    ack = bench.to_target[-1]
    assert ack.body == answer.encode()
    assert ack.content_type == "application/sdp"
    assert ack.get("x-note") == "from the caller"
    bench.respond(200, "OK", body=offer)
    assert bench.to_target[-1].serialize() == ack.serialize()
    bench.advance(60)
    assert bench.stack.calls_in_progress == 1


def test_late_offer_that_is_never_answered_is_acknowledged_before_the_bye(bench: Bench) -> None:
    bench.invite(body="")
    bench.respond(200, "OK", body=ANSWER)
    bench.advance(32.1)
    assert bench.target_saw == ["INVITE", "ACK", "BYE"]


def test_late_offer_whose_caller_hangs_up_without_an_ack_is_acknowledged_before_the_bye(bench: Bench) -> None:
    bench.invite(body="")
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("BYE")
    assert bench.target_saw == ["INVITE", "ACK", "BYE"]


def test_late_offer_with_an_unusable_answer_ends_the_call(bench: Bench) -> None:
    bench.invite(body="")
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("ACK", body=OFFER.replace("RTP/AVP 0 101", "RTP/AVP 18").replace("a=", "x="))
    assert bench.target_saw == ["INVITE", "ACK", "BYE"]
    assert "BYE" in bench.caller_saw


def test_200_without_sdp_for_an_invite_without_sdp_is_acknowledged_at_once(bench: Bench) -> None:
    bench.invite(body="")
    bench.respond(200, "OK")
    assert bench.target_saw == ["INVITE", "ACK"]


def test_200_without_the_answer_that_it_owes_is_acknowledged_at_once(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK")
    assert bench.target_saw == ["INVITE", "ACK"]
    assert bench.last_response.body == b""


def test_answer_that_fits_no_offer_is_ended_and_the_caller_gets_502(bench: Bench) -> None:
    bench.invite()
    bench.respond(200, "OK", body=ANSWER.replace("RTP/AVP 0 101", "RTP/AVP 18").replace("a=rtpmap:0 PCMU/8000\r\n", ""))
    assert bench.target_saw == ["INVITE", "ACK", "BYE"]
    assert bench.last_response.status == 502
    bench.respond(200, "OK", body="v=0\r\nbroken")
    assert bench.target_saw == ["INVITE", "ACK", "BYE", "ACK"]


def test_200_with_broken_contact_or_record_route_is_ended_at_the_request_uri(make_bench: BenchMaker) -> None:
    for extra, contact in (("", "<sip:broken"), ('Record-Route: <sip:p;lr>, "', ""), ("Record-Route: <>", "<sip:a@b>")):
        bench = make_bench()
        bench.invite()
        bench.respond(200, "OK", body=ANSWER, contact=contact, extra=extra)
        assert bench.target_saw == ["INVITE", "ACK", "BYE"], extra
        ack = bench.to_target[1]
        assert isinstance(ack, Request)
        assert ack.uri == bench.invites[0].uri
        assert bench.last_response.status == 502


def test_caller_without_contact_is_reached_at_its_from_uri(bench: Bench) -> None:
    bench.invite(contact="")
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("ACK")
    bench.target_request("BYE")
    assert bench.caller_requests("BYE")[0].uri == "sip:+15550100002@192.0.2.10"


def test_ring_timeout_ends_a_call_that_only_rings(make_bench: BenchMaker) -> None:
    bench = make_bench(ring_timeout_s=60.0)
    bench.invite()
    bench.respond(180)
    bench.advance(59.9)
    assert bench.caller_saw == ["100 INVITE", "180 INVITE"]
    bench.advance(0.2)
    assert bench.caller_saw[-1] == "408 INVITE"
    assert bench.target_saw == ["INVITE", "CANCEL"]
    bench.respond(200, request=bench.requests("CANCEL")[0])
    bench.respond(487)
    assert bench.target_saw[-1] == "ACK"


def test_hang_up_all_ends_ringing_and_answered_calls(make_bench: BenchMaker) -> None:
    bench = make_bench()
    bench.answered_call()
    bench.invite(call_id="call-2")
    bench.respond(180)
    bench.stack.hang_up_all("Shutdown", bench.now)
    bench.perform()
    assert bench.caller_saw[-2:] == ["BYE", "503 INVITE"]
    assert bench.target_saw[-2:] == ["BYE", "CANCEL"]
    assert bench.requests("BYE")[0].get("reason") == 'SIP;cause=503;text="Shutdown"'
    assert bench.stack.calls_in_progress == 0


def test_max_call_duration_ends_both_legs(make_bench: BenchMaker) -> None:
    bench = make_bench(max_call_s=3600.0)
    bench.answered_call()
    bench.advance(3599)
    assert bench.stack.calls_in_progress == 1
    bench.advance(1.1)
    assert bench.caller_requests("BYE")
    assert bench.requests("BYE")
