"""A worker is killed under load: its calls end on both sides, and nobody else's do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.records import CallRecord
from proxy.sim.report import CallResult
from proxy.sim.twilio import TwilioConfig, place_calls
from proxy.sip.message import Request
from tests.e2e.test_workers import BUSY, FLAGS, workers_of
from tests.support.bench import OFFER
from tests.support.line import Line
from tests.support.processes import Trunkline, running_trunkline

CALLERS = 8
CALLS_EACH = 6
REASON = 'SIP;cause=500;text="Process died"'
WARY = BUSY + "connections: {connect_timeout_s: 2}\ndrain_s: 0\n"


async def kill_in_the_middle(proxy: Trunkline, answered: int) -> None:
    """Kill the second worker once so many calls were answered."""
    await asyncio.to_thread(proxy.wait_for, "call-answered", answered, 20.0)
    os.kill(workers_of(proxy)[1], signal.SIGKILL)


async def place(proxy: Trunkline, seed: int, calls: int, hold_ms: int) -> list[CallResult]:
    """Calls from several callers, each with a socket of its own, which the kernel gives to this or that worker."""
    target = f"sip:127.0.0.1:{proxy.port}"
    configs = [
        TwilioConfig(target=target, calls=calls, rate=3.0, hold_ms=hold_ms, media_security="rtp", seed=seed + one)
        for one in range(CALLERS)
    ]
    reports = await asyncio.gather(*[place_calls(config) for config in configs])
    # A caller that hangs up before its lost call was ended for it hears 481.
    assert {kind for report in reports for kind in report.unexpected} <= {"BYE answered 481"}
    return [result for report in reports for result in report.results]


def ends_of(events: list[dict[str, Any]], worker: str) -> int:
    """How many calls of a worker have ended."""
    return len([event for event in events if event["event"] == "call-end" and event["call"][0] == worker])


def lost_sids(events: list[dict[str, Any]]) -> Mapping[str, dict[str, Any]]:
    """The ends of calls that were recorded by somebody else, by CallSid."""
    return {event["twilio_call_sid"]: event for event in events if event["event"] == "call-end" and event.get("lost")}


@pytest.mark.timeout(150)
async def test_only_its_calls_are_lost_and_both_sides_are_told(tmp_path: Path) -> None:
    async with OpenAiSim(OpenAiConfig(listen=("udp:127.0.0.1:0",), answer_after_ms=100)) as openai:
        target = f"sip:proj_x@127.0.0.1:{openai.listeners[0].port};transport=udp"
        with running_trunkline(tmp_path, target, *FLAGS, config=BUSY) as proxy:
            first = workers_of(proxy)[0]
            kill = asyncio.create_task(kill_in_the_middle(proxy, 16))
            results = await place(proxy, 0, CALLS_EACH, 4000)
            await kill
            assert workers_of(proxy)[0] == first
            assert len(workers_of(proxy)) == 2, "it has a successor"
            for turn in range(1, 10):
                await place(proxy, 100 * turn, 1, 10)
                if ends_of(proxy.events(), "1") > len(lost_sids(proxy.events())):
                    break
            else:
                raise AssertionError("its successor takes no calls")
        events = proxy.events()
        records: dict[str, list[CallRecord]] = {}
        for record in openai.records:
            records.setdefault(record.key, []).append(record)
    lost = lost_sids(events)
    sent = [event for event in events if event["event"] == "message" and event["direction"] == "out"]
    told = {event["call"] for event in sent if event["leg"] == "a" and REASON in event["message"]}
    by_sid = {result.call_sid: result for result in results}
    assert len(by_sid) == CALLERS * CALLS_EACH
    assert len(lost) > 3
    assert {event["call"][0] for event in lost.values()} == {"1"}, "only calls of the worker that was killed"
    for sid, result in by_sid.items():
        if sid in lost and sid not in records:
            assert result.status == 503, "the target never heard of it"
            continue
        last = records[sid][-1]
        if sid not in lost:
            assert (result.kind, result.ended_by, last.ended_by) == ("answered", "caller", "caller"), sid
            assert "Process died" not in last.bye_reason
        elif lost[sid]["outcome"] == "answered":
            assert result.kind == "answered"
            assert result.ended_by in ("callee", "caller"), "the caller got a BYE, or hung up before"
            assert lost[sid]["call"] in told, "the caller was sent one in any case"
            assert (last.ended_by, last.bye_reason) == ("caller", REASON), "the target got a BYE"
        else:
            assert result.status == 503
            assert last.cancelled or last.ended_by == "caller"
    assert '"event":"worker-died"' in proxy.output()


ROUTED = """INVITE sip:+15550100001@127.0.0.1 SIP/2.0
Via: SIP/2.0/TCP 127.0.0.1:{edge};branch=z9hG4bKdeath{number}
Record-Route: <sip:127.0.0.1:{edge};transport=tcp;lr>
From: <sip:+15550100002@192.0.2.10>;tag=caller{number}
To: <sip:+15550100001@127.0.0.1>
Call-ID: death{number}
CSeq: 1 INVITE
Max-Forwards: 70
Contact: <sip:+15550100002@172.25.75.240:5060;transport=udp>
X-Twilio-CallSid: CA{number}"""


class Edge:
    """Where the caller's carrier takes connections."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(40)
        self.port: int = self.socket.getsockname()[1]

    def close(self) -> None:
        self.socket.close()

    def requests(self, count: int) -> list[Request]:
        """So many requests, from as many connections as it takes."""
        found: list[Request] = []
        while len(found) < count:
            connection, _ = self.socket.accept()
            with closing(Line(connection)) as line:
                while len(found) < count and (message := line.next()) is not None:
                    assert isinstance(message, Request)
                    found.append(message)
        return found


