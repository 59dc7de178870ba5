"""From the runs of a session to the figures of its report."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.plan import is_clean

__all__ = ["figures_of"]

Run = Mapping[str, Any]


def figures_of(runs: Mapping[str, Run], whats: Mapping[str, str]) -> dict[str, Any]:
    """All figures by device and kind.

    `runs` have keys `kind/device/…`, as `benchmarks.plan` gives them; `whats` says what each device is.
    """
    parts = [(key.split("/"), run) for key, run in runs.items()]
    good = [(names, run) for names, run in parts if "error" not in run]
    devices: dict[str, dict[str, Any]] = {
        name: {"what": what, "at": {}} for name, what in whats.items() if any(name in names for names, _ in good)
    }
    for name, figures in devices.items():
        mine = [(names, run) for names, run in good if name in names]
        rates = {names[2] for names, _ in mine if names[0] == "rate"}
        for rate in sorted(rates, key=int):
            figures["at"][rate] = _together([run for names, run in mine if names[::2][:2] == ["rate", rate]])
        probes = [run for names, run in mine if names[0] == "highest"]
        if probes:
            figures["highest"] = _highest(probes)
        halves = [run for names, run in mine if names[0] == "half"]
        if halves:
            figures["half"] = _together(halves)
        steady = {names[2]: _together([run]) for names, run in mine if names[0] == "steady"}
        if steady:
            figures["steady"] = steady
        figures["curve"] = _curve([run for names, run in mine if names[0] in ("rate", "highest", "half")])
        for _, run in ((names, run) for names, run in mine if names[0] == "parts"):
            figures["parts"] = run["parts"]
        for _, run in ((names, run) for names, run in mine if names[0] == "memory"):
            figures["kb_per_call"] = round(run["bytes_per_call"] / 1024, 1)
            figures["held"] = run["calls"]
    shares = [run["others_share"] for _, run in good if "others_share" in run]
    return {
        "devices": devices,
        "beside": {names[2]: _together([run]) for names, run in good if names[0] == "beside"},
        "workers": _workers((names, run) for names, run in good if names[0] == "workers"),
        "core": {names[1]: run for names, run in good if names[0] == "core"},
        "others_share": _spread(shares) if shares else None,
        "errors": {key: run["error"] for key, run in runs.items() if "error" in run},
    }


def _spread(figures: Sequence[float]) -> list[float]:
    """The lowest, the median and the highest, rounded."""
    return [round(figure, 3) for figure in (min(figures), statistics.median(figures), max(figures))]


def _together(runs: Sequence[Run]) -> dict[str, Any]:
    """The repetitions of one device at one rate. Of percentiles the median over the repetitions is taken."""
    out: dict[str, Any] = {"rate": runs[0]["rate"], "seconds": round(runs[0]["calls"] / runs[0]["rate"], 1)}
    for name in ("cpu_ms", "system_ms", "cpu_share", "per_second", "generator_share"):
        out[name] = _spread([run[name] for run in runs])
    for name in ("calls", "completed", "failed", "retransmitted", "connections"):
        out[name] = sum(run[name] for run in runs)
    for name in ("added_ms", "ringing_ms"):
        known = [run[name] for run in runs if run[name]]
        out[name] = {
            share: round(statistics.median([run[share] for run in known]), 3) for share in (known[0] if known else ())
        }
    return out


def _curve(runs: Sequence[Run]) -> list[list[float]]:
    """Rate, p50 and p99 of what is added to an INVITE, where no call failed; of several runs the quickest one."""
    points: dict[float, tuple[float, float]] = {}
    for run in runs:
        if run["added_ms"] and not run["failed"]:
            point = (run["added_ms"]["50"], run["added_ms"]["99"])
            points[run["rate"]] = min(point, points.get(run["rate"], point))
    return [[rate, *points[rate]] for rate in sorted(points)]


def _highest(probes: Sequence[Run]) -> dict[str, Any]:
    """The highest rate that was clean, and what stopped the search."""
    clean = [run for run in probes if is_clean(run)]
    best = max(clean, key=lambda run: run["rate"], default=None)
    above = [run for run in probes if best is None or run["rate"] > best["rate"]]
    unclean = min(above, key=lambda run: run["rate"], default=None)
    return {
        "rate": round(best["rate"]) if best is not None else 0,
        "cpu_share": best["cpu_share"] if best is not None else None,
        "cpu_ms": best["cpu_ms"] if best is not None else None,
        "not_clean_at": round(unclean["rate"]) if unclean is not None else None,
        "generator_limited": unclean is not None and unclean["per_second"] < 0.95 * unclean["rate"],
    }


def _workers(runs: Iterable[tuple[Sequence[str], Run]]) -> dict[str, dict[str, Any]]:
    """By rate, then by device."""
    out: dict[str, dict[str, Any]] = {}
    for names, run in runs:
        out.setdefault(names[2], {})[names[1]] = _together([run])
    return out
