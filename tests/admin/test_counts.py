"""What events make of counts and metrics."""

import re
import time
from pathlib import Path

from proxy.admin.counts import Counts
from proxy.admin.metrics import render
from proxy.audit.records import Change, Event
from tests.admin.conftest import Process
from tests.support.bench import ANSWER, Bench


def feed(counts: Counts, bench: Bench) -> None:
    for event in bench.events:
        counts.emit(event)


def metrics(counts: Counts) -> dict[str, float]:
    lines = [line for line in render(Process(counts)).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_call_with_a_retry() -> None:
    bench, counts = Bench(), Counts()
    bench.invite()
    bench.respond(400, "Bad Request")
    bench.advance(0.5)
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("ACK")
    bench.advance(10.0)
    bench.caller_request("BYE", cseq=2)
    feed(counts, bench)
    found = metrics(counts)
    assert found['trunkline_calls_total{ended_by="caller",outcome="answered"}'] == 1
    assert found['trunkline_attempts_total{cause="status",rules="none",status="400",target="main"}'] == 1
    assert found['trunkline_attempts_total{cause="answered",rules="none",status="200",target="main"}'] == 1
    assert found['trunkline_retries_total{target="same"}'] == 1
    assert found['trunkline_setup_seconds_bucket{le="0.25"}'] == 0
    assert found['trunkline_setup_seconds_bucket{le="0.5"}'] == 1
    assert found["trunkline_setup_seconds_count"] == 1
    assert 9.5 < found["trunkline_talk_seconds_total"] < 10.5
    assert found['trunkline_messages_total{direction="in",leg="a"}'] == 3
    assert found['trunkline_limits_reached_total{limit="invites_per_s"}'] == 2
    assert found['trunkline_target_up{target="azure"}'] == 0
    assert counts.recent(bench.now) == (1, 0, 0)
    assert counts.recent(bench.now + 3600) == (0, 0, 0)


def test_rules_count_once_a_message() -> None:
    changes = [Change(f"rule:set/{name}", "header", 0, None, "X: 1") for name in ("one", "one", "two")]
    changes.append(Change("builtin:target", "header", 0, None, "X: 1"))
    counts = Counts()
    fields: dict[str, object] = {"direction": "out", "changes": changes}
    for _ in range(3):
        counts.emit(Event("message", 1.0, "c", "b", 1, fields))
    assert dict(counts.rules) == {("set/one",): 3, ("set/two",): 3}


def test_labels_that_peers_choose_are_bounded() -> None:
    counts = Counts()
    for number in range(2000):
        counts.emit(Event("refused", 1.0, "", "", 0, {"method": f"M{number}", "status": 400 + number}))
        counts.emit(Event("dropped", 1.0, "", "", 0, {"why": f"bad thing number {number}"}))
        counts.emit(Event("attempt-end", 1.0, "c", "b", 1, {"target": "t", "status": number, "cause": f"c{number}"}))
    assert len(counts.refused) <= 201
    assert len(counts.attempts) <= 201
    assert dict(counts.dropped) == {("malformed",): 2000}
    assert sum(counts.refused.values()) == sum(counts.attempts.values()) == 2000


def test_metrics_are_what_the_documentation_lists() -> None:
    text = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    exposed = set(re.findall(r"^# TYPE (trunkline_\w+)", render(Process()).decode(), re.MULTILINE))
    assert sorted(name for name in exposed if f"`{name}`" not in text) == []
    assert len(exposed) > 20


def test_an_event_costs_next_to_nothing() -> None:
    bench, counts = Bench(), Counts()
    bench.answered_call()
    bench.caller_request("BYE", cseq=2)
    events = bench.events
    best = 1.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(500):
            for event in events:
                counts.emit(event)
        best = min(best, (time.perf_counter() - started) / (500 * len(events)))
    assert best < 10e-6  # about 1 µs; the limit leaves room for a busy machine
