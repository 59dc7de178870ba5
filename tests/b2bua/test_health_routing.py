"""Which targets are up, and which of them a call goes to: pings, routes, priority, weight, failover."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.b2bua.config import AttemptPlan, RetryPolicy, Route, Target, Trunk
from proxy.b2bua.routing import fits, order_targets
from proxy.rewrite.draft import Draft
from proxy.rewrite.engine import Context, Rule, RuleReject, RuleSet
from proxy.sip.flow import Flow
from proxy.sip.message import Request
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, CALLER, NO_RULES, OURS, Bench, network

FAST = RetryPolicy(max_attempts=4, jitter=0.0)


def target(name: str, last: int, **rest: object) -> Target:
    """A target at 203.0.113.<last> without a user of its own."""
    return Target(name, parse_uri(f"sip:203.0.113.{last}"), **rest)  # type: ignore[arg-type]


def sent_to(bench: Bench, last: int, method: str = "") -> list[tuple[Flow, Request]]:
    """The requests that a target got, with their flows."""
    found: list[tuple[Flow, Request]] = []
    for _, flow, message in bench.wire:
        if flow.remote[0] == f"203.0.113.{last}" and isinstance(message, Request) and method in ("", message.method):
            found.append((flow, message))
    return found


def answer(bench: Bench, last: int, status: int, method: str = "INVITE", body: str = "", extra: str = "") -> None:
    """A target's answer to its last request."""
    flow, request = sent_to(bench, last, method)[-1]
    bench.respond(status, request=request, flow=flow, body=body, extra=extra)


def reached(bench: Bench) -> list[int]:
    """Where INVITEs went, in order."""
    found: dict[str, int] = {}
    for _, flow, message in bench.wire:
        if isinstance(message, Request) and message.method == "INVITE" and flow.remote != CALLER:
            found.setdefault(message.via.branch, int(flow.remote[0].rpartition(".")[2]))
    return list(found.values())


def changes(bench: Bench) -> list[tuple[str, object]]:
    return [(event.kind, event.fields["target"]) for event in bench.events if event.kind.startswith("target-")]


def place(bench: Bench, number: int = 1, dialed: str = "+15550100001", extra: str = "") -> None:
    """One of several calls."""
    call = f"call-{number}"
    bench.invite(call_id=call, tag=f"t{number}", extra=extra, uri=f"sip:{dialed}@198.51.100.1")


# Pings


@pytest.fixture
def pinged(make_bench: BenchMaker) -> Bench:
    """One target that gets an OPTIONS a minute."""
    bench = make_bench(targets=[target("main", 5, ping_s=60)], transport="tcp")
    bench.stack.start(bench.now)
    bench.perform()
    return bench


def stop(bench: Bench) -> None:
    bench.stack.stop()


def pings(bench: Bench) -> list[Request]:
    return [request for _, request in sent_to(bench, 5, "OPTIONS")]


def test_ping_is_an_options_outside_of_any_dialog(pinged: Bench) -> None:
    (ping,) = pings(pinged)
    assert (ping.uri, ping.to.tag, ping.get("max-forwards")) == ("sip:203.0.113.5", None, "70")
    assert ping.from_.tag
    assert ping.get("contact") == "<sip:trunkline@198.51.100.1:5060;transport=tcp>"
    answer(pinged, 5, 200, "OPTIONS")
    pinged.advance(59.9)
    assert len(pings(pinged)) == 1
    pinged.advance(0.2)
    second = pings(pinged)[1]
    assert (second.call_id, second.from_.tag) != (ping.call_id, ping.from_.tag)
    stop(pinged)


@pytest.mark.parametrize("status", [200, 401, 404, 405, 486, 500, 603])
def test_any_answer_shows_that_somebody_is_there(pinged: Bench, status: int) -> None:
    for _ in range(3):
        answer(pinged, 5, status, "OPTIONS")
        pinged.advance(60.1)
    assert changes(pinged) == []
    assert pinged.stack.target_states() == {"main": True}
    stop(pinged)


