"""Reliable provisional responses (RFC 3262): end to end where both want them, else Trunkline is the end."""

import pytest

from proxy.b2bua.config import RetryPolicy
from proxy.sip.message import Request, Response
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OFFER, Bench

WANTS = "Supported: 100rel"
NEEDS = "Require: 100rel"
OTHER_ANSWER = ANSWER.replace("m=audio 5000", "m=audio 5002").replace("o=- 2 2", "o=- 3 3")


def reliable(bench: Bench, rseq: int, status: int = 183, body: str = "", tag: str = "target") -> None:
    """A reliable provisional response of the target."""
    bench.respond(status, body=body, tag=tag, extra=f"Require: 100rel\nRSeq: {rseq}")


def heard(bench: Bench) -> list[Response]:
    """The reliable provisional responses that the caller got, repetitions left out."""
    found: list[Response] = []
    for message in bench.to_caller:
        if (
            isinstance(message, Response)
            and message.get("rseq")
            and message.get("rseq") not in {other.get("rseq") for other in found}
        ):
            found.append(message)
    return found


def prack(bench: Bench, response: Response, cseq: int = 2, extra: str = "", body: str = "") -> None:
    """The caller's PRACK for a response."""
    rack = f"RAck: {response.get('rseq')} {response.cseq.number} INVITE"
    bench.caller_request("PRACK", cseq=cseq, extra=f"{rack}\n{extra}" if extra else rack, body=body)


# What is offered to the target


@pytest.mark.parametrize(
    ("setting", "caller", "body", "offered"),
    [
        ("auto", "", OFFER, False),
        ("auto", WANTS, OFFER, True),
        ("auto", NEEDS, OFFER, True),
        ("auto", "k: timer,100rel", OFFER, True),
        ("always", "", OFFER, True),
        ("never", WANTS, OFFER, False),
        # Nobody could answer an offer that came in a reliable provisional response.
        ("always", "", "", False),
        ("always", WANTS, "", True),
    ],
)
def test_the_target_is_offered_reliability_where_somebody_can_keep_it(
    make_bench: BenchMaker, setting: str, caller: str, body: str, offered: bool
) -> None:
    bench = make_bench(reliable=setting)
    bench.invite(body=body, extra=caller)
    supported = [tag.strip() for tag in (bench.invites[0].get("supported") or "").split(",")]
    assert ("100rel" in supported) is offered
    assert bench.invites[0].get("require") is None


def test_target_that_insists_gets_it_though_the_caller_has_it_not(bench: Bench) -> None:
    bench.invite()
    bench.respond(421, extra=NEEDS)
    assert len(bench.invites) == 2
    assert "100rel" in (bench.invites[-1].get("supported") or "")
    bench.respond(421, extra=NEEDS)
    assert len(bench.invites) == 2
    assert bench.last_response.status == 500
    assert (bench.last_response.get("reason") or "").startswith("SIP;cause=421")


# End to end


def test_prack_goes_end_to_end_where_both_want_it(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 700, 183, ANSWER)
    (progress,) = heard(bench)
    assert (progress.status, progress.get("require"), progress.body) == (183, "100rel", ANSWER.encode())
    assert progress.get("rseq") != "700"
    assert progress.get("contact") == "<sip:trunkline@198.51.100.1:5060>"
    assert bench.requests("PRACK") == []
    prack(bench, progress)
    (sent,) = bench.requests("PRACK")
    assert sent.get("rack") == "700 1 INVITE"
    assert (sent.to.tag, sent.uri, sent.cseq.number) == ("target", "sip:agent@203.0.113.5:5060", 2)
    bench.respond(200, request=sent)
    assert bench.caller_saw == ["100 INVITE", "183 INVITE", "200 PRACK"]
    bench.respond(200, body=ANSWER)
    assert bench.caller_saw[-1] == "200 INVITE"
    ack = bench.requests("ACK")[-1]
    assert ack.cseq.number == 1
    bench.caller_request("ACK")
    bench.caller_request("BYE", cseq=3)
    assert bench.requests("BYE")[-1].cseq.number == 3


