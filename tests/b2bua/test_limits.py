"""Limits: the buckets by themselves, and what the stack does where one is reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.b2bua.config import Trunk
from proxy.b2bua.limits import Gate, Limits, SourceBuckets
from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import load_file
from proxy.settings import shipped_rules
from proxy.sip.flow import Flow
from proxy.sip.message import Request, Response
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import CALLER, NO_RULES, OURS, Bench, message_text, network

STRANGER = Flow("udp", OURS, ("198.51.100.66", 5060), "198.51.100.1:5060", listener="udp")


# Buckets


def test_bucket_lets_two_seconds_worth_through_and_then_its_rate() -> None:
    buckets = SourceBuckets(10.0)
    assert [buckets.take("a", 0.0) for _ in range(25)].count(True) == 20
    assert [buckets.take("a", 0.5) for _ in range(25)].count(True) == 5
    assert [buckets.take("b", 0.5) for _ in range(25)].count(True) == 20


def test_all_sources_together_have_a_limit() -> None:
    buckets = SourceBuckets(10.0, 30.0)
    taken = sum(buckets.take(f"s{number % 100}", 0.0) for number in range(1000))
    assert taken == 60
    assert sum(buckets.take(f"t{number}", 1.0) for number in range(100)) == 30


def test_zero_is_no_limit() -> None:
    assert all(SourceBuckets(0.0).take("a", 0.0) for _ in range(1000))


def test_sources_are_remembered_within_a_bound_and_not_for_long() -> None:
    buckets = SourceBuckets(10.0, capacity=100)
    for number in range(1000):
        buckets.take(f"s{number}", 0.0)
    assert len(buckets) == 100
    buckets.take("late", 10.0)
    assert len(buckets) == 1
    buckets.purge(20.0)
    assert len(buckets) == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), max_size=200),
    st.floats(0.5, 50),
    st.floats(0, 50),
)
def test_no_order_of_events_gives_more_than_the_rate(
    events: list[tuple[str, float]], rate: float, total: float
) -> None:
    buckets = SourceBuckets(rate, total)
    now, taken = 0.0, {"a": 0, "b": 0, "c": 0}
    for source, pause in events:
        now += pause
        taken[source] += buckets.take(source, now)
    assert all(count <= max(rate * 2, 1) + rate * now + 1 for count in taken.values())
    if total:
        assert sum(taken.values()) <= max(total * 2, 1) + total * now + 1


def test_one_late_timer_is_a_pause_two_are_overload_and_it_ends() -> None:
    gate = Gate(Limits(max_lag_s=0.2))
    gate.lag(3.0, 10.0)
    assert gate.invite("a", 0, 10.0) == ""
    gate.lag(0.3, 11.0)
    assert gate.invite("a", 0, 11.5) == "max_lag_s"
    gate.lag(0.0, 11.6)
    assert gate.invite("a", 0, 12.1) == ""


# The stack


def options(bench: Bench, flow: Flow, call_id: str, extra: str = "") -> None:
    headers = [
        f"Via: SIP/2.0/UDP {flow.remote[0]}:5060;branch={bench.branch()}",
        "From: <sip:a@192.0.2.10>;tag=1",
        "To: <sip:b@198.51.100.1>",
        f"Call-ID: {call_id}",
        "CSeq: 1 OPTIONS",
        *extra.splitlines(),
    ]
    bench.receive(message_text("OPTIONS sip:b@198.51.100.1 SIP/2.0", headers), flow)


def finals(bench: Bench, call_id: str) -> list[int]:
    return [
        message.status
        for message in bench.to_caller
        if isinstance(message, Response) and message.get("call-id") == call_id and message.status >= 200
    ]


def limits_reached(bench: Bench) -> list[tuple[object, object]]:
    return [(event.fields["limit"], event.fields["count"]) for event in bench.events if event.kind == "limit-reached"]


def test_calls_above_the_rate_get_503_with_retry_after_and_those_in_progress_go_on(make_bench: BenchMaker) -> None:
    bench = make_bench(limits=Limits(source_invites_per_s=1.0))
    bench.answered_call()
    bench.invite(call_id="call-2", tag="two")
    bench.invite(call_id="call-3", tag="three")
    assert finals(bench, "call-3") == [503]
    assert bench.last_response.get("retry-after") == "5"
    assert bench.stack.calls_in_progress == 2
    bench.caller_request("INFO", body="x", content_type="text/plain")
    assert isinstance(bench.to_target[-1], Request)
    assert bench.to_target[-1].method == "INFO"
    assert limits_reached(bench) == [("invites_per_s", 1)]
    bench.advance(1)
    bench.invite(call_id="call-4", tag="four")
    assert bench.stack.calls_in_progress == 3


def test_copy_of_an_invite_counts_for_nothing(make_bench: BenchMaker) -> None:
    bench = make_bench(limits=Limits(source_invites_per_s=0.5))
    branch = bench.invite()
    for _ in range(5):
        bench.invite(branch=branch)
    assert finals(bench, "call-1") == []
    assert len({message.via.branch for message in bench.invites}) == 1


def counted(bench: Bench) -> dict[str, int]:
    """The counters that are above zero."""
    return {name: count for name, count in bench.stack.counters().items() if count}


def test_requests_outside_of_calls_above_the_rate_are_dropped(make_bench: BenchMaker) -> None:
    bench = make_bench(limits=Limits(source_requests_per_s=2.0))
    for number in range(10):
        options(bench, bench.caller_flow, f"ping-{number}")
    assert [finals(bench, f"ping-{number}") for number in range(10)] == [[200]] * 4 + [[]] * 6
    assert counted(bench) == {"dropped": 6, "limit_source_requests_per_s": 6}
    assert limits_reached(bench) == [("source_requests_per_s", 1)], "one line a second"


def test_full_table_of_transactions_refuses_new_calls_and_lets_the_others_end(make_bench: BenchMaker) -> None:
    bench = make_bench(limits=Limits(max_transactions=3))
    bench.answered_call()
    options(bench, bench.caller_flow, "ping-1")
    options(bench, bench.caller_flow, "ping-2")
    options(bench, bench.caller_flow, "ping-3")
    bench.invite(call_id="call-2", tag="two")
    assert finals(bench, "call-2") == [503]
    bench.caller_request("BYE")
    assert isinstance(bench.to_target[-1], Request)
    assert bench.to_target[-1].method == "BYE"


def test_late_timers_refuse_new_calls_only(make_bench: BenchMaker) -> None:
    bench = make_bench(limits=Limits(max_lag_s=0.2))
    bench.invite()
    for _ in range(2):
        bench.now = (bench.stack.next_deadline() or 0) + 0.5
        bench.stack.handle_timers(bench.now)
        bench.perform()
    bench.invite(call_id="call-2", tag="two")
    assert finals(bench, "call-2") == [503]
    bench.respond(200, body="")
    assert bench.stack.calls_in_progress <= 1


def test_strangers_are_read_a_few_times_only(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(network(CALLER[0]),), limits=Limits(source_unknown_per_s=5.0))
    for number in range(1000):
        bench.receive(b"\x00garbage \xff\r\n\r\n" + bytes((number % 256,)), STRANGER)
    assert counted(bench) == {"dropped": 1000, "limit_unknown_per_s": 990}
    assert sum(event.kind == "dropped" for event in bench.events) == 10
    assert not [flow for _, flow, _ in bench.wire if flow is STRANGER]


def test_target_is_no_stranger(make_bench: BenchMaker) -> None:
    """It is in no allow-list, and its responses are read however many there are."""
    bench = make_bench(allow=(network(CALLER[0]),), limits=Limits(source_unknown_per_s=1.0))
    for number in range(20):
        bench.invite(call_id=f"call-{number}", tag=f"t{number}")
        bench.respond(486)
    assert [finals(bench, f"call-{number}") for number in range(20)] == [[486]] * 20


def test_message_with_too_many_header_fields_or_bytes_gets_513(make_bench: BenchMaker) -> None:
    bench = make_bench(limits=Limits(max_headers=40, max_message_bytes=4096))
    options(bench, bench.caller_flow, "many", "\n".join(f"X-{number}: 1" for number in range(50)))
    options(bench, bench.caller_flow, "large", "X-Large: " + "y" * 5000)
    assert (finals(bench, "many"), finals(bench, "large")) == ([513], [513])


def test_trunk_that_is_bound_to_a_listener_may_call_by_that_one_only(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(), trunks=(Trunk("carrier", (network(CALLER[0]),), "tls"),))
    bench.invite()
    assert bench.to_caller == []
    by_tls = Flow("tls", OURS, CALLER, "198.51.100.1:5061", listener="tls")
    bench.invite(call_id="call-2", tag="two", flow=by_tls)
    assert finals(bench, "call-2") == []
    assert bench.stack.calls_in_progress == 1


def test_connections_are_for_who_may_call_and_for_peers(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(network(CALLER[0]),))
    from_target = Flow("tcp", OURS, ("203.0.113.5", 40_000), "198.51.100.1:5060", listener="tcp")
    known = Flow("tcp", OURS, CALLER, "198.51.100.1:5060", listener="tcp")
    unknown = Flow("tcp", OURS, STRANGER.remote, "198.51.100.1:5060", listener="tcp")
    assert [bench.stack.may_connect(flow) for flow in (known, unknown, from_target)] == [True, False, False]
    bench.invite()
    assert bench.stack.may_connect(from_target)
    assert make_bench(allow=(), refuse_strangers=True).stack.may_connect(unknown)
    assert make_bench(allow=(), users={"jo": "secret"}).stack.may_connect(unknown)


# Screening rules


@pytest.fixture(scope="module")
def scanners() -> RuleSet:
    return load_file(shipped_rules() / "scanners.yaml")


SCANNERS = [
    "User-Agent: friendly-scanner",
    "User-Agent: sipvicious",
    "User-Agent: SIPVicious 0.3",
    "User-Agent: sipcli/v1.8",
    "User-Agent: sundayddr",
    "User-Agent: VaxSIPUserAgent/3.1",
    "User-Agent: pplsip",
    "user-agent: sip-scan",
]


@pytest.mark.parametrize("line", SCANNERS)
def test_scanners_meet_silence(make_bench: BenchMaker, scanners: RuleSet, line: str) -> None:
    bench = make_bench(rules=(NO_RULES, scanners), screen_rules="scanners")
    bench.invite(extra=line)
    options(bench, bench.caller_flow, "ping", line)
    assert bench.wire == []
    assert [event.fields["why"] for event in bench.events] == ["rule:scanners/scanner-user-agents"] * 2


def test_scanners_meet_silence_where_strangers_are_refused(make_bench: BenchMaker, scanners: RuleSet) -> None:
    bench = make_bench(rules=(NO_RULES, scanners), screen_rules="scanners", allow=(), refuse_strangers=True)
    options(bench, STRANGER, "scan", SCANNERS[0])
    assert bench.wire == []
    options(bench, STRANGER, "other")
    assert [message.status for _, _, message in bench.wire if isinstance(message, Response)] == [403]


@pytest.mark.parametrize(
    "agent", ["Twilio Gateway", "Asterisk PBX 20", "FPBX-16(18.9)", "Cisco-SIPGateway/IOS-15", "sipp", "OpenSIPS"]
)
def test_others_pass_the_screen(make_bench: BenchMaker, scanners: RuleSet, agent: str) -> None:
    bench = make_bench(rules=(NO_RULES, scanners), screen_rules="scanners")
    bench.invite(extra=f"User-Agent: {agent}")
    assert len(bench.invites) == 1
