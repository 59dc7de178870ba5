"""Other settings while calls go on: what begins uses the new ones, what goes on keeps what it needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from proxy.b2bua.config import AttemptPlan, RetryPolicy, Target
from proxy.b2bua.limits import Limits
from proxy.sip.uri import parse_uri
from proxy.transaction.timers import TimerSettings
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, Bench, network

OTHER = ("203.0.113.9", 5060)


def target(name: str, host: str, **options: Any) -> Target:
    return Target(name, parse_uri(f"sip:agent@{host}"), **options)


def reconfigure(bench: Bench, **changes: Any) -> None:
    bench.stack.reconfigure(replace(bench.stack.config, **changes), bench.now)
    bench.perform()


def hosts(bench: Bench, method: str) -> list[str]:
    """Where requests of a kind went, in order."""
    return [flow.remote[0] for _, flow, message in bench.wire if getattr(message, "method", "") == method]


def calls(bench: Bench) -> set[str]:
    """The Call-IDs of the INVITEs that the target got."""
    return {invite.call_id for invite in bench.invites}


def test_new_calls_go_to_the_new_target_and_old_ones_go_on(make_bench: BenchMaker) -> None:
    bench = make_bench()
    bench.answered_call()
    reconfigure(bench, targets={"new": target("new", OTHER[0])})
    bench.invite(call_id="call-2", tag="two")
    assert hosts(bench, "INVITE") == ["203.0.113.5", OTHER[0]]
    bench.caller_request("BYE")
    assert hosts(bench, "BYE") == ["203.0.113.5"]
    assert bench.ends()[0]["outcome"] == "answered"


def test_a_retry_to_a_target_that_is_gone_goes_to_the_first_one(make_bench: BenchMaker) -> None:
    retry = RetryPolicy(attempts=(AttemptPlan(), AttemptPlan(target="spare")))
    targets = [target("main", "203.0.113.5"), target("spare", OTHER[0], priority=1)]
    bench = make_bench(retry=retry, targets=targets)
    bench.invite()
    reconfigure(bench, targets={"main": targets[0]}, retry=RetryPolicy())
    bench.respond(500, "Server Error")
    bench.advance(2.0)
    assert set(hosts(bench, "INVITE")) == {"203.0.113.5"}
    assert len(calls(bench)) == 2
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("ACK")


def test_calls_keep_the_retry_policy_that_they_began_with(make_bench: BenchMaker) -> None:
    bench = make_bench(retry=RetryPolicy(max_attempts=2))
    bench.invite()
    reconfigure(bench, retry=RetryPolicy(max_attempts=1))
    bench.respond(500, "Server Error")
    bench.advance(1.0)
    assert len(calls(bench)) == 2
    bench.invite(call_id="call-2", tag="two")
    bench.respond(500, "Server Error")
    bench.advance(1.0)
    assert len(calls(bench)) == 3


def test_who_may_call_changes(make_bench: BenchMaker) -> None:
    bench = make_bench()
    bench.answered_call()
    reconfigure(bench, allow=(network("198.18.0.1"),))
    bench.invite(call_id="call-2", tag="two")
    assert len(bench.invites) == 1
    bench.caller_request("BYE")
    assert bench.caller_saw[-1] == "200 BYE", "a call in progress ends as it should"


def test_limits_change(make_bench: BenchMaker) -> None:
    bench = make_bench()
    reconfigure(bench, limits=Limits(source_invites_per_s=0.5))
    for number in range(3):
        bench.invite(call_id=f"call-{number}", tag=f"t{number}")
    assert bench.caller_saw.count("503 INVITE") == 2
    reconfigure(bench, limits=Limits(), max_calls=1)
    bench.invite(call_id="call-9", tag="t9")
    assert bench.caller_saw[-1] == "503 INVITE"


def test_pings_follow_the_targets(make_bench: BenchMaker) -> None:
    first, second = target("one", "203.0.113.5", ping_s=10.0), target("two", OTHER[0], ping_s=10.0)
    bench = make_bench(targets=[first])
    bench.stack.start(bench.now)
    bench.perform()
    assert hosts(bench, "OPTIONS") == ["203.0.113.5"]
    bench.respond(200, "OK", request=bench.requests("OPTIONS")[0])
    reconfigure(bench, targets={"one": first, "two": second})
    assert hosts(bench, "OPTIONS") == ["203.0.113.5", OTHER[0]]
    reconfigure(bench, targets={"two": second})
    bench.advance(100.0)
    assert bench.stack.target_states() == {"two": False}
    assert [event.fields["target"] for event in bench.events if event.kind == "target-down"] == ["two"]
    assert hosts(bench, "OPTIONS").count("203.0.113.5") == 1, "it gets no more"
    reconfigure(bench, targets={"one": replace(first, ping_s=0.0)})
    assert bench.stack.target_states() == {"one": True}
    bench.stack.stop()


def test_passwords_change(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(), users={"us": "old"})
    bench.invite()
    challenge = bench.last_response.get("www-authenticate")
    assert bench.last_response.status == 401
    reconfigure(bench, users={"us": "old"})
    bench.invite(call_id="call-2", tag="two")
    assert bench.last_response.status == 401
    assert challenge is not None
    reconfigure(bench, users={})
    bench.invite(call_id="call-3", tag="three")
    assert bench.caller_saw.count("401 INVITE") == 2, "without users, strangers meet silence"


def test_what_we_say_of_ourselves_changes(make_bench: BenchMaker) -> None:
    bench = make_bench()
    reconfigure(bench, user_agent="Other/1", refer="refuse")
    bench.answered_call()
    assert bench.invites[0].get("user-agent") == "Other/1"
    assert bench.last_response.get("server") == "Other/1"
    assert "REFER" not in (bench.invites[0].get("allow") or "")


def test_timers_stay(make_bench: BenchMaker) -> None:
    bench = make_bench()
    reconfigure(bench, timers=TimerSettings(t1_s=1.0))
    assert bench.stack.config.timers.t1_s == 0.5