@pytest.mark.parametrize("status", [503, 408])
def test_two_failures_in_a_row_take_a_target_down_and_one_answer_brings_it_back(pinged: Bench, status: int) -> None:
    answer(pinged, 5, status, "OPTIONS")
    pinged.advance(60.1)
    assert pinged.stack.target_states() == {"main": True}
    answer(pinged, 5, status, "OPTIONS")
    assert changes(pinged) == [("target-down", "main")]
    assert pinged.stack.target_states() == {"main": False}
    pinged.advance(60.1)
    answer(pinged, 5, status, "OPTIONS")
    pinged.advance(60.1)
    answer(pinged, 5, 200, "OPTIONS")
    assert changes(pinged) == [("target-down", "main"), ("target-up", "main")]
    down = next(event for event in pinged.events if event.kind == "target-down")
    assert str(status) in str(down.fields["why"])
    stop(pinged)


def test_one_failure_between_answers_changes_nothing(pinged: Bench) -> None:
    for status in (503, 200, 503, 200, 503):
        answer(pinged, 5, status, "OPTIONS")
        pinged.advance(60.1)
    assert changes(pinged) == []
    stop(pinged)


def test_silence_takes_a_target_down(pinged: Bench) -> None:
    pinged.advance(32.1)
    assert pinged.stack.target_states() == {"main": True}
    pinged.advance(60 + 32.1)
    assert pinged.stack.target_states() == {"main": False}
    stop(pinged)


def test_target_that_can_not_be_reached_goes_down_and_is_looked_for_again(pinged: Bench) -> None:
    answer(pinged, 5, 200, "OPTIONS")
    pinged.unreachable = True
    pinged.advance(121)
    assert changes(pinged) == [("target-down", "main")]
    pinged.unreachable = False
    pinged.advance(60)
    answer(pinged, 5, 200, "OPTIONS")
    assert changes(pinged)[-1] == ("target-up", "main")
    stop(pinged)


def test_lost_connection_during_a_ping_counts_as_a_failure(pinged: Bench) -> None:
    for _ in range(2):
        pinged.close(sent_to(pinged, 5)[-1][0])
        pinged.advance(60.1)
    assert changes(pinged) == [("target-down", "main")]
    stop(pinged)


@pytest.mark.parametrize("moment", ["waiting", "asked", "searching"])
def test_stop_leaves_nothing_behind(pinged: Bench, moment: str) -> None:
    if moment != "asked":
        answer(pinged, 5, 200, "OPTIONS")
    if moment == "searching":
        pinged.hold_flows = True
        pinged.advance(60.1)
    stop(pinged)
    pinged.release()
    pinged.advance(40)
    tables = pinged.stack.tables()
    assert [tables[name] for name in ("timers", "searches", "client_transactions")] == [0, 0, 0]
    assert len(pings(pinged)) == 1


def test_targets_without_a_ping_interval_get_none(make_bench: BenchMaker) -> None:
    bench = make_bench()
    bench.stack.start(bench.now)
    bench.perform()
    assert bench.wire == []


# Health and calls


@pytest.fixture
def two(make_bench: BenchMaker) -> Bench:
    """A target and its replacement; the first one is pinged."""
    targets = [target("main", 5, ping_s=60), target("spare", 6, priority=1)]
    bench = make_bench(targets=targets, transport="tcp", caller_transport="tcp", retry=FAST)
    bench.stack.start(bench.now)
    bench.perform()
    return bench


def test_calls_pass_by_a_target_that_is_down(two: Bench) -> None:
    place(two, 1)
    for _ in range(2):
        answer(two, 5, 503, "OPTIONS")
        two.advance(60.1)
    place(two, 2)
    answer(two, 5, 200, "OPTIONS")
    place(two, 3)
    assert reached(two)[0] == 5
    assert reached(two)[-2:] == [6, 5]
    stop(two)


