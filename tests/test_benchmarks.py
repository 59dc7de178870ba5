"""The benchmarks' reckoning: from runs to figures, tables and plots. Nothing is measured here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.devices import DEVICES
from benchmarks.docs import PAGES, fill
from benchmarks.figures import figures_of
from benchmarks.goals import capacity_table, goals_table
from benchmarks.load import LoadError, Result, percentiles
from benchmarks.parts import parts_of
from benchmarks.plan import FULL, QUICK, is_clean
from benchmarks.plots import PLOTS, draw_plots
from benchmarks.report import TABLES, markdown
from benchmarks.session import Session

CORE = {
    "whole": 300.0,
    "by_step": {"INVITE": 100.0, "BYE": 50.0},
    "in_progress": {"10": 300.0, "10000": 310.0},
    "rules_absent": {"1": 200.0, "1000": 250.0},
    "rules_looking": {"1": 200.0, "1000": 900.0},
    "retries": {"0": 300.0, "10": 2000.0},
    "parts": {"parse an INVITE": 5.0},
}


def run(device: str, rate: float, cpu_ms: float = 1.0, **more: Any) -> dict[str, Any]:
    calls = round(rate * 10)
    added, ringing = percentiles([0.5, 1.0, 2.0]), percentiles([1.0, 2.0, 4.0])
    made = Result(device, rate, calls, calls, 0, 0, rate, cpu_ms, cpu_ms / 4, added_ms=added, ringing_ms=ringing)
    return {**made.to_dict(), **more}


@pytest.fixture
def report() -> dict[str, Any]:
    runs: dict[str, dict[str, Any]] = {"core/compiled": CORE, "core/pure": CORE}
    for name, cpu_ms in (("trunkline", 0.5), ("trunkline-store", 0.9), ("trunkline-tls", 0.7), ("kamailio-topoh", 0.6)):
        for rate in (80, 400):
            for repetition in range(3):
                runs[f"rate/{name}/{rate}/{repetition}"] = run(name, rate, cpu_ms + repetition / 10)
    runs["rate/sippy/80/0"] = run("sippy", 80, 4.8)
    runs["highest/trunkline/800/0"] = run("trunkline", 800)
    runs["highest/trunkline/1600/0"] = run("trunkline", 1600, failed=3)
    runs["half/trunkline/400/0"] = run("trunkline", 400)
    runs["steady/trunkline/half/400"] = run("trunkline", 400)
    runs["steady/trunkline/goal/500"] = run("trunkline", 500, retransmitted=7)
    runs["memory/trunkline-all/2000"] = run("trunkline-all", 400, bytes_per_call=20_480.0)
    runs["beside/trunkline/10"] = run("trunkline", 80)
    runs["workers/trunkline-2-workers/400"] = run("trunkline-2-workers", 400)
    runs["parts/trunkline/400"] = run("trunkline", 400, parts={"sip": 0.6, "sdp": 0.4})
    runs["rate/kamailio/80/0"] = {"error": "kamailio does not listen"}
    machine = {"cpu": "a processor", "cores": 2, "memory_gb": 4, "kernel": "6", "python": "3.11"}
    around = {"machine": machine, "taken": "2026-01-01", "seconds": 6.0, "repetitions": 3, "absent": {"x": "needs y"}}
    figures = figures_of(runs, {name: device.what for name, device in DEVICES.items()})
    return json.loads(json.dumps({**around, **figures}))  # type: ignore[no-any-return]


def test_repetitions_are_a_median_and_a_range(report: dict[str, Any]) -> None:
    assert report["devices"]["trunkline"]["at"]["80"]["cpu_ms"] == [0.5, 0.6, 0.7]
    assert "0.60 (0.50–0.70)" in TABLES["peers"](report)


def test_the_highest_rate_is_the_highest_clean_one(report: dict[str, Any]) -> None:
    highest = report["devices"]["trunkline"]["highest"]
    assert (highest["rate"], highest["not_clean_at"], highest["generator_limited"]) == (800, 1600, False)
    assert "| new calls a second, call store off | 800 | 400 per core |" in capacity_table(report)


def test_memory_is_planned_with_a_margin(report: dict[str, Any]) -> None:
    assert "20.0 KB | 30 KB: 34000 calls in progress per GB" in capacity_table(report)


@pytest.mark.parametrize(
    "row",
    [
        "1/6 of Sippy's CPU per call | yes: 1/8.0",
        "at 80 calls/s not more than Kamailio with topoh | yes: 0.86 times",
        "at 400 calls/s with the call store at most 1.4 times the figure without | no: 1.67 times",
        "at 80 calls/s a TLS target at most 1.5 times UDP, on a kept connection | yes: 1.33 times",
        "10 s at 500 calls/s on one worker: no failed call | yes: 0 of 5000 failed, 7 sent again",
        "at most 24 KB per call in progress with everything on | yes: 20.0 KB",
    ],
)
def test_goals_are_reckoned_from_the_figures(report: dict[str, Any], row: str) -> None:
    assert row in goals_table(report)


def test_what_could_not_be_done_is_told(report: dict[str, Any]) -> None:
    text = markdown(report)
    assert "Could not be done: rate/kamailio/80/0" in text
    assert "Not installed: x (needs y)" in text


def test_a_report_of_nothing_is_a_report() -> None:
    empty = {"machine": {"cpu": "", "cores": 1, "memory_gb": 1, "kernel": "", "python": ""}, "taken": "", "seconds": 1}
    report = {**empty, "repetitions": 1, "absent": {}, **figures_of({}, {})}
    assert "runs of 1 s" in markdown(report)


def test_plots_are_drawn(report: dict[str, Any], tmp_path: Path) -> None:
    assert [plot.name for plot in draw_plots(report, tmp_path)] == [f"{name}.png" for name in PLOTS]
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in PLOTS)


def test_pages_are_filled_and_filled_again(report: dict[str, Any]) -> None:
    for page in PAGES:
        once = fill(page.read_text(), report)
        assert "0.60 (0.50–0.70)" in once
        assert fill(once, report) == once


@pytest.mark.parametrize(
    ("more", "clean"),
    [({}, True), ({"failed": 1}, False), ({"retransmitted": 9}, False), ({"per_second": 90.0}, False)],
)
def test_a_clean_run(more: dict[str, Any], clean: bool) -> None:
    assert is_clean(run("trunkline", 100, **more)) is clean


def test_samples_belong_to_the_innermost_part() -> None:
    samples = "\n".join(
        (
            "run (uvloop/__init__.py:9);receive (proxy/b2bua/stack.py:1);parse (proxy/sip/parser.py:2);sub (re.py:3) 6",
            "main (proxy/cli.py:1);run (uvloop/__init__.py:92) 1",
            "run (uvloop/__init__.py:92);CPyDef_stack___Stack___receive (a.so);CPyDef_codecs___read (a.so) 2",
            "proxy/__main__.py (x);receive (proxy/runtime.py:9) 1",
            "_run (proxy/audit/writer.py:118);get (queue.c:1);PyThread_acquire_lock_timed (a.so);0x7f (libc.so.6) 90",
        )
    )
    assert parts_of(samples) == {
        "sip: messages, parser": 0.6,
        "sdp": 0.2,
        "event loop": 0.1,
        "transport, runtime, kernel": 0.1,
    }


def test_a_session_goes_on_where_it_was(tmp_path: Path) -> None:
    def work(figures: dict[str, int]) -> Callable[[], dict[str, int]]:
        return lambda: figures

    def fails() -> dict[str, int]:
        raise LoadError("no")

    first = Session(tmp_path, resume=False, planned_s=10)
    assert first.take("a", 1, work({"x": 1})) == {"x": 1}
    assert first.take("b", 1, fails) == {"error": "no"}
    again = Session(tmp_path, resume=True, planned_s=10)
    assert again.take("a", 1, work({"x": 2})) == {"x": 1}
    assert again.take("b", 1, work({"x": 3})) == {"x": 3}
    anew = Session(tmp_path, resume=False, planned_s=10)
    assert anew.take("a", 1, work({"x": 4})) == {"x": 4}


def test_plans_fit_into_their_time() -> None:
    assert QUICK.about_s() < 6 * 60
    assert FULL.about_s() < 25 * 60
