"""An exported call drawn by tshark and by sngrep is the call that we draw: over every transport, with a retry."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from proxy.ladder import call_ladder
from proxy.rehearsal import WALL_OFFSET
from proxy.storage.pcap import pcap_of
from proxy.storage.queries import StoreReader
from proxy.storage.sink import StoreSettings, StoreSink
from tests.support.bench import ANSWER, CALLER, OURS, TARGET, Bench
from tests.support.terminal import terminal

DOWN = "\x1bOB"
_Tool = Callable[[str], str]


class Step(NamedTuple):
    """An arrow: `<` or `>`, on the caller's side or on the target's, and what it is: a method, or a status."""

    side: str
    direction: str
    word: str


def bench_call(caller: str, target: str) -> Bench:
    """A call whose first attempt is refused, whose second one rings and is answered, with a request in it."""
    bench = Bench(caller_transport=caller, transport=target)
    bench.invite()
    bench.respond(100)
    bench.respond(400, "Bad Request")
    bench.advance(1.0)
    bench.respond(180, "Ringing")
    bench.advance(0.5)
    bench.respond(200, "OK", body=ANSWER)
    bench.caller_request("ACK")
    bench.advance(2.0)
    bench.caller_request("INFO", body="x", content_type="text/plain")
    bench.respond(200, "OK", request=bench.requests("INFO")[-1])
    bench.target_request("BYE")
    bench.caller_answers(bench.caller_requests("BYE")[-1], 200, reason="OK")
    return bench


@pytest.fixture(params=[("udp", "udp"), ("tcp", "tls"), ("tls", "tcp"), ("tls", "tls")], ids="-".join)
def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[Step]]:
    """A capture of the call, and its arrows as our ladder has them."""
    sink = StoreSink(StoreSettings(tmp_path / "calls.db"), wall_offset=WALL_OFFSET)
    for event in bench_call(*request.param).events:
        sink.emit(event)
    assert sink.flush()
    sink.close()
    with StoreReader(tmp_path / "calls.db") as reader:
        events = reader.timeline(reader.calls()[0].key)
    transports = {event["flow"].partition(":")[0] for event in events if event["event"] == "message"}
    assert transports == set(request.param)
    capture = tmp_path / "call.pcap"
    capture.write_bytes(pcap_of(events))
    return capture, [step for line in call_ladder(events) if (step := our_step(line.plain))]


def our_step(line: str) -> Step | None:
    """The arrow in a line of our ladder."""
    found = re.search(r"(◀─+ |─ )(\S+).*?( ─+▶| ─│| ─$)", line)
    if found is None:
        return None
    side = "caller" if found.start() < 35 else "target"
    return Step(side, "<" if found[1].startswith("◀") else ">", found[2])


def test_tshark_draws_the_same_ladder(drawn: tuple[Path, list[Step]], require_tool: _Tool) -> None:
    capture, ours = drawn
    command = [require_tool("tshark"), "-r", str(capture), "-q", "-z", "flow,any,network"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    # Three columns, the callers' and the target's addresses in the first line, ours between them in the second.
    assert lines[0].split() == ["|Time", "|", CALLER[0], "|", TARGET[0], "|"]
    assert OURS[0] in lines[1]
    steps: list[Step] = []
    for text, arrow in zip(lines[2::2], lines[3::2], strict=False):
        word = re.search(r"(?:Request|Status): (\S+)", text)
        if word is not None:
            side = "caller" if arrow.index("(") < 20 else "target"
            steps.append(Step(side, ">" if "->" in arrow else "<", word[1]))
    assert steps == ours
    assert len(steps) == 20


def test_sngrep_draws_the_same_ladder(drawn: tuple[Path, list[Step]], require_tool: _Tool) -> None:
    """As an operator does it: choose the three dialogs of the call (ours with the caller, and one for each attempt)."""
    capture, ours = drawn
    with terminal([require_tool("sngrep"), "-r", "-I", str(capture)]) as screen:
        screen.wait(lambda lines: any("Dialogs: 3" in line for line in lines))
        for number in range(1, 4):
            screen.press(" ")
            screen.wait(lambda lines, number=number: sum("[*]" in line for line in lines) == number)  # type: ignore[misc]
            screen.press(DOWN)
        screen.press("\r")
        lines = screen.wait(lambda lines: len(sngrep_steps(lines)) == len(ours))
    assert sngrep_steps(lines) == ours


def sngrep_steps(lines: list[str]) -> list[Step]:
    """The arrows of sngrep's call flow: a line with the word above one with the arrow, between columns of addresses."""
    heads = next((line for line in lines if line.count(":5060") > 2), "")
    columns = [(found.start() + len(found[0]) // 2, found[0]) for found in re.finditer(r"[0-9.]+:5060", heads)]
    steps: list[Step] = []
    for above, line in pairwise(lines):
        found = re.search(r"x (<?)q{6,}(>?) x", line)
        if found is None:
            continue
        left, right = [min(columns, key=lambda one: abs(one[0] - end))[1] for end in (found.start(), found.end() - 1)]
        source, target = (left, right) if found[2] else (right, left)
        other = target if source.startswith(OURS[0]) else source
        side = "caller" if other.startswith(CALLER[0]) else "target"
        outwards = (side == "caller") == (other == source)
        steps.append(Step(side, ">" if outwards else "<", above[found.start() :].strip(" x").split()[0]))
    return steps
