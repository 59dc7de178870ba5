"""Calls whose peer is gone, found by OPTIONS in the dialog (`calls.probe_s`)."""

import pytest

from proxy.b2bua.config import Target
from proxy.sip.message import Request
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.b2bua.transferring import CALLER_ANSWER, REFER_TO, THIRD_ANSWER, Third
from tests.support.bench import Bench


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    """A call that is up, over TCP, asked about every 60 s."""
    bench = make_bench(transport="tcp", caller_transport="tcp", probe_s=60)
    bench.answered_call()
    return bench


def to_caller(bench: Bench) -> Request:
    return bench.caller_requests("OPTIONS")[-1]


def to_target(bench: Bench) -> Request:
    return bench.requests("OPTIONS")[-1]


def both_answer(bench: Bench) -> None:
    bench.caller_answers(to_caller(bench), 200)
    bench.respond(200, request=to_target(bench))


def counts(bench: Bench) -> tuple[int, int]:
    return len(bench.caller_requests("OPTIONS")), len(bench.requests("OPTIONS"))


def test_no_probe_unless_it_is_set(make_bench: BenchMaker) -> None:
    bench = make_bench()
    bench.answered_call()
    bench.advance(10_000)
    assert counts(bench) == (0, 0)
    assert bench.stack.calls_in_progress == 1


def test_both_peers_are_asked_in_their_dialogs_at_every_turn(bench: Bench) -> None:
    bench.advance(59.9)
    assert counts(bench) == (0, 0)
    bench.advance(0.2)
    assert counts(bench) == (1, 1)
    first, invite = to_target(bench), bench.invites[0]
    assert (first.uri, first.call_id, first.to.tag) == ("sip:agent@203.0.113.5:5060", invite.call_id, "target")
    assert (first.from_.tag, first.cseq.number, first.get("accept")) == (invite.from_.tag, 2, "application/sdp")
    assert (to_caller(bench).call_id, to_caller(bench).to.tag) == ("call-1", "caller")
    both_answer(bench)
    assert "200 OPTIONS" not in [*bench.caller_saw, *bench.target_saw]
    bench.advance(60)
    assert counts(bench) == (2, 2)
    assert to_target(bench).cseq.number == 3
    both_answer(bench)
    assert bench.stack.calls_in_progress == 1


@pytest.mark.parametrize("status", [200, 403, 405, 415, 420, 488, 500, 501, 503, 603])
def test_any_other_answer_comes_from_somebody_who_is_there(bench: Bench, status: int) -> None:
    for _ in range(2):
        bench.advance(60)
        bench.caller_answers(to_caller(bench), status)
        bench.respond(status, request=to_target(bench))
    assert counts(bench) == (2, 2)
    assert bench.stack.calls_in_progress == 1


@pytest.mark.parametrize("status", [408, 481])
@pytest.mark.parametrize("by", ["caller", "target"])
def test_peer_that_has_lost_the_call_ends_it_on_both_legs(bench: Bench, status: int, by: str) -> None:
    bench.advance(60)
    if by == "caller":
        bench.caller_answers(to_caller(bench), status)
    else:
        bench.respond(status, request=to_target(bench))
    reason = f'SIP;cause={status};text="The other side has lost the call"'
    for bye in (*bench.caller_requests("BYE"), *bench.requests("BYE")):
        assert bye.get("reason") == reason
    assert (len(bench.caller_requests("BYE")), len(bench.requests("BYE"))) == (1, 1)
    (end,) = bench.ends()
    assert (end["outcome"], end["ended_by"], end["detail"]) == (
        "answered",
        "trunkline",
        "The other side has lost the call",
    )
    bench.advance(600)
    assert counts(bench) == (1, 1)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_peer_that_does_not_answer_ends_the_call_on_both_legs(make_bench: BenchMaker, transport: str) -> None:
    bench = make_bench(transport=transport, caller_transport=transport, probe_s=60)
    bench.answered_call()
    bench.advance(60)
    bench.caller_answers(to_caller(bench), 200)
    bench.advance(31.9)
    assert bench.stack.calls_in_progress == 1
    bench.advance(0.2)
    for byes in (bench.caller_requests("BYE"), bench.requests("BYE")):
        assert byes[0].get("reason") == 'SIP;cause=408;text="The other side does not answer"'


