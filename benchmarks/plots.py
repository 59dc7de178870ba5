"""The plots of a session: added latency by rate, CPU per call by part of the code, how the cost grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes

__all__ = ["PLOTS", "draw_plots"]

Report = Mapping[str, Any]
PLOTS: Final[Mapping[str, str]] = {
    "latency": "Added latency over the rate",
    "parts": "CPU per call by part of the code",
    "growth": "Growth of the cost of a call",
}
"""The plots by name, with what they show."""
_SIZE: Final = (8.0, 4.6)
_DPI: Final = 110
_SLOWEST_MS: Final = 200.0
_COLOURS: Final = {
    "trunkline": "#0072b2",
    "trunkline-store": "#56b4e9",
    "trunkline-pure": "#009e73",
    "kamailio-topoh": "#d55e00",
    "kamailio": "#e69f00",
    "sippy": "#7f3c8d",
}
_GREY: Final = "#777777"


def draw_plots(report: Report, out: Path) -> list[Path]:
    """Draw what there are figures for, as PNG files in a folder. Returns them."""
    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
    mpl.rcParams.update({"grid.color": "#e5e5e5", "axes.axisbelow": True, "svg.hashsalt": "trunkline"})
    made: list[Path] = []
    for name, draw in (("latency", _latency), ("parts", _parts), ("growth", _growth)):
        figure = draw(report)
        if figure is not None:
            made.append(out / f"{name}.png")
            figure.tight_layout()
            figure.savefig(made[-1], dpi=_DPI)
            pyplot.close(figure)
    return made


def _latency(report: Report) -> Any:
    """What is added to an INVITE over the rate: p50 dashed, p99 solid."""
    curves = {name: row["curve"] for name, row in report["devices"].items() if len(row.get("curve", ())) > 1}
    if not curves:
        return None
    figure, axes = pyplot.subplots(figsize=_SIZE)
    for name, points in curves.items():
        colour = _COLOURS.get(name, _GREY)
        shown = [point for point in points if point[2] <= _SLOWEST_MS]
        rates = [rate for rate, _, _ in shown]
        axes.plot(rates, [p99 for _, _, p99 in shown], color=colour, marker="o", markersize=4, label=name)
        axes.plot(rates, [p50 for _, p50, _ in shown], color=colour, linestyle="--", linewidth=1)
    axes.set(xlabel="calls a second", ylabel="added to an INVITE, ms", yscale="log", xlim=(0, None))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title("Added latency: p99 (solid) and p50 (dashed)", loc="left", fontsize=11)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _parts(report: Report) -> Any:
    """CPU per call as stacked bars."""
    rows = {name: row for name, row in report["devices"].items() if row.get("parts") and row["at"]}
    if not rows:
        return None
    rate = max((rate for row in rows.values() for rate in row["at"]), key=int)
    parts = list(dict.fromkeys(part for row in rows.values() for part in row["parts"]))
    figure, axes = pyplot.subplots(figsize=(_SIZE[0], 1.6 + 0.75 * len(rows)))
    names = list(rows)[::-1]
    left = [0.0] * len(names)
    colours = pyplot.get_cmap("tab20").resampled(20)
    for number, part in enumerate(parts):
        widths = [rows[name]["parts"].get(part, 0.0) * _cpu_ms(rows[name], rate) for name in names]
        bars = axes.barh(names, widths, left=left, label=part, color=colours(number), height=0.6)
        whole = max(_cpu_ms(row, rate) for row in rows.values())
        axes.bar_label(
            bars, [f"{width:.2f}" if width > 0.04 * whole else "" for width in widths], label_type="center", fontsize=7
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlabel="CPU ms per call")
    axes.grid(visible=False, axis="y")
    axes.set_title(f"CPU per call by part of the code, {rate} calls/s", loc="left", fontsize=11)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.28))
    return figure


def _cpu_ms(row: Mapping[str, Any], rate: str) -> float:
    at = row["at"].get(rate) or row["at"][max(row["at"], key=int)]
    return float(at["cpu_ms"][1])


def _growth(report: Report) -> Any:
    """Four small plots of what grows."""
    core = report["core"]
    if not core:
        return None
    figure, grid = pyplot.subplots(2, 2, figsize=(_SIZE[0], 6.2))
    panels = (
        ("in_progress", "calls in progress", True),
        ("retries", "attempts that the target refuses", False),
        ("rules_looking", "rules with a pattern for From", False),
        ("rules_absent", "rules for a header that is not there", False),
    )
    for axes, (what, title, logarithmic) in zip(grid.flat, panels, strict=True):
        for kind, run in core.items():
            points = [(int(count), cost) for count, cost in run[what].items()]
            colour = _COLOURS["trunkline" if kind == "compiled" else "trunkline-pure"]
            _line(axes, points, colour, kind)
        axes.set(xlabel=title, ylabel="µs of a call")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
        if logarithmic:
            axes.set_xscale("log")
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle("CPU of a whole call inside the core", x=0.02, ha="left", fontsize=11)
    return figure


def _line(axes: Axes, points: list[tuple[int, float]], colour: str, label: str) -> None:
    axes.plot([x for x, _ in points], [y for _, y in points], color=colour, marker="o", markersize=4, label=label)
