"""What rules decide of a call: its target, its attempts, silence, tags, notes; and other rules while calls go on."""

from __future__ import annotations

from proxy.b2bua.config import RetryPolicy, Target
from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import load_text
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, CALLER, Bench

TARGETS = (
    Target("main", parse_uri("sip:agent@203.0.113.5")),
    Target("eu", parse_uri("sip:agent@203.0.113.6"), priority=1),
)


def rules(*texts: str, name: str = "mine") -> RuleSet:
    """A set of rules in flow style: `when: …, do: […]`."""
    lines = "".join([f"  - {{id: r{at}, why: w, {text}}}\n" for at, text in enumerate(texts)])
    return load_text(f"version: 1\nname: {name}\nrules:\n{lines}", "mine.yaml")


def made(make_bench: BenchMaker, *texts: str, retry: RetryPolicy | None = None) -> Bench:
    return make_bench(transport="tcp", rules=(rules(*texts),), targets=TARGETS, retry=retry or RetryPolicy(jitter=0.0))


def of_kind(bench: Bench, kind: str) -> list[dict[str, object]]:
    return [event.fields for event in bench.events if event.kind == kind]


def test_route(make_bench: BenchMaker) -> None:
    route = "when: {direction: a-to-b, header: {name: X-Region, equals: eu}}, do: [{route: eu}]"
    told = "when: {target: eu, method: INVITE}, do: [{set: {header: X-Where, value: '{target} {target.host}'}}]"
    bench = made(make_bench, route, told)
    bench.invite(extra="X-Region: eu")
    (attempt,) = of_kind(bench, "attempt-start")
    assert attempt["target"] == "eu"
    (uri,) = bench.resolves
    assert uri.host == "203.0.113.6"
    sent = [message for _, flow, message in bench.wire if flow.remote[0] == "203.0.113.6"]
    assert sent[0].get("x-where") == "eu 203.0.113.6"


def test_no_route_for_others(make_bench: BenchMaker) -> None:
    bench = made(make_bench, "when: {header: {name: X-Region, equals: eu}}, do: [{route: eu}]")
    bench.invite()
    assert of_kind(bench, "attempt-start")[0]["target"] == "main"


def test_unknown_target_is_overlooked(make_bench: BenchMaker) -> None:
    bench = made(make_bench, "do: [{route: '{header.X-Region}'}]")
    bench.invite(extra="X-Region: moon")
    assert of_kind(bench, "attempt-start")[0]["target"] == "main"


def test_never_tried_again(make_bench: BenchMaker) -> None:
    bench = made(make_bench, "when: {method: INVITE}, do: [{retry: never}]")
    bench.invite()
    bench.respond(500)
    bench.advance(3)
    assert len(bench.invites) == 1
    assert bench.to_caller[-1].start_line.startswith("SIP/2.0 500")


def test_retry_plan(make_bench: BenchMaker) -> None:
    plan = "{max-attempts: 2, on: [480], deadline-s: 20, attempts: [{target: main}, {target: eu}]}"
    bench = made(make_bench, f"when: {{direction: a-to-b}}, do: [{{retry: {plan}}}]")
    bench.invite()
    bench.respond(480)
    bench.advance(3)
    assert [attempt["target"] for attempt in of_kind(bench, "attempt-start")] == ["main", "eu"]


def test_drop(make_bench: BenchMaker) -> None:
    drop = "when: {header: {name: User-Agent, contains: scanner}}, do: [{tag: scan}, {drop: true}]"
    bench = made(make_bench, drop)
    bench.invite(extra="User-Agent: sip-scanner")
    bench.advance(40)
    assert bench.wire == []
    (end,) = of_kind(bench, "call-end")
    assert (end["outcome"], end["ended_by"], end["detail"]) == ("failed", "refused", "rule:mine/r0")
    assert end["tags"] == ["scan"]
    bench.invite(extra="User-Agent: phone", call_id="call-2")
    assert len(bench.invites) == 1


def test_dropped_provisional(make_bench: BenchMaker) -> None:
    bench = made(make_bench, "when: {status: 183}, do: [{drop: true}]")
    bench.invite()
    bench.respond(183, "Session Progress")
    bench.respond(180, "Ringing")
    assert [message.start_line for message in bench.to_caller] == ["SIP/2.0 100 Trying", "SIP/2.0 180 Ringing"]


def test_reject_with_headers_before_the_first_attempt(make_bench: BenchMaker) -> None:
    reject = "{reject: {status: 503, reason: Later, headers: {Retry-After: 7, X-Why: 'no {call.id}'}}}"
    for extra in ("", ", {route: eu}"):
        bench = made(make_bench, f"when: {{message: request, method: INVITE}}, do: [{reject}{extra}]")
        bench.invite()
        answer = bench.to_caller[-1]
        assert answer.start_line == "SIP/2.0 503 Later"
        assert answer.get("retry-after") == "7"
        assert (answer.get("x-why") or "").startswith("no id")
        assert bench.invites == []


def test_tags_and_notes(make_bench: BenchMaker) -> None:
    bench = made(
        make_bench,
        "when: {method: INVITE, message: request}, do: [{tag: ['vip', 'from-{from.user}']}, {note: 'hello {attempt}'}]",
        "when: {method: INVITE, status: 2xx, tag: vip}, do: [{tag: answered}]",
    )
    bench.invite()
    bench.respond(500)
    bench.advance(3)
    bench.respond(200, body=ANSWER)
    bench.caller_request("ACK")
    bench.caller_request("BYE")
    (end,) = of_kind(bench, "call-end")
    assert end["tags"] == ["vip", "from-+15550100002", "answered"]
    assert [(note["rule"], note["note"]) for note in of_kind(bench, "rule-note")] == [
        ("rule:mine/r0", "hello 1"),
        ("rule:mine/r0", "hello 2"),
    ]


def test_other_rules_for_new_calls_only(make_bench: BenchMaker) -> None:
    mark = "when: {{method: INVITE}}, do: [{{set: {{header: X-Rules, value: {0}}}}}]"
    bench = made(make_bench, mark.format("old"))
    bench.invite()
    bench.stack.replace_rules({"mine": rules(mark.format("new"))}, "mine", bench.now)
    bench.respond(500)
    bench.advance(3)
    assert [invite.get("x-rules") for invite in bench.invites] == ["old", "old"]
    bench.invite(call_id="call-2", tag="other")
    assert bench.invites[-1].get("x-rules") == "new"
    bench.perform()
    (reloaded,) = of_kind(bench, "rules-reloaded")
    assert reloaded["default_rules"] == "mine"
    assert bench.stack.counters()["rules_reloaded"] == 1
    versions = {attempt["rules_version"] for attempt in of_kind(bench, "attempt-start")}
    assert len(versions) == 2


def test_trunk_source_and_share(make_bench: BenchMaker) -> None:
    bench = made(
        make_bench,
        f"when: {{source: {CALLER[0]}/24, share: 100}}, do: [{{tag: all}}]",
        "when: {share: 0}, do: [{tag: none}]",
        "when: {share: {percent: 50, group: a}}, do: [{tag: half}]",
    )
    for number in range(40):
        bench.invite(call_id=f"call-{number}", tag=f"t{number}")
        bench.respond(404)
    tags = [end["tags"] for end in of_kind(bench, "call-end")]
    assert len(tags) == 40
    assert all(isinstance(one, list) and one[0] == "all" and "none" not in one for one in tags)
    assert 8 < sum(["half" in str(one) for one in tags]) < 32
