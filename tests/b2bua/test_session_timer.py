"""Session timers (RFC 4028): each leg has its own, and the other leg never hears of it."""

import pytest

from proxy.b2bua.config import RetryPolicy, Target
from proxy.sip.message import Request
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OFFER, Bench

ASKS = "Supported: timer\nSession-Expires: 1800;refresher=uac"
WE_REFRESH = "Supported: timer\nSession-Expires: 1800;refresher=uas"
TAKES_UPDATE = "Allow: INVITE, ACK, BYE, UPDATE"
CONTACT = "Contact: <sip:+15550100002@192.0.2.10:5060>"


def call(bench: Bench, asks: str = "", answers: str = "") -> None:
    """A call that is up; `asks` stands in the caller's INVITE, `answers` in the target's 200."""
    bench.invite(extra=asks)
    bench.respond(200, "OK", body=ANSWER, extra=answers)
    bench.caller_request("ACK")
    bench.forget()


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    """Over TCP, so that no retransmissions stand between the refreshes."""
    return make_bench(transport="tcp", caller_transport="tcp")


def reasons(bench: Bench) -> list[str | None]:
    """The Reason of the BYEs to caller and target."""
    return [bench.caller_requests("BYE")[-1].get("reason"), bench.requests("BYE")[-1].get("reason")]


# The caller's leg, where we are the UAS


def test_no_timer_runs_unless_somebody_asks(bench: Bench) -> None:
    call(bench, "Supported: timer")
    bench.advance(100_000)
    assert bench.caller_saw == []
    assert bench.target_saw == []
    assert bench.stack.calls_in_progress == 1


def test_200_confirms_what_the_caller_asks_for_and_the_target_hears_nothing_of_it(bench: Bench) -> None:
    bench.invite(extra=ASKS)
    assert bench.invites[0].get("session-expires") is None
    bench.respond(200, body=ANSWER)
    assert bench.last_response.get("session-expires") == "1800;refresher=uac"
    assert bench.last_response.get("require") == "timer"


def test_caller_that_never_refreshes_is_taken_for_dead_and_both_legs_get_a_bye(bench: Bench) -> None:
    call(bench, ASKS)
    bench.advance(1767.9)
    assert bench.caller_saw == []
    bench.advance(0.2)
    assert bench.caller_saw == bench.target_saw == ["BYE"]
    assert reasons(bench) == ['SIP;cause=408;text="Session expired"'] * 2
    (end,) = bench.ends()
    assert (end["ended_by"], end["detail"]) == ("trunkline", "Session expired")


def test_update_refreshes_without_disturbing_the_target(bench: Bench) -> None:
    call(bench, ASKS)
    bench.advance(900)
    bench.caller_request("UPDATE", extra=f"{ASKS}\n{CONTACT}")
    response = bench.last_response
    assert (response.status, response.get("session-expires")) == (200, "1800;refresher=uac")
    assert response.get("contact") == "<sip:trunkline@198.51.100.1:5060;transport=tcp>"
    bench.advance(1700)
    assert bench.target_saw == []
    assert bench.stack.calls_in_progress == 1
    bench.advance(70)
    assert bench.stack.calls_in_progress == 0


def test_reinvite_with_the_same_session_refreshes_without_disturbing_the_target(bench: Bench) -> None:
    call(bench, ASKS)
    bench.advance(900)
    bench.caller_request("INVITE", cseq=2, body=OFFER, extra=f"{ASKS}\n{CONTACT}")
    response = bench.last_response
    assert (response.status, response.get("session-expires")) == (200, "1800;refresher=uac")
    assert response.body == ANSWER.encode()
    bench.advance(1)
    bench.caller_request("ACK", cseq=2)
    bench.advance(1700)
    assert bench.target_saw == []
    assert bench.stack.calls_in_progress == 1


def test_reinvite_that_changes_the_session_crosses_and_refreshes(bench: Bench) -> None:
    call(bench, ASKS)
    bench.advance(900)
    hold = OFFER.replace("sendrecv", "sendonly").replace("o=- 1 1", "o=- 1 2")
    bench.caller_request("INVITE", cseq=2, body=hold, extra=f"{ASKS}\n{CONTACT}")
    assert bench.invites[-1].body == hold.encode()
    assert bench.invites[-1].get("session-expires") is None
    bench.respond(200, body=ANSWER.replace("sendrecv", "recvonly"))
    assert bench.last_response.get("session-expires") == "1800;refresher=uac"
    bench.caller_request("ACK", cseq=2)
    bench.advance(1700)
    assert bench.stack.calls_in_progress == 1


