"""Strangers at 127.0.0.2 do their worst while calls from 127.0.0.1 are placed: `python -m tests.soak.attack`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.report import Report
from proxy.sim.twilio import TwilioConfig, place_calls
from tests.soak.soak import Sample, sample
from tests.soak.traffic import FRIEND, flood, forged_byes, large_heads, lying_lengths, slow_connections
from tests.support.processes import Trunkline, running_trunkline

__all__ = ["Attack", "attack"]

DATAGRAMS = 20_000
SLOW = 200
_CONFIG = "connections: {half_message_timeout_s: 3, first_message_timeout_s: 3}\n"


@dataclass(slots=True)
class Attack:
    """What came of it; times in ms. `added_ms` is the set-up time less that of the target itself."""

    quiet: Report
    under_attack: Report
    answer_after_ms: float
    closed_slow: int
    seconds: float
    end: Sample
    kinds: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """The report."""
        lines = []
        for name, report in (("quiet", self.quiet), ("under attack", self.under_attack)):
            lines.append(
                f"{name}: {report.answered} of {report.calls} calls answered, set-up p50 {report.setup_ms.p50:.1f} ms, "
                f"p95 {report.setup_ms.p95:.1f} ms, added p95 {self.added_ms(report):.1f} ms"
            )
        ratio = self.added_ms(self.under_attack) / max(self.added_ms(self.quiet), 0.001)
        lines.append(f"added set-up p95: {ratio:.2f} times that of quiet")
        lines.append(f"attack: {self.kinds} within {self.seconds:.1f} s; {self.closed_slow} of {SLOW} slow ones closed")
        lines.append(f"counters: {self.end.counters}")
        return "\n".join(lines)

    def added_ms(self, report: Report) -> float:
        """The set-up time that was added, p95."""
        return max(report.setup_ms.p95 - self.answer_after_ms, 0.0)


async def attack(directory: Path, calls: int = 100, rate: float = 20.0) -> Attack:
    """Place calls in quiet, then as many under attack."""
    answer_after_ms = 20.0
    sim = OpenAiSim(OpenAiConfig(listen=("udp:127.0.0.1:0",), answer_after_ms=answer_after_ms))
    started = time.monotonic()
    async with sim:
        quiet = ("--events", "/dev/null", "--log-level", "info")
        with running_trunkline(directory, sim.uri("udp"), *quiet, config=_CONFIG, allow=FRIEND) as proxy:
            await place_calls(_calls(proxy, 40, rate))  # warm up
            before = await place_calls(_calls(proxy, calls, rate))
            begun = time.monotonic()
            results = await asyncio.gather(
                place_calls(_calls(proxy, calls, rate)),
                slow_connections(proxy.port, SLOW, calls / rate),
                flood(proxy.port, DATAGRAMS, DATAGRAMS * rate / calls),
                forged_byes(proxy.port, 200, lambda: [record.sip_call_id for record in sim.records[-20:]]),
                large_heads(proxy.port, 40),
                lying_lengths(proxy.port, 60),
            )
            seconds = time.monotonic() - begun
            end = await sample(proxy, "after", started)
    kinds = {"datagrams": DATAGRAMS, "slow connections": SLOW, "forged BYEs": 200, "64 KB heads": 80, "lies": 60}
    return Attack(before, results[0], answer_after_ms, results[1], seconds, end, kinds)


def _calls(proxy: Trunkline, calls: int, rate: float) -> TwilioConfig:
    return TwilioConfig(
        target=f"sip:127.0.0.1:{proxy.port};transport=udp", calls=calls, rate=rate, hold_ms=500, patience_s=20
    )


def main() -> None:
    """Run it and print the report; the exit code is 1 when a call failed."""
    with tempfile.TemporaryDirectory() as directory:
        result = asyncio.run(attack(Path(directory)))
    sys.stdout.write(result.text() + "\n")
    sys.exit(result.under_attack.answered != result.under_attack.calls)


if __name__ == "__main__":
    main()
