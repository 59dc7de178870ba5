"""The table, the JSON file and the plots of `benchmarks.run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.load import Result, percentile

__all__ = ["table", "write_report"]


def table(report: dict[str, Any]) -> str:
    """The figures as a Markdown table; `a (b–c)` is the median and the range of the repetitions."""
    rows: dict[str, dict[str, Any]] = report["devices"]
    rates = sorted({int(key[3:]) for row in rows.values() for key in row if key.startswith("at_") and key != "at_half"})
    heads = ["device"]
    for rate in rates:
        heads += [
            f"CPU ms per call at {rate}/s",
            f"added p50 / p95 / p99 ms at {rate}/s",
            f"failed, sent again at {rate}/s",
        ]
    heads += ["highest clean rate", "p99 ms added at half of it", "KB per call held"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, row in rows.items():
        cells = [name]
        for rate in rates:
            figures = row.get(f"at_{rate}")
            if figures is None:
                cells += ["–", "–", "–"]
                continue
            low, middle, high = figures["cpu_ms"]
            cells.append(f"{middle:.2f} ({low:.2f}–{high:.2f})")
            added = [figures.get(f"added_p{share}_ms") for share in (50, 95, 99)]
            cells.append(" / ".join("–" if figure is None else f"{figure:.2f}" for figure in added))
            cells.append(f"{figures['failed']}, {figures['retransmitted']}")
        half = row.get("at_half")
        cells.append(str(row.get("highest_clean_rate", "–")))
        cells.append("–" if half is None else f"{half.get('added_p99_ms', '–')}")
        cells.append(str(row.get("kb_per_call", "–")))
        lines.append(f"| {' | '.join(cells)} |")
    machine = report["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}"
    return "\n".join([*lines, "", f"{where}; runs of {report['seconds']:.0f} s; UDP on loopback."]) + "\n"


def write_report(report: dict[str, Any], results: list[Result], out: Path) -> None:
    """Write `figures.json`, `table.md` and, with matplotlib, `latency.png` and `cpu.png` to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "table.md").write_text(table(report))
    try:
        import matplotlib  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return
    matplotlib.use("Agg")
    _plots(report, results, out)


def _plots(report: dict[str, Any], results: list[Result], out: Path) -> None:
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name in report["devices"]:
        for rate in sorted({result.rate for result in results}):
            added = [
                ms for result in results if result.device == name and result.rate == rate for ms in result.added_ms
            ]
            if added:
                shares = [share / 2 for share in range(1, 200)]
                axes.plot([percentile(added, share) for share in shares], shares, label=f"{name} at {rate:.0f}/s")
    axes.set(xscale="log", xlabel="INVITE to INVITE, ms", ylabel="share of calls, %", title="Added latency")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out / "latency.png", dpi=120)
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, row in report["devices"].items():
        points = sorted(
            (int(key[3:]), row[key]["cpu_ms"][1]) for key in row if key.startswith("at_") and key != "at_half"
        )
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    axes.set(xlabel="calls per second", ylabel="CPU ms per call", ylim=(0, None), title="CPU per call")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out / "cpu.png", dpi=120)