def test_target_that_is_down_is_better_than_none(two: Bench) -> None:
    for _ in range(2):
        answer(two, 5, 503, "OPTIONS")
        two.advance(60.1)
    place(two)
    answer(two, 6, 503)
    two.advance(0.3)
    assert reached(two) == [6, 5]
    stop(two)


@pytest.mark.parametrize("failure", ["503", "unreachable", "silence"])
def test_target_that_failed_a_call_is_left_alone_for_half_a_minute(make_bench: BenchMaker, failure: str) -> None:
    targets = [target("main", 5), target("spare", 6, priority=1)]
    bench = make_bench(targets=targets, transport="tcp", caller_transport="tcp", retry=FAST)
    place(bench, 1)
    if failure == "503":
        answer(bench, 5, 503)
    elif failure == "silence":
        bench.advance(8.1)
    else:
        bench.close(sent_to(bench, 5)[-1][0])
    bench.advance(0.3)
    assert reached(bench) == [5, 6]
    answer(bench, 6, 486)
    place(bench, 2)
    assert reached(bench)[-1] == 6
    answer(bench, 6, 486)
    bench.advance(31)
    place(bench, 3)
    assert reached(bench)[-1] == 5


def test_target_that_serves_a_call_after_all_is_trusted_again(make_bench: BenchMaker) -> None:
    targets = [target("main", 5), target("spare", 6, priority=1)]
    bench = make_bench(targets=targets, transport="tcp", caller_transport="tcp", retry=FAST)
    place(bench, 1)
    answer(bench, 5, 503)
    bench.advance(0.3)
    answer(bench, 6, 503)
    bench.advance(0.5)
    assert reached(bench) == [5, 6, 5]
    answer(bench, 5, 200, body=ANSWER)
    place(bench, 2)
    assert reached(bench)[-1] == 5


@pytest.mark.parametrize("status", [400, 500])
def test_refusal_of_a_call_says_nothing_of_the_target(make_bench: BenchMaker, status: int) -> None:
    targets = [target("main", 5), target("spare", 6, priority=1)]
    bench = make_bench(targets=targets, transport="tcp", caller_transport="tcp", retry=FAST)
    place(bench, 1)
    answer(bench, 5, status)
    bench.advance(0.3)
    place(bench, 2)
    assert reached(bench) == [5, 5, 5]


def test_503_of_our_own_rules_says_nothing_of_the_target(make_bench: BenchMaker) -> None:
    def act(draft: Draft, context: Context) -> None:
        if not draft.status and draft.find("x-no") is not None:
            raise RuleReject(503, "Closed", "rule:no/no")

    rules = RuleSet("no", "no", "4" * 12, (Rule("no", "for the test", "rule:no/no", 1, actions=(act,)),))
    targets = [target("main", 5), target("spare", 6, priority=1)]
    bench = make_bench(targets=targets, transport="tcp", caller_transport="tcp", rules=(rules,))
    place(bench, 1, extra="X-No: 1")
    assert bench.last_response.status == 503
    place(bench, 2)
    assert reached(bench) == [5]


# Failover


def test_failover_goes_through_the_targets_in_order_and_round_again(make_bench: BenchMaker) -> None:
    targets = [target("openai", 5), target("openai-eu", 6, priority=1), target("azure", 7, priority=2)]
    bench = make_bench(targets=targets, transport="tcp", caller_transport="tcp", retry=FAST)
    place(bench)
    for last in (5, 6, 7, 5):
        answer(bench, last, 503)
        bench.advance(2)
    assert reached(bench) == [5, 6, 7, 5]
    assert bench.last_response.status == 503
    ids = {request.call_id for last in (5, 6, 7) for _, request in sent_to(bench, last, "INVITE")}
    assert len(ids) == 4


