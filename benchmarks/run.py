"""`make bench`: the devices of `benchmarks.devices` under the same load, one after another, and a report.

CPU ms per call is the figure to compare, at equal rates only. See docs/capacity.md for what each figure means.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path

from benchmarks.devices import DEVICES, Device
from benchmarks.load import Result, run_load
from benchmarks.report import write_report

OUT = Path(__file__).resolve().parents[1] / "bench-out"
LADDER = (100, 200, 300, 400, 500, 600, 700, 800, 1000, 1200, 1400, 1600)


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}


def spread(figures: list[float]) -> list[float]:
    """The lowest, the median and the highest, rounded."""
    return [round(figure, 3) for figure in (min(figures), statistics.median(figures), max(figures))]


def highest_rate(device: Device, seconds: float) -> int:
    """The highest rate of the ladder with no failed call; 0 when already the lowest has one."""
    clean = 0
    for rate in LADDER:
        if device.most and rate > device.most:
            break
        result = run_load(device, rate, seconds, sniff=False)
        tell(result)
        if not result.clean:
            break
        clean = rate
    return clean


def tell(result: Result) -> None:
    """One line of progress."""
    ring = result.summary()["ringing_p99_ms"]
    print(
        f"  {result.device:16} {result.rate:6.0f}/s  {result.completed:6}/{result.calls} calls, "
        f"{result.failed} failed, {result.retransmitted} sent again, {result.cpu_ms:.2f} ms CPU per call, "
        f"ringing p99 {ring} ms",
        flush=True,
    )


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description="Compare Trunkline with its peers on this machine.")
    parser.add_argument("--devices", default=",".join(DEVICES), help="comma-separated; default: all that are installed")
    parser.add_argument("--rates", default="80,400", help="calls per second at which CPU per call is taken")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of one run")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--no-maximum", action="store_true", help="leave out the search for the highest clean rate")
    parser.add_argument("--no-memory", action="store_true", help="leave out the held calls")
    parser.add_argument("--hold", type=int, default=2000, help="calls held for the memory figure")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rates = [int(rate) for rate in options.rates.split(",") if rate]
    devices = [DEVICES[name] for name in options.devices.split(",")]
    absent = [device.name for device in devices if not device.present]
    devices = [device for device in devices if device.present]
    if absent:
        print(f"not installed: {', '.join(absent)}", file=sys.stderr)
    report: dict[str, object] = {"machine": machine(), "seconds": options.seconds, "absent": absent}
    rows: dict[str, dict[str, object]] = {device.name: {"what": device.what} for device in devices}
    report["devices"] = rows
    results: list[Result] = []
    # The repetitions go round, so that a slow minute of the machine hits every device alike.
    for rate in rates:
        print(f"{rate} calls/s")
        for _ in range(options.repetitions):
            for device in devices:
                if not device.most or rate <= device.most:
                    results.append(run_load(device, rate, options.seconds))
                    tell(results[-1])
    for device in devices:
        row = rows[device.name]
        for rate in rates:
            mine = [result for result in results if result.device == device.name and result.rate == rate]
            if mine:
                row[f"at_{rate}"] = _figures(mine)
    if not options.no_maximum:
        print("highest clean rate")
        for device in devices:
            best = highest_rate(device, min(options.seconds, 15.0))
            rows[device.name]["highest_clean_rate"] = best
            if best:
                half = [run_load(device, best / 2, options.seconds)]
                tell(half[0])
                rows[device.name]["at_half"] = {"rate": best / 2, **_figures(half)}
    if not options.no_memory:
        print(f"{options.hold} calls held")
        for device in devices:
            rate = 50 if device.most else 200
            held = run_load(device, rate, 0, sniff=False, hold=options.hold)
            rows[device.name]["kb_per_call"] = round(held.bytes_per_call / 1024, 1)
            print(f"  {device.name:16} {held.bytes_per_call / 1024:.1f} KB per call in progress", flush=True)
    write_report(report, results, options.out)
    print(f"\n{(options.out / 'table.md').read_text()}\nAll of it is in {options.out}.")


def _figures(mine: list[Result]) -> dict[str, object]:
    """The repetitions of one device at one rate."""
    added = [figure for result in mine for figure in result.added_ms]
    out: dict[str, object] = {
        "cpu_ms": spread([result.cpu_ms for result in mine]),
        "failed": sum(result.failed for result in mine),
        "retransmitted": sum(result.retransmitted for result in mine),
        "runs": [result.summary() for result in mine],
    }
    for share in (50, 95, 99):
        if added:
            ordered = sorted(added)
            out[f"added_p{share}_ms"] = round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 3)
    rings = [summary for result in mine if (summary := result.summary()["ringing_p99_ms"]) is not None]
    out["ringing_p99_ms"] = [json.loads(str(ring)) for ring in rings]
    return out


if __name__ == "__main__":
    main()