def test_peer_is_not_asked_again_while_it_has_not_answered(make_bench: BenchMaker) -> None:
    bench = make_bench(transport="tcp", caller_transport="tcp", probe_s=10)
    bench.answered_call()
    bench.advance(30.1)
    assert counts(bench) == (1, 1)
    both_answer(bench)
    bench.advance(10)
    assert counts(bench) == (2, 2)


def test_challenged_probe_goes_out_again_with_credentials(make_bench: BenchMaker) -> None:
    target = Target("main", parse_uri("sip:agent@203.0.113.5"), username="u", password="p")
    bench = make_bench(transport="tcp", caller_transport="tcp", targets=[target], probe_s=60)
    bench.answered_call()
    bench.advance(60)
    bench.respond(401, request=to_target(bench), extra='WWW-Authenticate: Digest realm="r", nonce="n"')
    assert to_target(bench).get("authorization") is not None
    bench.respond(481, request=to_target(bench))
    assert bench.stack.calls_in_progress == 0


def test_connection_that_broke_is_opened_anew_for_the_next_probe(bench: Bench) -> None:
    bench.advance(60)
    bench.caller_answers(to_caller(bench), 200)
    bench.close(bench.target_flow)
    assert bench.stack.calls_in_progress == 1
    bench.advance(60)
    assert counts(bench) == (2, 2)
    both_answer(bench)
    bench.close(bench.target_flow)
    bench.advance(60)
    both_answer(bench)
    assert counts(bench) == (3, 3)
    assert bench.stack.calls_in_progress == 1


def test_peer_that_can_not_be_reached_twice_ends_the_call(bench: Bench) -> None:
    bench.close(bench.target_flow)
    bench.refusing.add("203.0.113.5")
    for _ in range(2):
        assert bench.stack.calls_in_progress == 1
        bench.advance(60)
        if bench.stack.calls_in_progress:
            bench.caller_answers(to_caller(bench), 200)
    (bye,) = bench.caller_requests("BYE")
    assert bye.get("reason") == 'SIP;cause=408;text="The other side can\'t be reached"'


def test_answer_after_the_call_means_nothing(bench: Bench) -> None:
    bench.advance(60)
    probe = to_target(bench)
    bench.caller_request("BYE")
    bench.respond(481, request=probe)
    assert len(bench.ends()) == 1
    assert bench.ends()[0]["ended_by"] == "caller"


def test_hung_up_while_the_connection_is_opened_sends_no_probe(bench: Bench) -> None:
    bench.close(bench.target_flow)
    bench.hold_flows = True
    bench.advance(60)
    bench.caller_request("BYE")
    bench.hold_flows = False
    bench.release()
    assert counts(bench) == (1, 0)
    assert bench.target_saw[-1] == "BYE"


def test_new_leg_of_a_transfer_is_asked_in_the_place_of_the_old_one(make_bench: BenchMaker) -> None:
    bench = make_bench(refer="execute", transport="tcp", caller_transport="tcp", probe_s=60)
    third = Third(bench)
    bench.answered_call()
    bench.target_request("REFER", extra=f"{REFER_TO}\nContact: <sip:agent@203.0.113.5:5060>")
    third.answers(200, body=THIRD_ANSWER)
    bench.caller_answers(bench.caller_requests("INVITE")[-1], 200, body=CALLER_ANSWER)
    bench.respond(200, request=bench.requests("NOTIFY")[-1])
    bench.respond(200, request=bench.requests("NOTIFY")[-1])
    bench.advance(60)
    assert counts(bench) == (1, 0)
    (probe,) = third.requests("OPTIONS")
    third.answers(481, request=probe)
    assert bench.caller_saw[-1] == "BYE"
    assert third.saw[-1] == "BYE"
