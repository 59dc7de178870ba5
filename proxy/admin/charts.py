"""Charts as SVG, drawn here: no script has to run, and nothing is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from markupsafe import Markup, escape

__all__ = ["Chart", "failures", "outcomes"]

_WIDTH: Final = 600
_HEIGHT: Final = 150
_LEFT: Final = 34
_BOTTOM: Final = 18
_MAX_KINDS: Final = 7
_OUTCOMES: Final = ("answered", "cancelled", "failed")


class Chart(NamedTuple):
    """A drawing, and its legend: the name, the class of the colour and the sum of each kind."""

    svg: Markup
    legend: list[tuple[str, str, int]]


def outcomes(points: Iterable[Mapping[str, Any]], since: float, until: float, step_s: float) -> Chart:
    """Ended calls by outcome."""
    counts = [(point["time"], point["name"], point["count"]) for point in points]
    classes = {name: f"o-{name}" for name in _OUTCOMES}
    return _stacked("Ended calls by outcome", counts, classes, since, until, step_s)


def failures(points: Iterable[Mapping[str, Any]], since: float, until: float, step_s: float) -> Chart:
    """Failed calls by cause, the most frequent causes with a colour each."""
    failed = [
        (point["time"], point["value"] or "unknown", point["count"]) for point in points if point["name"] == "failed"
    ]
    sums: dict[str, int] = {}
    for _, cause, count in failed:
        sums[cause] = sums.get(cause, 0) + count
    order = sorted(sums, key=lambda cause: (-sums[cause], cause))
    classes = {cause: f"c{at}" for at, cause in enumerate(order[:_MAX_KINDS])}
    if len(order) > _MAX_KINDS:
        classes["others"] = f"c{_MAX_KINDS}"
    merged = [(time, cause if cause in classes else "others", count) for time, cause, count in failed]
    return _stacked("Failed calls by cause", merged, classes, since, until, step_s)


def _stacked(
    title: str,
    counts: Sequence[tuple[float, str, int]],
    classes: Mapping[str, str],
    since: float,
    until: float,
    step_s: float,
) -> Chart:
    step = max(int(step_s // 60), 1) * 60
    first = int(since // step)
    columns = max(int(until // step) - first + 1, 1)
    heights: list[dict[str, int]] = [{} for _ in range(columns)]
    sums = dict.fromkeys(classes, 0)
    for time, name, count in counts:
        column = int(time // step) - first
        if 0 <= column < columns and name in sums:
            heights[column][name] = heights[column].get(name, 0) + count
            sums[name] += count
    top = _round_up(max([sum(one.values()) for one in heights], default=0))
    text = ", ".join(f"{name} {count}" for name, count in sums.items() if count) or "none"
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title}: {text}")}">',
        *_axes(top, first * step, (first + columns) * step),
    ]
    width = (_WIDTH - _LEFT) / columns
    scale = (_HEIGHT - _BOTTOM - 8) / top
    for column, found in enumerate(heights):
        y = float(_HEIGHT - _BOTTOM)
        for name, css in classes.items():
            if count := found.get(name, 0):
                y -= count * scale
                x = _LEFT + column * width
                parts.append(
                    f'<rect class="{css}" x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(width - 1, 0.5):.1f}"'
                    f' height="{count * scale:.1f}"/>'
                )
    parts.append("</svg>")
    legend = [(name, css, sums[name]) for name, css in classes.items()]
    return Chart(Markup("".join(parts)), legend)  # noqa: S704 - all text in it was escaped


def _axes(top: int, start: float, end: float) -> list[str]:
    base = _HEIGHT - _BOTTOM
    lines = [f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{_WIDTH}" y2="{base}"/>']
    for value in (top, top // 2) if top > 1 else (top,):
        y = base - value * (base - 8) / top
        lines.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH}" y2="{y:.1f}"/>')
        lines.append(f'<text class="tick" x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    form = "%H:%M" if end - start <= 2 * 86_400 else "%d %b"
    for part, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        label = datetime.fromtimestamp(start + part * (end - start), UTC).strftime(form)
        x = _LEFT + part * (_WIDTH - _LEFT)
        lines.append(f'<text class="tick" x="{x:.0f}" y="{_HEIGHT - 3}" text-anchor="{anchor}">{label}</text>')
    return lines


def _round_up(value: int) -> int:
    """The next of 1, 2, 4, 10, 20, 40 … that is not below."""
    size = 1
    while True:
        for factor in (1, 2, 4):
            if value <= factor * size:
                return factor * size
        size *= 10