def test_refused_prack_comes_back_refused(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1)
    prack(bench, heard(bench)[0])
    bench.respond(400, request=bench.requests("PRACK")[-1])
    assert bench.last_response.status == 400


def test_second_offer_in_a_prack_crosses_with_its_answer(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1, body=ANSWER)
    offer = OFFER.replace("m=audio 4000", "m=audio 4004")
    prack(bench, heard(bench)[0], body=offer)
    (sent,) = bench.requests("PRACK")
    assert sent.body == offer.encode()
    bench.respond(200, request=sent, body=OTHER_ANSWER)
    assert bench.last_response.body == OTHER_ANSWER.encode()


def test_late_offer_in_a_reliable_183_is_answered_in_the_prack(bench: Bench) -> None:
    bench.invite(body="", extra=WANTS)
    reliable(bench, 1, body=OFFER)
    assert heard(bench)[0].body == OFFER.encode()
    prack(bench, heard(bench)[0], body=ANSWER)
    (sent,) = bench.requests("PRACK")
    assert sent.body == ANSWER.encode()
    bench.respond(200, request=sent)
    bench.respond(200)
    assert bench.target_saw[-1] == "ACK"
    assert bench.requests("ACK")[-1].body == b""
    bench.caller_request("ACK")


def test_update_in_the_early_dialog_crosses_both_ways(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1, body=ANSWER)
    prack(bench, heard(bench)[0])
    bench.respond(200, request=bench.requests("PRACK")[-1])
    bench.caller_request("UPDATE", cseq=3, body=OFFER)
    bench.respond(200, request=bench.requests("UPDATE")[-1], body=ANSWER)
    assert bench.caller_saw[-1] == "200 UPDATE"
    bench.target_request("UPDATE", body=OFFER)
    update = bench.caller_requests("UPDATE")[-1]
    assert update.body == OFFER.encode()
    bench.caller_answers(update, 200, body=ANSWER)
    assert bench.last_to_target.cseq.method == "UPDATE"


# Order and repetition


def test_rseq_of_the_caller_goes_up_by_one_whatever_the_targets_do(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 10, 180)
    reliable(bench, 11, 183, ANSWER)
    assert [response.status for response in heard(bench)] == [180]
    prack(bench, heard(bench)[0])
    first, second = heard(bench)
    assert second.status == 183
    assert int(second.get("rseq") or 0) == int(first.get("rseq") or 0) + 1
    prack(bench, second, cseq=3)
    assert [sent.get("rack") for sent in bench.requests("PRACK")] == ["10 1 INVITE", "11 1 INVITE"]


def test_repeated_and_early_responses_of_the_target_are_dropped(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 10, 180)
    reliable(bench, 10, 180)
    reliable(bench, 12, 183)
    prack(bench, heard(bench)[0])
    assert len(heard(bench)) == 1
    reliable(bench, 11, 183)
    assert len(heard(bench)) == 2


def test_reliable_response_is_repeated_until_its_prack_comes(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    begun = bench.now
    reliable(bench, 1)
    bench.advance(4)
    assert [round(time - begun, 3) for time, _, m in bench.wire if isinstance(m, Response) and m.get("rseq")] == [
        0,
        0.5,
        1.5,
        3.5,
    ]
    prack(bench, heard(bench)[0])
    bench.advance(20)
    assert bench.caller_saw.count("183 INVITE") == 4


def test_repeated_prack_is_answered_as_the_first_and_crosses_once(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1)
    rack = f"RAck: {heard(bench)[0].get('rseq')} 1 INVITE"
    branch = bench.caller_request("PRACK", extra=rack)
    bench.respond(200, request=bench.requests("PRACK")[-1])
    bench.caller_request("PRACK", extra=rack, branch=branch)
    assert bench.caller_saw[-2:] == ["200 PRACK", "200 PRACK"]
    assert len(bench.requests("PRACK")) == 1


@pytest.mark.parametrize("rack", ["1 1 INVITE", "{rseq} 2 INVITE", "{rseq} 1 UPDATE", "{rseq} 1", "x", ""])
def test_prack_for_nothing_that_is_pending_gets_481(bench: Bench, rack: str) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1)
    line = rack.replace("{rseq}", heard(bench)[0].get("rseq") or "")
    bench.caller_request("PRACK", extra=f"RAck: {line}")
    assert bench.last_response.status == 481
    assert bench.requests("PRACK") == []
    prack(bench, heard(bench)[0], cseq=3)
    assert len(bench.requests("PRACK")) == 1