def test_refused_change_of_the_session_is_no_session_to_refresh(bench: Bench) -> None:
    call(bench, ASKS)
    hold = OFFER.replace("sendrecv", "sendonly")
    bench.caller_request("INVITE", cseq=2, body=hold, extra=f"{ASKS}\n{CONTACT}")
    bench.respond(488)
    bench.caller_request("INVITE", cseq=3, body=hold, extra=f"{ASKS}\n{CONTACT}")
    assert len(bench.invites) == 2


def test_reinvite_without_the_timer_ends_it(bench: Bench) -> None:
    call(bench, ASKS)
    bench.caller_request("INVITE", cseq=2, body=OFFER, extra=f"Supported: timer\n{CONTACT}")
    bench.respond(200, body=ANSWER)
    assert bench.last_response.get("session-expires") is None
    bench.caller_request("ACK", cseq=2)
    bench.advance(10_000)
    assert bench.stack.calls_in_progress == 1


def test_interval_that_is_too_short_gets_422_with_min_se(make_bench: BenchMaker) -> None:
    bench = make_bench(min_se_s=300, transport="tcp")
    bench.invite(extra="Supported: timer\nSession-Expires: 299")
    assert (bench.last_response.status, bench.last_response.get("min-se")) == (422, "300")
    assert bench.target_saw == []
    bench.invite(extra="Supported: timer\nSession-Expires: 300\nMin-SE: 300", cseq=2)
    assert bench.target_saw == ["INVITE"]


def test_interval_that_is_too_short_gets_422_in_the_dialog_too(bench: Bench) -> None:
    call(bench, ASKS)
    bench.caller_request("UPDATE", extra=f"Supported: timer\nSession-Expires: 30\n{CONTACT}")
    assert (bench.last_response.status, bench.last_response.get("min-se")) == (422, "90")
    assert bench.stack.calls_in_progress == 1


def test_we_refresh_by_update_where_the_caller_takes_it(bench: Bench) -> None:
    call(bench, f"{WE_REFRESH}\n{TAKES_UPDATE}")
    bench.advance(899.9)
    assert bench.caller_saw == []
    bench.advance(0.2)
    (update,) = bench.caller_requests("UPDATE")
    assert update.body == b""
    assert update.get("session-expires") == "1800;refresher=uac"
    assert update.get("supported") == "timer"
    assert update.get("contact") == "<sip:trunkline@198.51.100.1:5060;transport=tcp>"
    bench.caller_answers(update, 200, extra="Session-Expires: 1800;refresher=uac")
    bench.advance(900)
    assert len({one.cseq.number for one in bench.caller_requests("UPDATE")}) == 2
    assert bench.target_saw == []


def test_we_refresh_by_reinvite_with_the_session_as_it_stands(bench: Bench) -> None:
    call(bench, WE_REFRESH)
    bench.advance(900.1)
    (invite,) = bench.caller_requests("INVITE")
    assert invite.body == ANSWER.encode()
    assert invite.get("content-type") == "application/sdp"
    assert invite.get("session-expires") == "1800;refresher=uac"
    bench.caller_answers(invite, 200, body=OFFER, extra="Session-Expires: 1800;refresher=uac")
    (ack,) = bench.caller_requests("ACK")
    assert ack.cseq.number == invite.cseq.number
    bench.caller_answers(invite, 200, body=OFFER, extra="Session-Expires: 1800;refresher=uac")
    assert len(bench.caller_requests("ACK")) == 2
    assert bench.target_saw == []
    bench.advance(900)
    assert len({one.cseq.number for one in bench.caller_requests("INVITE")}) == 2


def test_the_peer_may_take_the_refreshing_over(bench: Bench) -> None:
    call(bench, f"{WE_REFRESH}\n{TAKES_UPDATE}")
    bench.advance(900.1)
    bench.caller_answers(bench.caller_requests("UPDATE")[-1], 200, extra="Session-Expires: 600;refresher=uas")
    bench.forget()
    bench.advance(560)
    assert bench.caller_saw == []
    bench.advance(20)
    assert bench.caller_saw == ["BYE"]


# The target's leg, where we are the UAC


@pytest.fixture
def asking(make_bench: BenchMaker) -> Bench:
    """We want a timer of 600 s by ourselves."""
    policy = RetryPolicy(max_attempts=1)
    return make_bench(session_expires_s=600, retry=policy, transport="tcp", caller_transport="tcp")


