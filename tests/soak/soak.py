"""Good and bad traffic through a real `trunkline run` for a while: `python -m tests.soak.soak SECONDS [FLAGS]`.

Traffic runs for that time, two fifths of it to warm up; after both parts everything may come to rest. Memory has to
return to where it was after the warm-up, and every table has to be empty.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.sim.faults import Faults
from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.report import Report
from proxy.sim.twilio import TwilioConfig, place_calls
from tests.soak.traffic import FRIEND, flood, large_heads, lying_lengths, odd_messages, repeat, slow_connections
from tests.support.processes import Trunkline, running_trunkline

__all__ = ["CONFIG", "Sample", "Soak", "sample", "soak"]

CONFIG = """
timers: {t1_s: 0.05, t2_s: 0.4, t4_s: 0.5}
retry: {max_attempts: 4, answer_timeout_s: 2, deadline_s: 8}
connections: {half_message_timeout_s: 2, idle_timeout_s: 3, first_message_timeout_s: 2}
tls: {verify: false}
calls: {ring_timeout_s: 10}
"""
REST_S = 9.0
"""Longer than every timer that these settings allow, than the memory of rejections (120*T1) and of UDP peers."""


@dataclass(slots=True)
class Sample:
    """A line of `tables`, `at_s` seconds after the start."""

    at_s: float
    what: str
    memory_bytes: int
    tables: dict[str, int]
    counters: dict[str, int]

    def row(self) -> str:
        """One line of the report."""
        busy = ", ".join(f"{name} {size}" for name, size in self.tables.items() if size) or "all empty"
        return f"{self.at_s:7.1f} s  {self.memory_bytes / 2**20:7.1f} MiB  {self.what:8}  {busy}"


@dataclass(slots=True)
class Soak:
    """What came of it."""

    samples: list[Sample] = field(default_factory=list)
    calls: int = 0
    answered: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)

    @property
    def before(self) -> Sample:
        """At rest after the warm-up."""
        return next(one for one in self.samples if one.what == "at rest")

    @property
    def after(self) -> Sample:
        """At rest at the end."""
        return self.samples[-1]

    @property
    def growth(self) -> float:
        """The share by which memory has grown."""
        return self.after.memory_bytes / self.before.memory_bytes - 1

    @property
    def left(self) -> dict[str, int]:
        """What tables still hold at the end."""
        return {name: size for name, size in self.after.tables.items() if size}

    def text(self) -> str:
        """The report."""
        lines = [one.row() for one in self.samples]
        lines += [
            f"calls: {self.calls}, answered: {self.answered}, outcomes: {self.outcomes}",
            f"bad traffic: {self.bad}",
            f"counters: {self.after.counters}",
            f"memory: {self.before.memory_bytes / 2**20:.1f} MiB, then {self.after.memory_bytes / 2**20:.1f} MiB: "
            f"{self.growth:+.1%}",
            f"left in tables: {self.left or 'nothing'}",
        ]
        return "\n".join(lines)


async def sample(proxy: Trunkline, what: str, started: float) -> Sample:
    """Have the sizes of all tables logged, and read them."""
    known = len(_lines(proxy))
    proxy.process.send_signal(signal.SIGUSR1)
    for _ in range(200):
        await asyncio.sleep(0.05)
        lines = _lines(proxy)
        if len(lines) > known:
            line = lines[-1]
            return Sample(time.monotonic() - started, what, line["memory_bytes"], line["tables"], line["counters"])
    raise AssertionError("no answer to SIGUSR1")


def _lines(proxy: Trunkline) -> list[dict[str, Any]]:
    return [json.loads(line) for line in proxy.output().splitlines() if '"event":"tables"' in line]


async def _bad(port: int, seconds: float, soak: Soak) -> None:
    async def round_of(number: int) -> None:
        await asyncio.gather(
            flood(port, 400, 400, seed=number),
            slow_connections(port, 10, 1.0),
            slow_connections(port, 10, 1.0, FRIEND),
            odd_messages(port, seed=number),
            large_heads(port, 4, FRIEND),
            lying_lengths(port, 6, FRIEND),
        )

    rounds = await repeat(seconds, round_of)
    soak.bad["rounds"] = soak.bad.get("rounds", 0) + rounds
    soak.bad["datagrams"] = soak.bad.get("datagrams", 0) + 400 * rounds
    soak.bad["slow connections"] = soak.bad.get("slow connections", 0) + 20 * rounds


async def _traffic(proxy: Trunkline, seconds: float, rate: float, soak: Soak, seed: int) -> None:
    """Calls by UDP and TCP, some cancelled, some odd, with bad traffic beside them."""

    def config(transport: str, **rest: Any) -> TwilioConfig:
        return TwilioConfig(
            target=f"sip:127.0.0.1:{proxy.port};transport={transport}",
            calls=max(int(seconds * rate / 2), 1),
            rate=rate / 2,
            hold_ms=400,
            seed=seed,
            problem_share=0.3,
            cancel_share=0.1,
            cancel_after_ms=5,
            patience_s=15,
            **rest,
        )

    results = await asyncio.gather(
        place_calls(config("udp")), place_calls(config("tcp", connections=4)), _bad(proxy.port, seconds, soak)
    )
    for report in results[:2]:
        assert isinstance(report, Report)
        soak.calls += len(report.results)
        for result in report.results:
            soak.answered += result.kind == "answered"
            soak.outcomes[result.outcome] = soak.outcomes.get(result.outcome, 0) + 1


async def soak(directory: Path, seconds: float, *flags: str, rate: float = 20.0, warm_up_s: float = 10.0) -> Soak:
    """Run it all. `seconds` is for the traffic between the two measurements; `flags` are for `trunkline run`."""
    result = Soak()
    started = time.monotonic()
    faults = Faults(bad_request=0.1, unavailable=0.05, reset=0.03, silent=0.02, seed=7)
    config = OpenAiConfig(listen=("tcp:127.0.0.1:0",), answer_after_ms=20, ringing_after_ms=5, faults=faults)
    sim = OpenAiSim(config)
    await sim.start()
    try:
        quiet = ("--events", "/dev/null", "--log-level", "info", *flags)
        with running_trunkline(directory, sim.uri("tcp"), *quiet, config=CONFIG, allow=FRIEND) as proxy:
            await _traffic(proxy, warm_up_s, rate, result, 0)
            result.samples.append(await sample(proxy, "warm", started))
            await asyncio.sleep(REST_S)
            result.samples.append(await sample(proxy, "at rest", started))
            steps = max(round(seconds / 30), 2)
            for step in range(steps):
                await _traffic(proxy, seconds / steps, rate, result, step + 1)
                result.samples.append(await sample(proxy, "busy", started))
            await sim.stop()
            await asyncio.sleep(REST_S)
            result.samples.append(await sample(proxy, "at rest", started))
    finally:
        await sim.stop()
    return result


def main() -> None:
    """Run for the given time and print the report; the exit code is 1 when memory has grown or a table is not empty."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    with tempfile.TemporaryDirectory() as directory:
        # The call store takes its memory within the first minutes (caches, and arenas of its threads), then no more.
        result = asyncio.run(soak(Path(directory), 0.6 * seconds, *sys.argv[2:], warm_up_s=0.4 * seconds))
    sys.stdout.write(result.text() + "\n")
    sys.exit(bool(result.left) or result.growth > 0.05)


if __name__ == "__main__":
    main()
