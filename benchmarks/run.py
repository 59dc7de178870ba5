"""`make bench`: the devices of `benchmarks.devices` under the same load, one after another, and a report.

CPU ms per call is the figure to compare, at equal rates only. See docs/capacity.md for what each figure means.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.copies import fingerprint, make_copy
from benchmarks.devices import DEVICES, Trunkline
from benchmarks.figures import figures_of
from benchmarks.machine import describe
from benchmarks.plan import FULL, QUICK, STAGES, Plan, run_plan
from benchmarks.report import OUT, write_report
from benchmarks.session import Session

_UNUSABLE = 2


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare Trunkline with its peers on this machine; what is not installed is left out.",
        epilog=f"devices: {', '.join(DEVICES)}",
    )
    parser.add_argument("--quick", action="store_true", help="about 4 minutes: fewer devices, stages and repetitions")
    parser.add_argument("--devices", type=_names, help="comma-separated: compare these at equal rates, and no others")
    parser.add_argument("--rates", type=_numbers, help="calls per second at which CPU per call is taken: 80,400")
    parser.add_argument("--seconds", type=float, help="length of one run at these rates")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--hold", type=int, help="calls held for the memory figure: 2000")
    parser.add_argument("--stages", help=f"comma-separated, of {', '.join(STAGES)}")
    parser.add_argument("--confirm", action="store_true", help="a minute at the highest clean rate too")
    parser.add_argument("--resume", action="store_true", help="go on where the last session was interrupted")
    parser.add_argument("--out", type=Path, default=OUT, help="where the report goes; default: bench-out")
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in DEVICES]:
        raise argparse.ArgumentTypeError(f"unknown device {', '.join(unknown)}; there are: {', '.join(DEVICES)}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _plan(options: argparse.Namespace) -> Plan:
    """The plan that the options ask for."""
    plan = QUICK if options.quick else FULL
    named = {
        name: value
        for name in ("devices", "rates", "seconds", "repetitions", "hold")
        if (value := getattr(options, name)) is not None
    }
    plan = replace(plan, **named, confirm=options.confirm)
    if options.devices:
        chosen: dict[str, Any] = {
            name: [device for device in getattr(plan, name) if device in options.devices] for name in _LISTS
        }
        plan = replace(plan, **chosen, stages=[stage for stage in plan.stages if stage not in ("growth", "core")])
    if options.stages:
        wanted = options.stages.split(",")
        if unknown := [stage for stage in wanted if stage not in STAGES]:
            raise SystemExit(f"unknown stage {', '.join(unknown)}; there are: {', '.join(STAGES)}")
        plan = replace(plan, stages=[stage for stage in STAGES if stage in wanted])
    return plan


_LISTS = ("searched", "remembered", "steady", "workers", "profiled")


def _without_absent(plan: Plan) -> tuple[Plan, dict[str, str]]:
    """The plan without devices that need what is not installed, and why each of them is left out."""
    absent: dict[str, str] = {}
    kept: dict[str, Any] = {}
    for name in ("devices", *_LISTS):
        kept[name] = []
        for device in getattr(plan, name):
            missing = DEVICES[device].missing
            if missing:
                absent[device] = f"needs {', '.join(missing)}"
            else:
                kept[name].append(device)
    return replace(plan, **kept), absent


def main() -> None:
    """Run it all."""
    options = _parse()
    if os.geteuid() != 0 or not shutil.which("sipp"):
        sys.exit("benchmarks need root, for the time stamps of packets, and SIPp (`make system-tools` brings it)")
    plan, absent = _without_absent(_plan(options))
    for name, why in absent.items():
        print(f"left out: {name} ({why}; `make bench-peers` brings it)", file=sys.stderr)
    out: Path = options.out
    copies = out / "copies"
    used = [DEVICES[name] for name in {*plan.devices, *(name for kind in _LISTS for name in getattr(plan, kind))}]
    try:
        for compiled in sorted({device.compiled for device in used if isinstance(device, Trunkline)}):
            make_copy(copies, compiled=compiled)
    except subprocess.CalledProcessError:
        sys.exit("the core can't be compiled: see above. Without a C compiler: --devices trunkline-pure,kamailio,sippy")
    session = Session(out, resume=options.resume, planned_s=plan.about_s())
    print(f"This takes about {plan.about_s() / 60:.0f} minutes. Ctrl-C stops; --resume goes on.", flush=True)
    interrupted = False
    try:
        run_plan(plan, session, copies)
    except KeyboardInterrupt:
        interrupted = True
    report = {
        "machine": describe(),
        "taken": datetime.now(UTC).date().isoformat(),
        "source": fingerprint(),
        "seconds": plan.seconds,
        "repetitions": plan.repetitions,
        "absent": absent,
        **figures_of(session.runs, {name: device.what for name, device in DEVICES.items()}),
    }
    write_report(report, out)
    print(f"\n{(out / 'tables.md').read_text()}\nAll of it is in {out}.")
    if interrupted:
        sys.exit("interrupted: --resume goes on from here")


if __name__ == "__main__":
    main()