def test_we_ask_the_target_and_the_caller_that_supports_it(asking: Bench) -> None:
    asking.invite(extra="Supported: timer")
    assert asking.invites[0].get("session-expires") == "600;refresher=uac"
    assert "timer" in (asking.invites[0].get("supported") or "")
    asking.respond(200, body=ANSWER)
    assert asking.last_response.get("session-expires") == "600;refresher=uas"
    assert asking.last_response.get("require") == "timer"


def test_caller_without_timers_is_not_asked(asking: Bench) -> None:
    asking.invite()
    asking.respond(200, body=ANSWER)
    assert asking.last_response.get("session-expires") is None


@pytest.mark.parametrize(
    ("answers", "refreshed_at"),
    [("Session-Expires: 600;refresher=uac", 300), ("", 300), ("Session-Expires: 200;refresher=uac", 100)],
)
def test_we_refresh_the_target_without_the_caller_hearing_of_it(
    asking: Bench, answers: str, refreshed_at: float
) -> None:
    call(asking, answers=f"{answers}\n{TAKES_UPDATE}")
    asking.advance(refreshed_at - 0.1)
    assert asking.target_saw == []
    asking.advance(0.2)
    assert asking.target_saw == ["UPDATE"]
    asking.respond(200, request=asking.requests("UPDATE")[-1])
    assert asking.caller_saw == []


def test_target_that_took_the_refreshing_and_falls_silent_ends_both_legs(asking: Bench) -> None:
    call(asking, answers="Session-Expires: 600;refresher=uas")
    asking.advance(500)
    asking.target_request("UPDATE", extra="Supported: timer\nSession-Expires: 600;refresher=uac")
    assert asking.last_to_target.get("session-expires") == "600;refresher=uac"
    asking.advance(567.9)
    assert asking.stack.calls_in_progress == 1
    asking.advance(0.2)
    assert reasons(asking) == ['SIP;cause=408;text="Session expired"'] * 2


def test_422_of_the_target_is_answered_with_a_longer_interval(asking: Bench) -> None:
    asking.invite()
    asking.respond(422, extra="Min-SE: 900")
    first, second = asking.invites
    assert (second.get("session-expires"), second.get("min-se")) == ("900;refresher=uac", "900")
    assert (second.call_id, second.cseq.number) == (first.call_id, 2)
    assert second.body == first.body
    asking.respond(200, body=ANSWER, extra=f"Session-Expires: 900;refresher=uac\n{TAKES_UPDATE}")
    asking.caller_request("ACK")
    asking.advance(450.1)
    update = asking.requests("UPDATE")[-1]
    assert (update.get("session-expires"), update.get("min-se")) == ("900;refresher=uac", "900")


@pytest.mark.parametrize("min_se", ["Min-SE: 600", "Min-SE: 90", "X: y"])
def test_422_that_asks_for_nothing_new_ends_the_attempt(asking: Bench, min_se: str) -> None:
    asking.invite()
    asking.respond(422, extra=min_se)
    assert len(asking.invites) == 1
    assert asking.last_response.status == 500
    assert (asking.last_response.get("reason") or "").startswith("SIP;cause=422")


def test_422_to_a_refresh_is_answered_with_a_longer_interval(asking: Bench) -> None:
    call(asking, answers=TAKES_UPDATE)
    asking.advance(300.1)
    asking.respond(422, request=asking.requests("UPDATE")[-1], extra="Min-SE: 1200")
    first, second = asking.requests("UPDATE")
    assert (second.get("session-expires"), second.get("min-se")) == ("1200;refresher=uac", "1200")
    assert second.cseq.number == first.cseq.number + 1
    asking.respond(422, request=second, extra="Min-SE: 1200")
    assert len(asking.requests("UPDATE")) == 2
    asking.respond(200, request=second)
    assert asking.stack.calls_in_progress == 1


def test_422_to_a_relayed_reinvite_is_answered_with_a_longer_interval(asking: Bench) -> None:
    call(asking)
    hold = OFFER.replace("sendrecv", "sendonly")
    asking.caller_request("INVITE", cseq=2, body=hold, extra=CONTACT)
    asking.respond(422, extra="Min-SE: 1200")
    assert asking.invites[-1].get("session-expires") == "1200;refresher=uac"
    assert asking.invites[-1].body == hold.encode()
    asking.respond(200, body=ANSWER.replace("sendrecv", "recvonly"))
    assert asking.caller_saw == ["100 INVITE", "200 INVITE"]
    asking.caller_request("ACK", cseq=2)


# Roles