def test_plan_of_an_attempt_may_name_its_target(make_bench: BenchMaker) -> None:
    policy = RetryPolicy(jitter=0.0, attempts=(AttemptPlan(), AttemptPlan(), AttemptPlan(target="azure")))
    targets = [target("openai", 5), target("azure", 7, priority=1)]
    bench = make_bench(targets=targets, transport="tcp", caller_transport="tcp", retry=policy)
    place(bench)
    for last in (5, 5):
        answer(bench, last, 400)
        bench.advance(2)
    assert reached(bench) == [5, 5, 7]


# Routes


def routed(make_bench: BenchMaker, *routes: Route, **rest: object) -> Bench:
    targets = [target("a", 5), target("b", 6), target("c", 7)]
    return make_bench(targets=targets, routes=routes, transport="tcp", caller_transport="tcp", **rest)


@pytest.mark.parametrize(
    ("dialed", "goes_to"), [("+15550100001", 5), ("+15550100777", 6), ("+442079460001", 7), ("anonymous", 7)]
)
def test_the_first_route_whose_number_fits_decides(make_bench: BenchMaker, dialed: str, goes_to: int) -> None:
    bench = routed(
        make_bench, Route(("a",), dialed="+15550100001"), Route(("b",), dialed="+1555*"), Route(("c",), dialed="*")
    )
    place(bench, dialed=dialed)
    assert reached(bench) == [goes_to]
    assert sent_to(bench, goes_to)[0][1].uri == f"sip:{dialed}@203.0.113.{goes_to}"


def test_route_by_trunk(make_bench: BenchMaker) -> None:
    trunks = (Trunk("west", (network("192.0.2.10"),)), Trunk("east", (network("192.0.2.20"),)))
    bench = routed(make_bench, Route(("a",), trunk="east"), Route(("b",), trunk="west"), trunks=trunks, allow=())
    place(bench, 1)
    east = Flow("tcp", OURS, ("192.0.2.20", 5060), f"{OURS[0]}:{OURS[1]}", listener="tcp")
    bench.invite(call_id="call-2", tag="east", flow=east)
    assert reached(bench) == [6, 5]
    assert [event.fields["trunk"] for event in bench.events if event.kind == "call-start"] == ["west", "east"]


def test_trunk_by_listener(make_bench: BenchMaker) -> None:
    everywhere = (network("0.0.0.0", "255.255.255.255"),)
    trunks = (Trunk("inside", everywhere, "tcp:10.0.0.1:5060"), Trunk("outside", everywhere))
    bench = routed(make_bench, Route(("a",), trunk="inside"), Route(("b",), trunk="outside"), trunks=trunks, allow=())
    place(bench, 1)
    inside = Flow("tcp", OURS, ("192.0.2.10", 5061), f"{OURS[0]}:{OURS[1]}", listener="tcp:10.0.0.1:5060")
    bench.invite(call_id="call-2", tag="inside", flow=inside)
    assert reached(bench) == [6, 5]


@pytest.mark.parametrize(
    ("extra", "goes_to"),
    [
        ("X-Tenant: blue-1", 5),
        ("x-tenant:  blue-2", 5),
        ("X-Tenant: red", 6),
        ("X-Tenant: red\nX-Tenant: blue-3", 5),
        ("", 7),
    ],
)
def test_route_by_header(make_bench: BenchMaker, extra: str, goes_to: int) -> None:
    bench = routed(
        make_bench,
        Route(("a",), header="x-tenant", header_value="blue-*"),
        Route(("b",), header="x-tenant"),
        Route(("c",)),
    )
    place(bench, extra=extra)
    assert reached(bench) == [goes_to]


def test_every_condition_of_a_route_must_hold(make_bench: BenchMaker) -> None:
    bench = routed(make_bench, Route(("a",), dialed="+1555*", header="x-vip"), Route(("b",)))
    place(bench, 1)
    place(bench, 2, extra="X-VIP: yes")
    place(bench, 3, dialed="+442079460001", extra="X-VIP: yes")
    assert reached(bench) == [6, 5, 6]


