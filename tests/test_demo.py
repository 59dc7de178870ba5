"""The demonstration: what it judges by, and the whole of it as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.b2bua.config import RetryPolicy
from proxy.demo import Leg, judge
from proxy.sim.records import CallRecord
from proxy.sim.report import CallResult, Report

ROOT = Path(__file__).resolve().parents[1]
POLICY = RetryPolicy(max_attempts=3)
CLEAN: dict[str, Any] = {"answered_twice": [], "unacked": [], "left_alive": []}


def record(key: str, attempt: int, status: int) -> CallRecord:
    found = CallRecord(
        key, attempt, str(attempt + 1), f"rtc_{attempt}", f"id-{attempt}", "tls", "127.0.0.1:1", b"", 0.0
    )
    found.status = status
    return found


def leg(outcome: str, kind: str, statuses: list[int], **target: list[str]) -> Leg:
    report = Report(calls=1)
    report.add(CallResult(0, "CA1", "id", "", outcome, kind, int(outcome[:3]), 1.0, 0.0, ""))
    return Leg(report, [record("CA1", at, status) for at, status in enumerate(statuses)], {**CLEAN, **target})


def test_answered_call_is_fine() -> None:
    assert judge(leg("200 OK", "answered", [400, 200]), POLICY) == []


def test_call_is_forgiven_only_when_the_target_refused_all_attempts() -> None:
    assert judge(leg("400 Bad Request", "failed", [400, 503, 400]), POLICY) == []
    (too_early,) = judge(leg("400 Bad Request", "failed", [400, 400]), POLICY)
    assert too_early == "CA1 was not answered (400 Bad Request) after 2 attempts"
    assert judge(leg("488 Not Acceptable Here", "failed", []), POLICY)
    assert judge(leg("403 Forbidden", "failed", [400, 400, 403]), POLICY)


@pytest.mark.parametrize("name", ["answered_twice", "unacked", "left_alive"])
def test_what_the_target_complains_of_is_a_failure(name: str) -> None:
    (problem,) = judge(leg("200 OK", "answered", [200], **{name: ["CA1"]}), POLICY)
    assert problem.startswith("CA1 was ")


def test_what_the_caller_complains_of_is_a_failure() -> None:
    odd = leg("200 OK", "answered", [200])
    odd.report.unexpected["stray 200 to INVITE"] = 2
    odd.report.answers_incomplete = 1
    assert judge(odd, POLICY) == [
        "the caller saw stray 200 to INVITE (2 times)",
        "1 answers did not fit the caller's offer",
    ]


def test_demo_as_a_process(tmp_path: Path) -> None:
    """Settings of the user's environment must not matter, nor an earlier run in the same place."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "events.jsonl").write_text("from an earlier run\n")
    (out / "mine.txt").write_text("not the demo's")
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "TRUNKLINE_ALLOW": "192.0.2.1", "TRUNKLINE_X": "1"}
    command = [sys.executable, "-m", "proxy", "demo", "--calls", "20", "--out", str(out)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert "20/20" in result.stdout
    assert "Every call that a retry could save was answered, and none was answered twice." in result.stdout
    rows = [
        [cell.strip() for cell in line.split("│")[1:4]] for line in result.stdout.splitlines() if line.startswith("│")
    ]
    table = {name: (straight, through) for name, straight, through in rows}
    assert table["answered"][1] == "20 of 20"
    assert int(table["answered"][0].split()[0]) < 20
    assert table["answered twice"] == ("-", "-")
    assert table["answers without Content-Type"][1] == "-"
    assert "│ failed: " in result.stdout
    assert "rule:twilio-openai/" in result.stdout

    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    ends = [event for event in events if event["event"] == "call-end"]
    assert len(ends) == 20
    assert {event["outcome"] for event in ends} == {"answered"}
    assert max(len(event["attempts"]) for event in ends) > 1
    assert (out / "mine.txt").exists()


def test_demo_that_can_not_write_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    command = [sys.executable, "-m", "proxy", "demo", "--calls", "1", "--out", str(blocked / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 1
    assert "The demo could not be carried out" in result.stdout