@pytest.mark.parametrize("role", ["uac", "uas"])
def test_relayed_reinvite_keeps_the_roles_of_the_other_leg(asking: Bench, role: str) -> None:
    call(asking, answers=f"Session-Expires: 600;refresher={role}")
    asking.caller_request("INVITE", cseq=2, body=OFFER.replace("o=- 1 1", "o=- 1 2"), extra=CONTACT)
    sent = asking.invites[-1]
    assert sent.get("session-expires") == f"600;refresher={role}"
    assert sent.get("supported") == "timer"
    asking.respond(200, body=ANSWER, extra=f"Session-Expires: 600;refresher={role}")
    asking.caller_request("ACK", cseq=2)
    asking.forget()
    asking.advance(300.1)
    assert asking.target_saw == (["INVITE"] if role == "uac" else [])


def test_reinvite_of_the_peer_that_leaves_the_role_open_keeps_it(bench: Bench) -> None:
    call(bench, WE_REFRESH)
    bench.caller_request("INVITE", cseq=2, body=OFFER, extra=f"Supported: timer\nSession-Expires: 1800\n{CONTACT}")
    assert bench.last_response.get("session-expires") == "1800;refresher=uas"
    bench.caller_request("ACK", cseq=2)


# Trouble


def test_refresh_that_meets_the_peers_reinvite_waits_and_goes_out_again(asking: Bench) -> None:
    call(asking)
    asking.advance(300.1)
    asking.respond(491, request=asking.invites[-1])
    asking.forget()
    asking.advance(2.0)
    assert asking.target_saw == []
    asking.advance(2.1)
    assert asking.target_saw == ["INVITE"]
    asking.respond(200, body=ANSWER)
    assert asking.target_saw == ["INVITE", "ACK"]


def test_reinvite_of_the_peer_while_our_refresh_is_pending_gets_491(asking: Bench) -> None:
    call(asking)
    asking.advance(300.1)
    asking.target_request("INVITE", body=OFFER, extra="Contact: <sip:agent@203.0.113.5:5060>")
    assert asking.last_to_target.status == 491
    asking.caller_request("INVITE", cseq=2, body=OFFER.replace("o=- 1 1", "o=- 1 2"), extra=CONTACT)
    assert asking.last_response.status == 491
    asking.respond(200, body=ANSWER, request=asking.invites[0])
    asking.caller_request("INVITE", cseq=3, body=OFFER.replace("o=- 1 1", "o=- 1 2"), extra=CONTACT)
    assert asking.last_response.status == 100


def test_session_refresh_of_one_peer_does_not_wait_for_the_other(asking: Bench) -> None:
    call(asking, ASKS)
    asking.advance(300.1)
    assert asking.target_saw == ["INVITE"]
    asking.caller_request("INVITE", cseq=2, body=OFFER, extra=f"{ASKS}\n{CONTACT}")
    assert asking.last_response.status == 200
    asking.caller_request("ACK", cseq=2)


def test_refresh_waits_while_a_reinvite_is_pending(asking: Bench) -> None:
    call(asking)
    asking.advance(299)
    asking.caller_request("INVITE", cseq=2, body=OFFER.replace("o=- 1 1", "o=- 1 2"), extra=CONTACT)
    asking.respond(100)
    asking.advance(3)
    assert len(asking.invites) == 1
    asking.respond(200, body=ANSWER)
    asking.caller_request("ACK", cseq=2)
    asking.forget()
    asking.advance(5)
    # The re-INVITE was a refresh itself.
    assert asking.target_saw == []
    asking.advance(296)
    assert asking.target_saw == ["INVITE"]


@pytest.mark.parametrize("status", [481, 408])
def test_refresh_that_finds_the_dialog_gone_ends_the_call(asking: Bench, status: int) -> None:
    call(asking, answers=TAKES_UPDATE)
    asking.advance(300.1)
    asking.respond(status, request=asking.requests("UPDATE")[-1])
    assert reasons(asking) == [f'SIP;cause={status};text="The other side has lost the call"'] * 2


def test_refresh_without_any_answer_ends_the_call(asking: Bench) -> None:
    call(asking, answers=TAKES_UPDATE)
    asking.advance(333)
    assert reasons(asking) == ['SIP;cause=408;text="Session refresh not answered"'] * 2