def call_by_tcp(proxy: Trunkline, edge: Edge, number: int) -> tuple[Line, str]:
    """A call that is up; its connection, and the worker that has it."""
    line = Line(socket.create_connection(("127.0.0.1", proxy.port), timeout=15))
    start, *headers = ROUTED.format(edge=edge.port, number=number).splitlines()
    line.send(start, headers, OFFER)
    ok = line.final()
    assert ok.status == 200
    return line, (ok.to.tag or "?")[0]


def lose_calls(proxy: Trunkline, kept: ExitStack) -> set[str]:
    """Place calls by TCP, kill a worker; the Call-IDs that got a BYE by a new connection are those of its calls.

    What `kept` closes must be open for as long as the other worker's calls are to go on.
    """
    edge = kept.enter_context(closing(Edge()))
    calls: list[tuple[Line, str]] = []
    while len(calls) < 4 or {owner for _, owner in calls} != {"0", "1"}:
        calls.append(call_by_tcp(proxy, edge, len(calls)))
        kept.callback(calls[-1][0].close)
        assert len(calls) < 40
    os.kill(workers_of(proxy)[1], signal.SIGKILL)
    lost = {f"death{number}" for number, (_, owner) in enumerate(calls) if owner == "1"}
    byes = edge.requests(len(lost))
    assert {(bye.method, bye.get("reason")) for bye in byes} == {("BYE", REASON)}
    assert {bye.call_id for bye in byes} == lost
    return {f"CA{name.removeprefix('death')}" for name in lost}


@pytest.mark.timeout(150)
async def test_connections_that_died_with_it_are_made_anew(tmp_path: Path) -> None:
    """The caller's by its route, the target's by its address, though its Contact is elsewhere."""
    sim = OpenAiConfig(
        listen=("tls:127.0.0.1:0",), certificate_dir=tmp_path, answer_after_ms=0, contact_host="nowhere.example:5061"
    )
    async with OpenAiSim(sim) as openai:
        target = f"sip:proj_x@127.0.0.1:{openai.listeners[0].port};transport=tls"
        flags = (*FLAGS, "--tls-ca", str(openai.ca_file))
        with running_trunkline(tmp_path, target, *flags, config=WARY) as proxy, ExitStack() as kept:
            lost = await asyncio.to_thread(lose_calls, proxy, kept)
            for _ in range(600):
                if {one.key for one in openai.records if one.bye_reason == REASON} == lost:
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError([one.bye_reason for one in openai.records])
            left = [one for one in openai.records if one.in_progress]
            assert len(left) == len(openai.records) - len(lost), "the other worker's calls go on"
    assert set(lost_sids(proxy.events())) == lost
