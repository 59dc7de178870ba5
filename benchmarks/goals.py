"""What the figures mean: what to plan with, whether the goals are reached, and the table for the front page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.report import NONE, Report, markdown_table, ranged, shares

__all__ = ["capacity_table", "goals_table", "readme_table"]

_RATE_MARGIN = 2.0
_MEMORY_MARGIN = 1.5
_FRONT = ("trunkline", "trunkline-store", "trunkline-pure", "kamailio-topoh", "kamailio", "sippy")
_GB_KB = 1024 * 1024


def _device(report: Report, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = report["devices"].get(name, {"at": {}})
    return found


def _cpu(report: Report, name: str, rate: str) -> float | None:
    at = _device(report, name)["at"].get(rate)
    return float(at["cpu_ms"][1]) if at is not None else None


def capacity_table(report: Report) -> str:
    """What one worker carries, and what to plan with: half of the highest rate, and half as much memory again."""
    rows: list[list[str]] = []
    for name, what in (("trunkline", "call store off"), ("trunkline-store", "call store on (the default)")):
        highest, half = _device(report, name).get("highest"), _device(report, name).get("half")
        if highest is None:
            continue
        plan = highest["rate"] / _RATE_MARGIN
        rows.append([f"new calls a second, {what}", f"{highest['rate']}", f"{plan:.0f} per core"])
        if half is not None:
            added = f"{shares(half['added_ms'], '50', '99')} ms"
            rows.append([f"what that adds to an INVITE, p50 / p99, {what}", f"{added} at {half['rate']:.0f}/s", ""])
    for name, what in (("trunkline", "call store off"), ("trunkline-all", "TLS, call store, dashboard")):
        kb = _device(report, name).get("kb_per_call")
        if kb:
            each = kb * _MEMORY_MARGIN
            plan_text = f"{each:.0f} KB: {_GB_KB / each // 1000 * 1000:.0f} calls in progress per GB"
            rows.append([f"memory of a call in progress, {what}", f"{kb:.1f} KB", plan_text])
    return markdown_table(["of one worker, compiled core", "measured", "plan with"], rows)


def goals_table(report: Report) -> str:
    """The goals of this version beside what is reached."""
    rows = [[goal, f"{'yes' if reached else 'no'}: {text}"] for goal, reached, text in _goals(report)]
    return markdown_table(["goal", "reached"], rows)


def _goals(report: Report) -> Iterator[tuple[str, bool, str]]:
    sippy, own = _cpu(report, "sippy", "80"), _cpu(report, "trunkline", "80")
    if sippy and own:
        yield "at 80 calls/s at most 1/6 of Sippy's CPU per call", own * 6 <= sippy, f"1/{sippy / own:.1f}"
    for rate in ("80", "400"):
        own, peer, store = (_cpu(report, name, rate) for name in ("trunkline", "kamailio-topoh", "trunkline-store"))
        if own and peer:
            yield f"at {rate} calls/s not more than Kamailio with topoh", own <= peer, f"{own / peer:.2f} times as much"
        if own and store:
            goal = f"at {rate} calls/s with the call store at most 1.4 times the figure without"
            yield goal, store <= 1.4 * own, f"{store / own:.2f} times"
        tls = _cpu(report, "trunkline-tls", rate)
        if own and tls:
            goal = f"at {rate} calls/s a TLS target at most 1.5 times UDP, on a kept connection"
            yield goal, tls <= 1.5 * own, f"{tls / own:.2f} times"
    steady = _device(report, "trunkline").get("steady", {})
    half, goal_run = steady.get("half"), steady.get("goal")
    if half:
        p99 = half["ringing_ms"].get("99", float("inf"))
        good = not half["failed"] and not half["retransmitted"] and p99 < 10
        text = f"{half['failed']} failed, {half['retransmitted']} sent again, {p99:.1f} ms at {half['rate']:.0f}/s"
        yield (
            f"{half['seconds']:.0f} s at half of the highest rate: none failed or sent again, p99 under 10 ms",
            good,
            text,
        )
    if goal_run:
        good = goal_run["completed"] == goal_run["calls"] and not goal_run["failed"]
        text = f"{goal_run['failed']} of {goal_run['calls']} failed, {goal_run['retransmitted']} sent again"
        yield f"{goal_run['seconds']:.0f} s at {goal_run['rate']:.0f} calls/s on one worker: no failed call", good, text
    kb = _device(report, "trunkline-all").get("kb_per_call")
    if kb:
        yield "at most 24 KB per call in progress with everything on", kb <= 24, f"{kb:.1f} KB"


def readme_table(report: Report) -> str:
    """The front page's: CPU per call at equal rates, what is added to an INVITE, the highest rate."""
    rates = sorted({rate for row in report["devices"].values() for rate in row["at"]}, key=int)
    heads = ["", *(f"{rate} calls/s" for rate in rates), *(f"added p50 / p99 at {rate}/s" for rate in rates[:1])]
    rows: list[list[str]] = []
    for name in _FRONT:
        row = report["devices"].get(name)
        if row is None or not row["at"]:
            continue
        cells = [f"{name}: {row['what']}"]
        cells += [ranged(row["at"][rate]["cpu_ms"]) if rate in row["at"] else NONE for rate in rates]
        first = row["at"].get(rates[0])
        cells.append(f"{shares(first['added_ms'], '50', '99')} ms" if first is not None else NONE)
        rows.append(cells)
    return markdown_table([*heads], rows)