def test_refused_refresh_is_tried_again_until_the_session_expires(asking: Bench) -> None:
    call(asking, answers=TAKES_UPDATE)
    asking.advance(300.05)
    for _ in range(10):
        asking.respond(500, request=asking.requests("UPDATE")[-1])
        asking.advance(1.05)
    assert len(asking.requests("UPDATE")) == 11
    asking.respond(200, request=asking.requests("UPDATE")[-1])
    asking.forget()
    asking.advance(250)
    assert asking.target_saw == []


def test_session_that_nobody_could_refresh_expires(asking: Bench) -> None:
    call(asking, answers=TAKES_UPDATE)
    asking.advance(300.05)
    while asking.stack.calls_in_progress:
        asking.respond(500, request=asking.requests("UPDATE")[-1])
        asking.advance(1.05)
    assert 567 < asking.now - 1000 < 570
    assert reasons(asking) == ['SIP;cause=408;text="Session expired"'] * 2


@pytest.mark.parametrize("status", [405, 501])
def test_peer_that_refuses_update_after_all_gets_a_reinvite(asking: Bench, status: int) -> None:
    call(asking, answers=TAKES_UPDATE)
    asking.advance(300.1)
    asking.respond(status, request=asking.requests("UPDATE")[-1])
    assert asking.target_saw == ["UPDATE", "INVITE"]
    asking.respond(200, body=ANSWER)


def test_challenged_refresh_goes_out_again_with_credentials(make_bench: BenchMaker) -> None:
    target = Target("main", parse_uri("sip:agent@203.0.113.5"), username="u", password="p")
    bench = make_bench(session_expires_s=600, targets=[target])
    call(bench)
    bench.advance(300.1)
    bench.respond(401, extra='WWW-Authenticate: Digest realm="r", nonce="n"')
    first, second = bench.invites
    assert "nonce=" in (second.get("authorization") or "")
    assert second.cseq.number == first.cseq.number + 1
    bench.respond(200, body=ANSWER)
    assert bench.requests("ACK")[-1].get("authorization") == second.get("authorization")


def test_refresh_opens_a_lost_connection_anew(make_bench: BenchMaker) -> None:
    bench = make_bench(session_expires_s=600, transport="tcp", target="sip:agent@203.0.113.5;transport=tcp")
    call(bench)
    bench.close(bench.target_flow)
    bench.advance(300.1)
    assert bench.target_saw == ["INVITE"]
    bench.respond(200, body=ANSWER)
    assert bench.stack.calls_in_progress == 1


def test_refresh_that_finds_no_way_is_tried_until_the_session_expires(make_bench: BenchMaker) -> None:
    bench = make_bench(session_expires_s=600, transport="tcp", target="sip:agent@203.0.113.5;transport=tcp")
    call(bench)
    bench.close(bench.target_flow)
    bench.unreachable = True
    bench.advance(500)
    assert bench.stack.calls_in_progress == 1
    bench.unreachable = False
    bench.advance(2)
    assert bench.target_saw == ["INVITE"]
    bench.respond(200, body=ANSWER)


def test_bye_ends_the_timers_of_both_legs(asking: Bench) -> None:
    call(asking, ASKS)
    asking.caller_request("BYE")
    asking.respond(200, request=asking.requests("BYE")[-1])
    asking.forget()
    asking.advance(5000)
    assert asking.caller_saw == asking.target_saw == []


# Other limits


def test_longest_duration_ends_both_legs(make_bench: BenchMaker) -> None:
    bench = make_bench(max_call_s=3600, transport="tcp")
    bench.invite()
    bench.advance(20)
    bench.respond(200, body=ANSWER)
    bench.caller_request("ACK")
    bench.forget()
    bench.advance(3599.9)
    assert bench.caller_saw == bench.target_saw == []
    bench.advance(0.2)
    assert reasons(bench) == ['SIP;cause=408;text="Maximum call duration reached"'] * 2
    (end,) = bench.ends()
    assert end["ended_by"] == "trunkline"


def test_the_timers_of_the_two_legs_know_nothing_of_each_other(asking: Bench) -> None:
    call(asking, ASKS, f"Session-Expires: 600;refresher=uac\n{TAKES_UPDATE}")
    seen: list[tuple[str, int]] = []
    for second in range(0, 1790, 10):
        asking.advance(10)
        for update in [m for m in asking.to_target if isinstance(m, Request)]:
            seen.append((update.method, second))
            asking.respond(200, request=update, extra="Session-Expires: 600;refresher=uac")
        asking.forget()
        if second == 1200:
            asking.caller_request("UPDATE", extra=f"{ASKS}\n{CONTACT}")
    assert [method for method, _ in seen] == ["UPDATE"] * 5
    assert asking.stack.calls_in_progress == 1
