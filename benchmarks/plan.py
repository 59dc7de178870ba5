"""What a session measures, stage by stage. Each stage asks the session for its runs, so that none is done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.copies import ROOT, make_copy
from benchmarks.devices import DEVICES, Device
from benchmarks.load import Load, LoadError, Result, run_load
from benchmarks.micro import read
from benchmarks.session import Session

__all__ = ["FULL", "QUICK", "STAGES", "Plan", "run_plan"]

_AROUND_S = 3.5
"""What a run takes besides its load: the device's start, 20 calls before, the end."""
_MEMORY_S = 37.0
_PROFILE_S = 10.0
_PROFILE_RATE = 200
_CORE_S = 45.0
_CLEAN = 0.001
"""Messages that may be sent again, per call, at a rate that counts as clean."""
_FIRST_RATE = 200
_LAST_RATE = 6400
_BISECTIONS = 3
STAGES = ("rates", "highest", "half", "steady", "memory", "growth", "parts", "core")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        devices: compared at equal rates, `repetitions` times in turn, so that a slow minute of the machine hits all.
        rates: calls a second. seconds: length of a run.
        searched: devices whose highest clean rate is searched.
        remembered: devices whose memory per call is taken, with `hold` calls.
        steady_s: length of the steady runs (at half of the highest rate, at `steady_rate`, and with `confirm` at the
            highest rate). steady: the devices.
        beside: calls in progress beside the load. workers: the devices with several workers.
        profiled: devices whose time is split by part of the code.
        stages: see `STAGES`.
    """

    devices: Sequence[str]
    rates: Sequence[int] = (80, 400)
    seconds: float = 6.0
    repetitions: int = 3
    searched: Sequence[str] = ()
    search_s: float = 5.0
    remembered: Sequence[str] = ()
    hold: int = 2000
    steady: Sequence[str] = ()
    steady_s: float = 60.0
    steady_rate: int = 500
    confirm: bool = False
    beside: Sequence[int] = ()
    workers: Sequence[str] = ()
    profiled: Sequence[str] = ()
    stages: Sequence[str] = field(default=STAGES)

    def about_s(self) -> float:
        """About how long all of it takes."""
        each = self.seconds + _AROUND_S
        runs = sum(1 for rate in self.rates for name in self.devices if _within(DEVICES[name], rate))
        cost = {
            "rates": runs * self.repetitions * each,
            "highest": len(self.searched) * _search_about_s(self.search_s),
            "half": len(self.searched) * self.repetitions * each,
            "steady": len(self.steady) * (2 + self.confirm) * (self.steady_s + _AROUND_S),
            "memory": sum(_hold_s(DEVICES[name], self.hold) for name in self.remembered),
            "growth": sum(each + held / 400 for held in self.beside) + len(self.workers) * each,
            "parts": len(self.profiled) * (_PROFILE_S + _AROUND_S),
            "core": 2 * _CORE_S,
        }
        return sum(cost[stage] for stage in self.stages)


_OWN = ("trunkline", "trunkline-store", "trunkline-pure")
QUICK = Plan(
    devices=(*_OWN, "kamailio-topoh", "sippy"),
    seconds=5.0,
    repetitions=2,
    searched=("trunkline",),
    search_s=4.0,
    remembered=("trunkline-all",),
    hold=1000,
    stages=("rates", "highest", "memory"),
)
FULL = Plan(
    devices=(*_OWN, "trunkline-tls", "trunkline-tls-store", "kamailio-topoh", "kamailio", "sippy"),
    searched=("trunkline", "trunkline-store", "kamailio-topoh", "sippy"),
    search_s=4.0,
    remembered=("trunkline", "trunkline-all", "sippy"),
    steady=("trunkline",),
    beside=(10, 1000, 10_000),
    workers=("trunkline", "trunkline-2-workers", "trunkline-4-workers"),
    profiled=_OWN,
)


def _within(device: Device, rate: float) -> bool:
    return not device.most or rate <= device.most


def _search_about_s(seconds: float) -> float:
    return 9 * (seconds + _AROUND_S)


def _hold_rate(device: Device) -> int:
    return 50 if device.most else 400


def _hold_s(device: Device, hold: int) -> float:
    return hold / _hold_rate(device) + _MEMORY_S + 2


class _Runner:
    """Runs the stages of a plan."""

    def __init__(self, plan: Plan, session: Session, copies: Path) -> None:
        self.plan = plan
        self.session = session
        self.copies = copies

    def load(self, key: str, device: Device, load: Load) -> Mapping[str, Any]:
        """The figures of one run, and a line about it where it is new."""

        def work() -> Mapping[str, Any]:
            result = run_load(device, load, self.copies)
            _tell(result)
            return result.to_dict()

        span_s = load.hold / load.rate + _MEMORY_S if load.hold else load.seconds
        return self.session.take(key, span_s + load.beside / 400 + _AROUND_S, work)

    def rates(self) -> None:
        """CPU per call at equal rates."""
        plan = self.plan
        for rate in plan.rates:
            self.say(f"{rate} calls/s")
            for repetition in range(plan.repetitions):
                for name in plan.devices:
                    if _within(DEVICES[name], rate):
                        self.load(f"rate/{name}/{rate}/{repetition}", DEVICES[name], Load(rate, plan.seconds))

    def highest(self) -> None:
        """The highest rate with no failed call: doubled until one is not clean, then halved in between."""
        for name in self.plan.searched:
            self.say(f"highest clean rate of {name}")
            self.search(DEVICES[name])

    def search(self, device: Device) -> int:
        """The highest clean rate found; 0 when already the first one is not clean."""
        best, failed, rate = 0, 0, 20 if device.most else _FIRST_RATE
        while rate <= _LAST_RATE and not failed:
            if self.clean(device, rate):
                best, rate = rate, rate * 2
            else:
                failed = rate
        for _ in range(_BISECTIONS if best and failed else 0):
            rate = (best + failed) // 2
            if self.clean(device, rate):
                best = rate
            else:
                failed = rate
        return best

    def clean(self, device: Device, rate: int) -> bool:
        """Whether a rate is clean. One that is not gets a second chance: the machine may have looked away."""
        for attempt in range(2):
            figures = self.load(f"highest/{device.name}/{rate}/{attempt}", device, Load(rate, self.plan.search_s))
            if "error" not in figures and is_clean(figures):
                return True
        return False

    def half(self) -> None:
        """The same as in `rates` at half of each device's own highest rate."""
        for name in self.plan.searched:
            if rate := self.search(DEVICES[name]) // 2:
                self.say(f"half of the highest rate of {name}")
                for repetition in range(self.plan.repetitions):
                    self.load(f"half/{name}/{rate}/{repetition}", DEVICES[name], Load(rate, self.plan.seconds))

    def steady(self) -> None:
        """A minute at half of the highest rate, and at the rate that one worker is to carry."""
        for name in self.plan.steady:
            highest = self.search(DEVICES[name])
            rates = {"half": highest // 2, "goal": self.plan.steady_rate}
            if self.plan.confirm:
                rates["highest"] = highest
            for what, rate in rates.items():
                if rate:
                    self.say(f"{self.plan.steady_s:.0f} s at {rate} calls/s")
                    self.load(f"steady/{name}/{what}/{rate}", DEVICES[name], Load(rate, self.plan.steady_s))

    def memory(self) -> None:
        """Memory of held calls."""
        self.say(f"{self.plan.hold} calls held")
        for name in self.plan.remembered:
            device = DEVICES[name]
            self.load(f"memory/{name}/{self.plan.hold}", device, Load(_hold_rate(device), 0, hold=self.plan.hold))

    def growth(self) -> None:
        """Cost beside other calls in progress, and with several workers."""
        plan = self.plan
        rate = min(plan.rates)
        high = max(plan.rates)
        for held in plan.beside:
            self.say(f"{rate} calls/s beside {held} calls in progress")
            self.load(f"beside/trunkline/{held}", DEVICES["trunkline"], Load(rate, plan.seconds, beside=held))
        for name in plan.workers:
            self.say(f"{high} calls/s on {name}")
            self.load(f"workers/{name}/{high}", DEVICES[name], Load(high, plan.seconds))

    def parts(self) -> None:
        """Where the time goes."""
        for name in self.plan.profiled:
            self.say(f"{_PROFILE_RATE} calls/s on {name} beside a profiler")
            load = Load(_PROFILE_RATE, _PROFILE_S, profile=True)
            self.load(f"parts/{name}/{_PROFILE_RATE}", DEVICES[name], load)

    def core(self) -> None:
        """What grows inside the core, without sockets; and what its parts cost."""
        for compiled in (True, False):
            kind = "compiled" if compiled else "pure"
            self.say(f"inside the core, {kind}")
            self.session.take(f"core/{kind}", _CORE_S, lambda compiled=compiled: self._core(compiled))  # type: ignore[misc]

    def _core(self, compiled: bool) -> Mapping[str, Any]:
        copy = make_copy(self.copies, compiled=compiled)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "micro.json"
            inherited = ("--inherit-environ", "PYTHONPATH", "--quiet", "-o", str(file))
            _module(copy, "benchmarks.micro", *inherited)
            grown = json.loads(_module(copy, "benchmarks.growth", "--json"))
            return {**grown, "parts": read(file)}

    def say(self, what: str) -> None:
        """What comes now, and how long all will take."""
        print(f"{what} ({self.session.left()})", flush=True)


def _module(copy: Path, name: str, *arguments: str) -> str:
    """What a module of ours prints, run on a copy of the tree."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", name, *arguments]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def is_clean(figures: Mapping[str, Any]) -> bool:
    """Whether a run had no failed call, (almost) nothing was sent again, and the generator kept its rate."""
    calls = figures["calls"]
    held = figures["per_second"] >= 0.95 * figures["rate"]
    return bool(
        figures["completed"] == calls and not figures["failed"] and held and figures["retransmitted"] <= _CLEAN * calls
    )


def run_plan(plan: Plan, session: Session, copies: Path) -> None:
    """Run all stages."""
    runner = _Runner(plan, session, copies)
    for stage in plan.stages:
        getattr(runner, stage)()


def _tell(result: Result) -> None:
    """One line of progress."""
    if result.bytes_per_call:
        print(f"  {result.device:20} {result.bytes_per_call / 1024:6.1f} KB per call in progress", flush=True)
        return
    ringing = result.ringing_ms.get("99")
    notes = [f"ringing p99 {ringing:.1f} ms"] if ringing is not None else []
    if not result.rate_held:
        notes.append(f"only {result.per_second:.0f} calls/s could be placed")
    if result.others_share > 0.05:
        notes.append(f"other processes took {result.others_share:.0%} of the machine")
    print(
        f"  {result.device:20} {result.rate:5.0f}/s  {result.completed:6}/{result.calls} calls, "
        f"{result.failed} failed, {result.retransmitted} sent again, {result.cpu_ms:.2f} ms CPU per call, "
        f"{', '.join(notes)}",
        flush=True,
    )