def test_prack_without_any_reliable_response_gets_481(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    bench.respond(180)
    bench.caller_request("PRACK", extra="RAck: 1 1 INVITE")
    assert bench.last_response.status == 481


def test_prack_that_never_comes_ends_the_call_with_504(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1)
    bench.advance(31.9)
    assert "504 INVITE" not in bench.caller_saw
    bench.advance(0.2)
    assert bench.caller_saw[-1] == "504 INVITE"
    cancel = bench.requests("CANCEL")[-1]
    assert 'text="PRACK not received"' in (cancel.get("reason") or "")
    bench.respond(487)
    (end,) = bench.ends()
    assert (end["outcome"], end["status"]) == ("failed", 504)


# The final response


def test_200_waits_for_the_prack_of_what_came_before(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1, body=ANSWER)
    bench.respond(200, body=ANSWER)
    assert bench.requests("ACK")[-1].cseq.number == 1
    assert "200 INVITE" not in bench.caller_saw
    prack(bench, heard(bench)[0])
    assert "200 INVITE" in bench.caller_saw
    bench.respond(200, request=bench.requests("PRACK")[-1])
    bench.caller_request("ACK")
    assert bench.stack.calls_in_progress == 1


def test_200_that_waits_in_vain_ends_the_session_of_the_target(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1, body=ANSWER)
    bench.respond(200, body=ANSWER)
    bench.advance(32.1)
    assert bench.caller_saw[-1] == "504 INVITE"
    assert 'text="PRACK not received"' in (bench.requests("BYE")[-1].get("reason") or "")
    assert "200 INVITE" not in bench.caller_saw


def test_cancel_while_the_200_waits_ends_the_session_of_the_target(bench: Bench) -> None:
    branch = bench.invite(extra=WANTS)
    reliable(bench, 1, body=ANSWER)
    bench.respond(200, body=ANSWER)
    bench.caller_request("CANCEL", branch=branch)
    assert bench.caller_saw[-2:] == ["200 CANCEL", "487 INVITE"]
    assert bench.target_saw[-1] == "BYE"


def test_bye_of_the_target_while_the_200_waits_refuses_the_caller(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1, body=ANSWER)
    bench.respond(200, body=ANSWER)
    bench.target_request("BYE", cseq=2)
    assert bench.caller_saw[-1] == "480 INVITE"
    assert bench.last_to_target.status == 200


def test_refusal_does_not_wait_for_a_prack(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1)
    bench.respond(486)
    assert bench.caller_saw[-1] == "486 INVITE"
    bench.advance(10)
    assert bench.caller_saw.count("183 INVITE") == 1


# Only one side wants it


def test_trunkline_acknowledges_the_target_itself_where_the_caller_can_not(make_bench: BenchMaker) -> None:
    bench = make_bench(reliable="always")
    bench.invite()
    reliable(bench, 7, body=ANSWER)
    (sent,) = bench.requests("PRACK")
    assert sent.get("rack") == "7 1 INVITE"
    assert bench.caller_saw == ["100 INVITE", "183 INVITE"]
    assert bench.last_response.get("rseq") is None
    assert bench.last_response.get("require") is None
    assert bench.last_response.body == ANSWER.encode()
    bench.respond(200, request=sent)
    reliable(bench, 7, body=ANSWER)
    assert len(bench.requests("PRACK")) == 1
    reliable(bench, 8, 180)
    assert [one.get("rack") for one in bench.requests("PRACK")] == ["7 1 INVITE", "8 1 INVITE"]
    bench.respond(200, body=ANSWER)
    bench.caller_request("ACK")
    bench.caller_request("BYE")
    assert bench.requests("BYE")[-1].cseq.number == 4


def test_trunkline_sends_reliably_itself_to_a_caller_that_insists(make_bench: BenchMaker) -> None:
    bench = make_bench(reliable="never")
    bench.invite(extra=NEEDS)
    assert "100rel" not in (bench.invites[0].get("supported") or "")
    bench.respond(180)
    (ringing,) = heard(bench)
    assert ringing.get("require") == "100rel"
    prack(bench, ringing)
    assert bench.caller_saw[-1] == "200 PRACK"
    assert bench.requests("PRACK") == []


def test_offer_in_a_prack_that_ends_here_is_refused(make_bench: BenchMaker) -> None:
    bench = make_bench(reliable="never")
    bench.invite(extra=NEEDS)
    bench.respond(180)
    prack(bench, heard(bench)[0], body=OFFER)
    assert bench.last_response.status == 488


def test_caller_that_only_supports_it_is_not_troubled_where_the_target_does_not_use_it(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    bench.respond(180)
    assert bench.last_response.get("rseq") is None


@pytest.mark.parametrize(
    "lines", ["RSeq: 1", "Require: 100rel", "Require: 100rel\nRSeq: x", "Require: 100rel\nRSeq: 12345678901"]
)
def test_malformed_reliable_response_counts_as_an_unreliable_one(bench: Bench, lines: str) -> None:
    bench.invite(extra=WANTS)
    bench.respond(180, extra=lines)
    assert bench.caller_saw == ["100 INVITE", "180 INVITE"]
    assert bench.last_response.get("rseq") is None
    assert bench.requests("PRACK") == []


# Early media


@pytest.mark.parametrize("relayed", [True, False])
def test_early_media_is_relayed_or_withheld_by_setting(make_bench: BenchMaker, relayed: bool) -> None:
    bench = make_bench(relay_early_media=relayed)
    bench.invite(extra=WANTS)
    reliable(bench, 1, body=ANSWER)
    if relayed:
        assert heard(bench)[0].body == ANSWER.encode()
        assert bench.requests("PRACK") == []
    else:
        assert (bench.last_response.status, bench.last_response.body) == (180, b"")
        assert bench.last_response.get("content-type") is None
        assert len(bench.requests("PRACK")) == 1
    bench.respond(180, body=ANSWER)
    if not relayed:
        assert bench.last_response.body == b""


def test_withheld_session_comes_with_the_200(make_bench: BenchMaker) -> None:
    bench = make_bench(relay_early_media=False)
    bench.invite(extra=WANTS)
    reliable(bench, 1, body=ANSWER)
    bench.respond(200, request=bench.requests("PRACK")[-1])
    bench.respond(200)
    assert bench.caller_saw[-1] == "200 INVITE"
    assert bench.last_response.body == ANSWER.encode()


# Forks


def test_forked_provisional_responses_are_acknowledged_each_in_its_own_dialog(make_bench: BenchMaker) -> None:
    bench = make_bench(reliable="always")
    bench.invite()
    reliable(bench, 5, 180, tag="one")
    reliable(bench, 90, 180, tag="two")
    reliable(bench, 6, 180, tag="one")
    assert [(sent.to.tag, sent.get("rack")) for sent in bench.requests("PRACK")] == [
        ("one", "5 1 INVITE"),
        ("two", "90 1 INVITE"),
        ("one", "6 1 INVITE"),
    ]
    tags = {message.to.tag for message in bench.to_caller if message.to.tag}
    assert len(tags) == 1
    bench.respond(200, body=ANSWER, tag="two")
    bench.caller_request("ACK")
    assert bench.requests("ACK")[-1].to.tag == "two"
    bench.caller_request("BYE")
    assert bench.requests("BYE")[-1].to.tag == "two"


def test_the_caller_hears_the_session_of_one_fork_only(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1, 183, ANSWER, tag="one")
    prack(bench, heard(bench)[0])
    bench.respond(200, request=bench.requests("PRACK")[-1])
    reliable(bench, 1, 183, OTHER_ANSWER, tag="two")
    assert bench.requests("PRACK")[-1].to.tag == "two"
    bench.respond(183, body=OTHER_ANSWER, tag="three")
    for message in bench.to_caller:
        assert message.body in (b"", ANSWER.encode())


def test_200_of_another_fork_is_another_dialog_for_the_caller(bench: Bench) -> None:
    """It has an answer in the first one already, and one dialog has one answer (RFC 3261 section 13.2.1)."""
    bench.invite(extra=WANTS)
    reliable(bench, 1, 183, ANSWER, tag="one")
    progress = heard(bench)[0]
    prack(bench, progress)
    bench.respond(200, request=bench.requests("PRACK")[-1])
    bench.respond(200, body=OTHER_ANSWER, tag="two")
    answer = bench.last_response
    assert answer.status == 200
    assert answer.to.tag != progress.to.tag
    assert answer.body == OTHER_ANSWER.encode()
    bench.caller_request("ACK")
    bench.advance(5)
    assert bench.caller_saw.count("200 INVITE") == 1
    bench.caller_request("BYE", cseq=3)
    assert bench.requests("BYE")[-1].to.tag == "two"
    assert bench.caller_saw[-1] == "200 BYE"


def test_200_of_another_fork_waits_for_the_prack_of_the_first(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1, 183, ANSWER, tag="one")
    bench.respond(200, body=OTHER_ANSWER, tag="two")
    assert "200 INVITE" not in bench.caller_saw
    prack(bench, heard(bench)[0])
    assert "200 INVITE" in bench.caller_saw


def test_200_of_the_fork_that_was_heard_stays_in_its_dialog(bench: Bench) -> None:
    bench.invite(extra=WANTS)
    reliable(bench, 1, 183, ANSWER, tag="one")
    prack(bench, heard(bench)[0])
    bench.respond(200, request=bench.requests("PRACK")[-1])
    bench.respond(200, body=ANSWER, tag="one")
    assert bench.last_response.to.tag == heard(bench)[0].to.tag


def test_answer_of_the_next_attempt_is_another_dialog_too(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", retry=RetryPolicy(jitter=0.0))
    bench.invite(extra=WANTS)
    reliable(bench, 1, 183, ANSWER)
    prack(bench, heard(bench)[0])
    bench.respond(200, request=bench.requests("PRACK")[-1])
    bench.respond(503, request=bench.invites[0])
    bench.advance(1)
    assert len(bench.invites) == 2
    bench.respond(200, body=OTHER_ANSWER)
    assert bench.last_response.status == 200
    assert bench.last_response.to.tag != heard(bench)[0].to.tag


def test_early_dialogs_of_other_forks_end_with_the_answer(make_bench: BenchMaker) -> None:
    bench = make_bench(reliable="always")
    bench.invite()
    reliable(bench, 5, 180, tag="one")
    reliable(bench, 6, 180, tag="two")
    bench.respond(200, body=ANSWER, tag="one")
    bench.caller_request("ACK")
    assert bench.stack.tables()["legs"] == 2
    bench.target_request("INFO", tag="two", cseq=1)
    assert bench.last_to_target.status == 481
    bench.target_request("INFO", tag="one", cseq=1)
    assert [one.method for one in bench.to_caller if isinstance(one, Request)] == ["INFO"]


def test_caller_that_hangs_up_in_the_early_dialog_ends_every_fork_by_one_cancel(make_bench: BenchMaker) -> None:
    bench = make_bench(reliable="always")
    branch = bench.invite()
    reliable(bench, 5, 180, tag="one")
    reliable(bench, 6, 180, tag="two")
    bench.caller_request("CANCEL", branch=branch)
    assert len(bench.requests("CANCEL")) == 1
    bench.respond(200, body=ANSWER, tag="two")
    ack, bye = bench.to_target[-2:]
    assert bench.target_saw[-2:] == ["ACK", "BYE"]
    assert ack.to.tag == bye.to.tag == "two"
    assert bye.cseq.number > bench.requests("PRACK")[-1].cseq.number
