"""Tables, JSON and plots of a session: `python -m benchmarks.report [FOLDER]` writes them anew from its figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.copies import ROOT
from benchmarks.plots import draw_plots

__all__ = ["NONE", "OUT", "TABLES", "Report", "markdown", "markdown_table", "ranged", "shares", "write_report"]

Report = Mapping[str, Any]
OUT = ROOT / "bench-out"
NONE = "–"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def ranged(spread: Sequence[float] | None) -> str:
    """`median (lowest–highest)`, or the figure alone where there was one run."""
    if spread is None:
        return NONE
    low, middle, high = spread
    return f"{middle:.2f}" if low == high else f"{middle:.2f} ({low:.2f}–{high:.2f})"


def shares(percentiles: Mapping[str, float], *wanted: str) -> str:
    """Some percentiles, with slashes between them."""
    return " / ".join(f"{percentiles[share]:.2f}" for share in wanted) if percentiles else NONE


def _rates(report: Report) -> list[str]:
    return sorted({rate for row in report["devices"].values() for rate in row["at"]}, key=int)


def peers_table(report: Report) -> str:
    """Every device at equal rates."""
    rates = _rates(report)
    heads = ["device"]
    for rate in rates:
        heads += [f"CPU ms per call at {rate}/s", "added p50 / p95 / p99 ms", "failed, sent again"]
    rows: list[list[str]] = []
    for name, row in report["devices"].items():
        if not row["at"]:
            continue
        cells = [name]
        for rate in rates:
            at = row["at"].get(rate)
            if at is None:
                cells += [NONE] * 3
            else:
                cells += [ranged(at["cpu_ms"]), shares(at["added_ms"], "50", "95", "99")]
                cells.append(f"{at['failed']}, {at['retransmitted']}")
        rows.append(cells)
    return markdown_table(heads, rows)


def highest_table(report: Report) -> str:
    """Highest clean rates, what half of them costs, and memory."""
    heads = ["device", "highest clean rate", "CPU of a core there", "CPU ms per call at half of it"]
    heads += ["added p50 / p95 / p99 ms at half", "KB per call in progress"]
    rows: list[list[str]] = []
    for name, row in report["devices"].items():
        highest, half = row.get("highest"), row.get("half")
        if highest is None and "kb_per_call" not in row:
            continue
        cells = [name, NONE, NONE, NONE, NONE, str(row.get("kb_per_call", NONE))]
        if highest is not None:
            cells[1] = f"{highest['rate']}{'+' if highest['generator_limited'] else ''}"
            cells[2] = f"{highest['cpu_share']:.0%}" if highest["cpu_share"] is not None else NONE
        if half is not None:
            cells[3:5] = [ranged(half["cpu_ms"]), shares(half["added_ms"], "50", "95", "99")]
        rows.append(cells)
    return markdown_table(heads, rows)


def steady_table(report: Report) -> str:
    """The long runs."""
    heads = ["device", "load", "calls", "failed", "sent again", "CPU ms per call", "INVITE→180 p50 / p99 / p99.9 ms"]
    rows = [
        [
            name,
            f"{run['rate']:.0f}/s for {run['seconds']:.0f} s",
            str(run["calls"]),
            str(run["failed"]),
            str(run["retransmitted"]),
            ranged(run["cpu_ms"]),
            shares(run["ringing_ms"], "50", "99", "99.9"),
        ]
        for name, row in report["devices"].items()
        for run in row.get("steady", {}).values()
    ]
    return markdown_table(heads, rows)


def tls_table(report: Report) -> str:
    """UDP beside TLS, with and without the call store."""
    heads = ["to the target", "call store"]
    rates = _rates(report)
    for rate in rates:
        heads += [f"CPU ms per call at {rate}/s", "times UDP", "INVITE→180 p50 / p99 ms", "connections, calls"]
    rows: list[list[str]] = []
    for tls in (False, True):
        for store in (False, True):
            name = f"trunkline{'-tls' if tls else ''}{'-store' if store else ''}"
            plain = report["devices"].get(name.replace("-tls", ""), {"at": {}})
            row = report["devices"].get(name, {"at": {}})
            cells = ["TLS" if tls else "UDP", "on" if store else "off"]
            for rate in rates:
                at, udp = row["at"].get(rate), plain["at"].get(rate)
                if at is None or udp is None:
                    cells += [NONE] * 4
                    continue
                times = at["cpu_ms"][1] / udp["cpu_ms"][1]
                cells += [ranged(at["cpu_ms"]), f"{times:.2f}" if tls else "1"]
                cells.append(shares(at["ringing_ms"], "50", "99"))
                cells.append(f"{at['connections']}, {at['completed']}" if tls else NONE)
            rows.append(cells)
    return markdown_table(heads, rows)


def growth_table(report: Report) -> str:
    """What a call costs as things grow, inside the core."""
    lines: list[str] = []
    core = report["core"]
    if core:
        some = next(iter(core.values()))
        for what, title in (
            ("in_progress", "calls in progress"),
            ("rules_absent", "rules for a header that is not there"),
            ("rules_looking", "rules with a pattern for From"),
            ("retries", "attempts refused"),
        ):
            points = list(some[what])
            heads = [f"{title}: µs of a call", *points]
            rows = [[kind, *(f"{run[what][point]:.0f}" for point in points)] for kind, run in core.items()]
            lines += [markdown_table(heads, rows), ""]
    if report["beside"]:
        heads = ["whole process, calls in progress beside", *report["beside"]]
        lines += [
            markdown_table(heads, [["CPU ms per call", *(ranged(r["cpu_ms"]) for r in report["beside"].values())]]),
            "",
        ]
    for rate, by_device in report["workers"].items():
        heads = [f"at {rate} calls/s", *by_device]
        lines += [
            markdown_table(
                heads,
                [
                    ["CPU ms per call", *(ranged(run["cpu_ms"]) for run in by_device.values())],
                    ["INVITE→180 p50 / p99 ms", *(shares(r["ringing_ms"], "50", "99") for r in by_device.values())],
                    ["failed, sent again", *(f"{r['failed']}, {r['retransmitted']}" for r in by_device.values())],
                ],
            ),
            "",
        ]
    return "\n".join(lines).rstrip()


def parts_table(report: Report) -> str:
    """CPU per call by part of the code."""
    rows = {name: row["parts"] for name, row in report["devices"].items() if row.get("parts")}
    if not rows:
        return ""
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    return markdown_table(
        ["share of the CPU time", *rows],
        [[part, *(f"{row[part]:.0%}" if part in row else NONE for row in rows.values())] for part in parts],
    )


def core_table(report: Report) -> str:
    """A whole call inside the core by message."""
    core = report["core"]
    if not core:
        return ""
    some = next(iter(core.values()))
    steps, parts = list(some["by_step"]), list(some["parts"])
    rows = [
        [kind, *(f"{run['by_step'][step]:.0f}" for step in steps), f"{run['whole']:.0f}"] for kind, run in core.items()
    ]
    whole = markdown_table(["µs of CPU", *steps, "all (best)"], rows)
    single = [[part, *(f"{run['parts'][part]:.1f}" for run in core.values())] for part in parts]
    return f"{whole}\n\n{markdown_table(['µs of CPU', *core], single)}"


def machine_line(report: Report) -> str:
    """The machine, and how the figures were taken."""
    machine = report["machine"]
    others = report["others_share"]
    quiet = f" Other processes took {others[1]:.0%} of the machine (at most {others[2]:.0%})." if others else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {report['taken']}; runs of {report['seconds']:.0f} s, "
        f"{report['repetitions']} of each.{quiet}"
    )


TABLES: Mapping[str, Callable[[Report], str]] = {
    "machine": machine_line,
    "peers": peers_table,
    "highest": highest_table,
    "steady": steady_table,
    "tls": tls_table,
    "growth": growth_table,
    "parts": parts_table,
    "core": core_table,
}


def markdown(report: Report) -> str:
    """All tables."""
    parts = [TABLES["machine"](report)]
    for name, make in TABLES.items():
        text = make(report) if name != "machine" else ""
        if text.count("\n") > 1:
            parts.append(text)
    if report["absent"]:
        parts.append("Not installed: " + "; ".join(f"{name} ({why})" for name, why in report["absent"].items()))
    if report["errors"]:
        parts.append("Could not be done: " + "; ".join(report["errors"]))
    return "\n\n".join(parts) + "\n"


def write_report(report: Report, out: Path) -> None:
    """Write `figures.json`, `tables.md` and the plots to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "tables.md").write_text(markdown(report))
    draw_plots(report, out)


def main() -> None:
    """Write it anew."""
    parser = argparse.ArgumentParser(description="Write tables and plots of a session anew from its figures.json.")
    parser.add_argument("folder", type=Path, nargs="?", default=OUT)
    folder: Path = parser.parse_args().folder
    write_report(json.loads((folder / "figures.json").read_text()), folder)
    print((folder / "tables.md").read_text())


if __name__ == "__main__":
    main()