def test_call_that_fits_no_route_gets_404(make_bench: BenchMaker) -> None:
    bench = routed(make_bench, Route(("a",), dialed="+1555*"))
    place(bench, dialed="+442079460001")
    assert bench.last_response.status == 404
    assert reached(bench) == []


def test_route_has_its_own_rules_and_failover_stays_in_it(make_bench: BenchMaker) -> None:
    other = RuleSet("other", "other", "5" * 12, ())
    bench = routed(
        make_bench,
        Route(("b", "c"), dialed="+1555*", rules="other"),
        Route(("a",)),
        rules=(NO_RULES, other),
        retry=FAST,
        random=lambda: 0.0,
    )
    place(bench)
    for last in (6, 7):
        answer(bench, last, 503)
        bench.advance(1)
    assert reached(bench) == [6, 7, 6]
    assert {event.fields["rules"] for event in bench.events if event.kind == "attempt-start"} == {"other"}


def test_without_routes_any_target_may_be_tried(make_bench: BenchMaker) -> None:
    bench = routed(make_bench, retry=FAST, random=lambda: 0.0)
    place(bench)
    for last in (5, 6, 7):
        answer(bench, last, 503)
        bench.advance(1)
    assert reached(bench) == [5, 6, 7, 5]


def test_target_with_a_user_of_its_own_keeps_it(make_bench: BenchMaker) -> None:
    agent = Target("agent", parse_uri("sip:proj_1@203.0.113.5;transport=tcp"))
    bench = make_bench(targets=[agent], transport="tcp")
    place(bench)
    assert sent_to(bench, 5)[0][1].uri == "sip:proj_1@203.0.113.5;transport=tcp"


# The pure parts


@pytest.mark.parametrize(
    ("pattern", "text", "fit"),
    [
        ("+1555*", "+15550100001", True),
        ("+1555*", "+1444", False),
        ("*", "", True),
        ("", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*01", "+101", True),
        ("+1*00*1", "+1555001", True),
        ("+1*00*1", "+1555011", False),
        ("a*b*a", "aba", True),
        ("a*ab*b", "aab", False),
        ("+1.55", "+1x55", False),
    ],
)
def test_patterns(pattern: str, text: str, fit: bool) -> None:
    assert fits(pattern, text) is fit


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=4), st.lists(st.text("ab", max_size=3), max_size=3))
def test_pattern_fits_what_was_made_from_it(pieces: list[str], fill: list[str]) -> None:
    fill += [""] * len(pieces)
    text = pieces[0] + "".join([gap + piece for gap, piece in zip(fill, pieces[1:], strict=False)])
    assert fits("*".join(pieces), text)


def test_weights_are_shares_within_one_priority() -> None:
    targets = [target("a", 1, weight=3), target("b", 2, weight=1), target("c", 3, priority=1, weight=100)]
    firsts = Counter(
        order_targets(targets, lambda _: True, iter([at / 100, 0.0]).__next__)[0].name for at in range(100)
    )
    assert firsts == {"a": 75, "b": 25}
    assert [one.name for one in order_targets(targets, lambda _: True, lambda: 0.9)] == ["b", "a", "c"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=8),
    st.floats(0, 1, exclude_max=True),
)
def test_order_holds_every_target_once_by_state_and_priority(items: list[tuple[int, int, bool]], chance: float) -> None:
    targets = [target(str(at), at, priority=item[0], weight=item[1]) for at, item in enumerate(items)]
    up = {str(at): item[2] for at, item in enumerate(items)}
    ordered = order_targets(targets, lambda name: up[name], lambda: chance)
    assert sorted(one.name for one in ordered) == sorted(up)
    keys = [(not up[one.name], one.priority) for one in ordered]
    assert keys == sorted(keys)
