"""SIPp as caller and as target, with Trunkline between them as a user runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import free_port, run_sipp, running_trunkline

TRANSPORTS = ["udp", "tcp"]


def target_at(port: int, transport: str) -> str:
    return f"sip:127.0.0.1:{port}" + ("" if transport == "udp" else f";transport={transport}")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_thousand_calls_at_50_a_second(transport: str, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    sipp, port = require_tool("sipp"), free_port()
    with running_trunkline(tmp_path, target_at(port, transport)) as proxy:
        run_sipp(
            sipp,
            tmp_path,
            caller="uac",
            callee="uas",
            proxy_port=proxy.port,
            callee_port=port,
            calls=1000,
            rate=50,
            transport=transport,
        )
        ends = proxy.wait_for("call-end", 1000)
    assert {event["outcome"] for event in ends} == {"answered"}
    assert all(len(event["attempts"]) == 1 for event in ends)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("caller", "callee", "outcome", "ended_by"),
    [
        ("uac_busy", "uas_busy", "failed", "refused"),
        ("uac_cancel", "uas_cancelled", "cancelled", "caller-cancel"),
        ("uac_callee_bye", "uas_bye", "answered", "target"),
    ],
)
def test_other_ends_of_a_call(
    caller: str,
    callee: str,
    outcome: str,
    ended_by: str,
    transport: str,
    tmp_path: Path,
    require_tool: Callable[[str], str],
) -> None:
    sipp, port = require_tool("sipp"), free_port()
    with running_trunkline(tmp_path, target_at(port, transport)) as proxy:
        run_sipp(
            sipp,
            tmp_path,
            caller=caller,
            callee=callee,
            proxy_port=proxy.port,
            callee_port=port,
            calls=30,
            rate=30,
            transport=transport,
        )
        ends = proxy.wait_for("call-end", 30)
    assert {(event["outcome"], event["ended_by"]) for event in ends} == {(outcome, ended_by)}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_target_that_never_answers(transport: str, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    sipp, port = require_tool("sipp"), free_port()
    policy = "retry: {max_attempts: 2, answer_timeout_s: 0.8, deadline_s: 2.5, attempts: [{}]}\n"
    with running_trunkline(tmp_path, target_at(port, transport), config=policy) as proxy:
        run_sipp(
            sipp,
            tmp_path,
            caller="uac_no_answer",
            callee="uas_no_answer",
            proxy_port=proxy.port,
            callee_port=port,
            calls=10,
            callee_calls=20,
            rate=20,
            transport=transport,
        )
        ends = proxy.wait_for("call-end", 10)
    for event in ends:
        assert (event["status"], event["outcome"]) == (408, "failed")
        assert [attempt["cause"] for attempt in event["attempts"]] == ["timeout", "timeout"]
