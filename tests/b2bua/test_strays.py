"""A 2xx that comes when nothing knows of its INVITE any more: no session stays alive for it."""

import pytest

from proxy.b2bua.config import RetryPolicy
from proxy.sip.flow import Flow
from proxy.sip.message import Request, read_header
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OURS, Bench

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    return make_bench(retry=ONCE)


def read_request(lines: list[str]) -> Request:
    """A request with these header lines."""
    return Request("INVITE", "sip:x", [read_header(line) for line in lines])


def forgotten(bench: Bench, **options: str) -> Request:
    """An INVITE that failed so long ago that its transaction is gone."""
    bench.invite(**options)  # type: ignore[arg-type]
    bench.respond(486)
    bench.advance(40)
    invite = bench.invites[0]
    assert bench.stack.tables()["client_transactions"] == 0
    bench.forget()
    return invite


def test_late_answer_gets_ack_and_bye_from_what_it_says_itself(bench: Bench) -> None:
    invite = forgotten(bench)
    routes = "Record-Route: <sip:p1.example;lr>\nRecord-Route: <sip:p2.example;lr>"
    bench.respond(200, request=invite, body=ANSWER, extra=routes, contact="<sip:agent@203.0.113.5:5070>")
    assert bench.target_saw == ["ACK", "BYE"]
    ack, bye = bench.to_target
    for message in (ack, bye):
        assert isinstance(message, Request)
        assert message.uri == "sip:agent@203.0.113.5:5070"
        assert message.get_all("route") == ["<sip:p2.example;lr>", "<sip:p1.example;lr>"]
        assert (message.call_id, message.from_.tag, message.to.tag) == (invite.call_id, invite.from_.tag, "target")
        assert message.get("max-forwards") == "70"
    assert ack.cseq.number == invite.cseq.number
    assert bye.cseq.number > invite.cseq.number
    assert bye.get("reason") == 'SIP;cause=487;text="Answered too late"'
    assert ack.via.branch != bye.via.branch
    bench.respond(200, request=bench.requests("BYE")[0])


def test_each_copy_of_it_is_ended_once(bench: Bench) -> None:
    invite = forgotten(bench)
    for number in range(1, 4):
        bench.respond(200, request=invite, body=ANSWER)
        assert bench.target_saw == ["ACK", "BYE"] * number


def test_late_answer_to_a_cancelled_call_is_ended(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch)
    bench.advance(70)
    assert bench.stack.tables()["client_transactions"] == 0
    invite = bench.invites[0]
    bench.forget()
    bench.respond(200, request=invite, body=ANSWER)
    assert bench.target_saw == ["ACK", "BYE"]


def test_late_fork_is_ended_and_the_call_goes_on(bench: Bench) -> None:
    bench.answered_call()
    bench.advance(40)
    invite = bench.invites[0]
    bench.forget()
    bench.respond(200, request=invite, body=ANSWER, tag="fork")
    assert bench.target_saw == ["ACK", "BYE"]
    assert {message.to.tag for message in bench.to_target} == {"fork"}
    assert bench.caller_saw == []
    assert bench.stack.calls_in_progress == 1


def test_answer_of_the_call_that_is_up_gets_its_ack_again_and_no_bye(bench: Bench) -> None:
    bench.answered_call()
    first = bench.requests("ACK")[0]
    bench.advance(40)
    invite = bench.invites[0]
    bench.forget()
    bench.respond(200, request=invite, body=ANSWER)
    assert [message.serialize() for message in bench.to_target] == [first.serialize()]
    assert bench.stack.calls_in_progress == 1


@pytest.mark.parametrize("contact", ["", "<sip:a b>", "nonsense", "<sip:>"])
def test_answer_without_a_contact_that_can_be_used_is_ended_where_it_was_sent_to(bench: Bench, contact: str) -> None:
    invite = forgotten(bench)
    bench.respond(200, request=invite, body=ANSWER, contact=contact)
    assert bench.target_saw == ["ACK", "BYE"]
    assert {request.uri for request in bench.to_target if isinstance(request, Request)} == {invite.to.uri_text}


def test_the_highest_cseq_there_is_stays_one(bench: Bench) -> None:
    invite = forgotten(bench)
    lines = [item.line if item.key != "cseq" else f"CSeq: {2**31 - 1} INVITE" for item in invite.headers]
    bench.respond(200, request=read_request(lines), body=ANSWER)
    assert bench.requests("BYE")[0].cseq.number == 2**31 - 1


def test_over_a_connection_that_we_opened(make_bench: BenchMaker) -> None:
    bench = make_bench(retry=ONCE, transport="tls", target="sip:agent@203.0.113.5;transport=tls")
    invite = forgotten(bench)
    bench.respond(200, request=invite, body=ANSWER)
    assert bench.target_saw == ["ACK", "BYE"]


def test_bye_whose_connection_breaks_goes_by_a_new_one(make_bench: BenchMaker) -> None:
    bench = make_bench(retry=ONCE, transport="tcp", target="sip:agent@203.0.113.5;transport=tcp")
    invite = forgotten(bench)
    bench.respond(200, request=invite, body=ANSWER)
    for number in range(5):
        bench.close(bench.target_flow)
        assert bench.target_saw == ["ACK", "BYE"] * min(number + 2, 3)
    assert len({bye.cseq.number for bye in bench.requests("BYE")}) == 3


# What gets silence


def dropped(bench: Bench) -> bool:
    return bench.kinds()[-1] == "dropped" and bench.to_target == [] and bench.to_caller == []


def test_answer_from_where_we_sent_nothing_is_dropped(bench: Bench) -> None:
    invite = forgotten(bench)
    stranger = Flow("udp", OURS, ("192.0.2.66", 5060), f"{OURS[0]}:{OURS[1]}", listener="udp")
    before = len(bench.wire)
    bench.respond(200, request=invite, body=ANSWER, flow=stranger)
    assert len(bench.wire) == before
    assert dropped(bench)


@pytest.mark.parametrize(
    "via",
    [
        "SIP/2.0/UDP 198.51.100.2:5060;branch=z9hG4bKid9",
        "SIP/2.0/UDP 198.51.100.1:5061;branch=z9hG4bKid9",
        "SIP/2.0/UDP 198.51.100.1;branch=z9hG4bKid9",
        "SIP/2.0/UDP 198.51.100.1:5060;branch=other",
        "SIP/2.0/UDP 198.51.100.1:5060",
    ],
)
def test_answer_to_somebody_elses_invite_is_dropped(bench: Bench, via: str) -> None:
    invite = forgotten(bench)
    lines = [item.line if item.key != "via" else f"Via: {via}" for item in invite.headers]
    bench.respond(200, request=read_request(lines), body=ANSWER)
    assert dropped(bench)


@pytest.mark.parametrize("status", [100, 180, 404, 503, 603])
def test_other_late_responses_are_dropped(bench: Bench, status: int) -> None:
    invite = forgotten(bench)
    bench.respond(status, request=invite)
    assert dropped(bench)


def test_late_2xx_to_another_method_is_dropped(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    bye = bench.requests("BYE")[0]
    bench.respond(200, request=bye)
    bench.advance(40)
    bench.forget()
    bench.respond(200, request=bye)
    assert dropped(bench)
