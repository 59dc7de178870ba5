"""Stopping without losing calls: SIGTERM to a real process, and a restart of two, one after the other."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from proxy.sip.message import Response
from proxy.sip.parser import parse_message
from tests.support.processes import (
    SIPP_SCENARIOS,
    Sipp,
    Trunkline,
    free_port,
    run_sipp,
    running_trunkline,
)

INVITE = """INVITE sip:+15550100001@127.0.0.1:{port} SIP/2.0\r
Via: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bKdrain{number}\r
From: <sip:+15550100002@192.0.2.10>;tag=drain{number}\r
To: <sip:+15550100001@127.0.0.1>\r
Call-ID: drain{number}\r
CSeq: 1 INVITE\r
Max-Forwards: 70\r
Contact: <sip:+15550100002@127.0.0.1:{own}>\r
Content-Length: 0\r
\r
"""


def first_answer(port: int, number: int) -> Response:
    """The first response to an INVITE without a body."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.bind(("127.0.0.1", 0))
        caller.settimeout(5)
        text = INVITE.format(port=port, own=caller.getsockname()[1], number=number)
        caller.sendto(text.encode(), ("127.0.0.1", port))
        message = parse_message(caller.recv(65_535))
        assert isinstance(message, Response)
        return message


def is_ready(port: int) -> bool:
    """What the readiness probe of a container asks."""
    command = [sys.executable, "-m", "proxy", "ping", f"sip:127.0.0.1:{port}", "--timeout", "1"]
    return subprocess.run(command, cwd=SIPP_SCENARIOS.parents[1], capture_output=True, check=False).returncode == 0


def scenario(directory: Path, name: str, *changes: tuple[str, str]) -> str:
    """A scenario with some text replaced, for `run_sipp`."""
    text = (SIPP_SCENARIOS / f"{name}.xml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (directory / f"changed_{name}.xml").write_text(text)
    return str(directory / f"changed_{name}")


def test_calls_live_on_while_new_ones_are_refused(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    sipp, port = require_tool("sipp"), free_port()
    with (
        running_trunkline(tmp_path, f"sip:127.0.0.1:{port}", config="drain_s: 30\n") as proxy,
        ThreadPoolExecutor(1) as background,
    ):
        assert is_ready(proxy.port)
        talk = background.submit(
            run_sipp,
            sipp,
            tmp_path,
            caller=scenario(tmp_path, "uac", ('milliseconds="200"', 'milliseconds="4000"')),
            callee="uas",
            proxy_port=proxy.port,
            callee_port=port,
            calls=10,
            rate=100,
        )
        proxy.wait_for("call-answered", 10)
        proxy.process.send_signal(signal.SIGTERM)
        while is_ready(proxy.port):
            pass
        refused = [first_answer(proxy.port, number) for number in range(3)]
        assert proxy.process.poll() is None
        talk.result()  # content with all ten calls, which ended by themselves
        calls_over = time.monotonic()
        assert proxy.process.wait(10) == 0
        assert time.monotonic() - calls_over < 5, "it waited for more than its calls"
        ends = proxy.wait_for("call-end", 10)
    assert [(answer.status, answer.get("retry-after")) for answer in refused] == [(503, "5")] * 3
    assert [(event["outcome"], event["ended_by"]) for event in ends] == [("answered", "caller")] * 10


def test_what_is_left_at_the_limit_gets_a_bye_with_a_reason_on_both_legs(
    tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    sipp, port = require_tool("sipp"), free_port()
    reason = 'SIP;cause=503;text="Shutting down"'.replace('"', "&quot;")
    check = f'<ereg regexp="{reason}" search_in="hdr" header="Reason:" check_it="true" assign_to="reason"/>'
    callee = scenario(
        tmp_path,
        "uas",
        ('<recv request="BYE"/>', f'<recv request="BYE"><action>{check}</action></recv>'),
        ("</scenario>", '<Reference variables="reason"/></scenario>'),
    )
    caller = scenario(tmp_path, "uac_callee_bye", ("Q.850;cause=16", reason))
    with (
        running_trunkline(tmp_path, f"sip:127.0.0.1:{port}", config="drain_s: 0.5\n") as proxy,
        ThreadPoolExecutor(1) as background,
    ):
        talk = background.submit(
            run_sipp,
            sipp,
            tmp_path,
            caller=caller,
            callee=callee,
            proxy_port=proxy.port,
            callee_port=port,
            calls=10,
            rate=100,
        )
        proxy.wait_for("call-answered", 10)
        proxy.process.send_signal(signal.SIGTERM)
        talk.result()  # both sides got a BYE with the reason for each call
        assert proxy.process.wait(10) == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_rolling_restart_of_two_under_load_loses_no_call(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    """Twenty calls a second from two callers; each prefers another of the instances, and tries both as a trunk does.
    Each instance has two workers."""
    sipp, target = require_tool("sipp"), free_port()
    ports = (free_port(), free_port())
    calls = 130
    running: list[Sipp] = []

    def instance(name: str, port: int) -> AbstractContextManager[Trunkline]:
        (tmp_path / name).mkdir()
        uri = f"sip:127.0.0.1:{target}"
        return running_trunkline(tmp_path / name, uri, "--workers", "2", config="drain_s: 10\n", port=port)

    try:
        with ExitStack() as stack:
            before = [stack.enter_context(instance(f"before-{at}", port)) for at, port in enumerate(ports)]
            callee = SIPP_SCENARIOS / "uas.xml"
            running.append(Sipp.callee(sipp, callee, tmp_path / "callee", target, 2 * calls, "udp"))
            caller = SIPP_SCENARIOS / "uac_two.xml"
            for at, port in enumerate(ports):
                way = ("-key", "second", str(ports[1 - at]), "-r", "10", f"127.0.0.1:{port}")
                running.append(Sipp(sipp, caller, tmp_path / f"caller-{at}", free_port(), calls, "udp", *way))
            for at, port in enumerate(ports):
                time.sleep(1.5)
                before[at].process.send_signal(signal.SIGTERM)
                assert before[at].process.wait(15) == 0
                stack.enter_context(instance(f"after-{at}", port))
            for process in running:
                process.finish()
    finally:
        for process in running:
            process.kill()
    places = ["before-0", "before-1", "after-0", "after-1"]
    events = {name: kinds(tmp_path / name / "events.jsonl") for name in places}
    assert sum(counts["call-end"] for counts in events.values()) == 2 * calls
    assert all(counts["call-end"] > 5 for counts in events.values()), events
    assert all(events[name]["refused"] > 5 for name in places[:2]), "nobody met a draining instance"


def kinds(path: Path) -> Counter[str]:
    """How many events of each kind a file has; every call in it ended well, and both workers had some."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    ends = [event for event in events if event["event"] == "call-end"]
    assert {event["outcome"] for event in ends} == {"answered"}
    assert {event["call"][0] for event in ends} == {"0", "1"}
    return Counter(event["event"] for event in events)
