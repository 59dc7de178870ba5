"""The report of a run as one HTML page with plots as SVG. Nothing is fetched, and no script runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil, log10
from pathlib import Path
from typing import Final

from proxy.sim.report import CallResult, Percentiles, Report

__all__ = ["make_page", "write_page"]

_WIDTH: Final = 720
_HEIGHT: Final = 200
_LEFT: Final = 48
_RIGHT: Final = 26
_TOP: Final = 10
_BOTTOM: Final = 34
_COLUMNS: Final = 120
_KINDS: Final = {"answered": "#2a9d57", "cancelled": "#9aa3ad", "failed": "#d1495b"}
_LINES: Final = {"p50": "#9ecae1", "p95": "#4292c6", "p99": "#08519c"}
_DISTRIBUTIONS: Final = {"ringing": "#e69f00", "answered": "#0072b2"}
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2329;max-width:46rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:2rem 0 .4rem}
p{margin:.3rem 0}.bad{color:#a3293c;font-weight:600}.good{color:#1f7a43;font-weight:600}
table{border-collapse:collapse}th,td{text-align:left;padding:.2rem 1.2rem .2rem 0;border-bottom:1px solid #e4e7ea}
td.n,th.n{text-align:right}svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#5b6670}
.legend span{margin-right:1rem}.legend i{display:inline-block;width:.7rem;height:.7rem;margin-right:.3rem}
"""


def write_page(report: Report, target: str, file: Path) -> None:
    """Write the page of a run to a file. Raises OSError."""
    file.write_text(make_page(report, target), encoding="utf-8")


def make_page(report: Report, target: str) -> str:
    """The page. `target`: where the calls went."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Calls to {escape(target)}</title><style>{_STYLE}</style>",
        f"<h1>{report.calls} calls to {escape(target)}</h1>",
        f"<p>{report.rate:g} calls a second, {report.duration_s:.1f} s in all.</p>",
        *(f"<p class={'good' if good else 'bad'}>{escape(text)}</p>" for text, good in report.verdicts()),
        "<h2>Outcomes</h2>",
        _table(("outcome", "calls"), [(name, str(count)) for name, count in report.outcomes.most_common()]),
        "<h2>Times, ms</h2>",
        _times({"INVITE to ringing": report.ringing_ms, "INVITE to answer": report.setup_ms}),
        "<h2>Calls by the time they were placed, by outcome</h2>",
        _calls_over_time(report.results),
        "<h2>INVITE to answer by the time calls were placed, ms</h2>",
        _times_over_time(report.results),
        "<h2>Share of calls that rang or were answered within that time, ms</h2>",
        _distribution(report.results),
    ]
    noticed = Counter(report.unexpected) + Counter(report.incomplete_because)
    if noticed:
        parts.append("<h2>What should not have happened</h2>")
        parts.append(_table(("what", "times"), [(name, str(count)) for name, count in noticed.most_common()]))
    parts.append("<h2>Messages</h2>")
    parts.append(_table(("what", "count"), [(key.replace("_", " "), str(n)) for key, n in report.traffic.items() if n]))
    return "\n".join([*parts, "</html>\n"])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th{' class=n' if at else ''}>{escape(name)}</th>" for at, name in enumerate(heads))
    lines = [
        "".join(f"<td{' class=n' if at else ''}>{escape(cell)}</td>" for at, cell in enumerate(row)) for row in rows
    ]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _times(times: Mapping[str, Percentiles]) -> str:
    rows = [
        (name, str(t.count), *(f"{value:.1f}" for value in (t.p50, t.p95, t.p99, t.max))) for name, t in times.items()
    ]
    return _table(("", "calls", "p50", "p95", "p99", "longest"), rows)


def _calls_over_time(results: Sequence[CallResult]) -> str:
    """Stacked columns of what became of the calls that were placed in each stretch of time."""
    step = _step(results)
    columns: dict[int, Counter[str]] = {}
    for result in results:
        columns.setdefault(int(result.started_s / step), Counter())[result.kind] += 1
    if not columns:
        return "<p>none</p>"
    last = max(columns)
    top = _round_up(max(column.total() for column in columns.values()))
    width = (_WIDTH - _LEFT - _RIGHT) / (last + 1)
    scale = (_HEIGHT - _TOP - _BOTTOM) / top
    shapes: list[str] = []
    for number, column in columns.items():
        y = float(_HEIGHT - _BOTTOM)
        for kind, colour in _KINDS.items():
            if count := column[kind]:
                y -= count * scale
                shapes.append(
                    f'<rect x="{_LEFT + number * width + 0.3:.1f}" y="{y:.1f}" width="{max(width - 0.6, 0.4):.1f}" '
                    f'height="{count * scale:.1f}" fill="{colour}"/>'
                )
    unit = f"calls in {step:g} s"
    axes = _axes([(top / 2, f"{top / 2:g}"), (top, f"{top:g}")], top, _ticks((last + 1) * step), (last + 1) * step)
    return _svg(f"Calls by outcome, {unit}", [*axes, *shapes]) + _legend(_KINDS, f"{unit}; seconds from the first call")


def _times_over_time(results: Sequence[CallResult]) -> str:
    """Percentiles of each stretch of time."""
    step = _step(results)
    columns: dict[int, list[float]] = {}
    for result in results:
        if result.setup_ms:
            columns.setdefault(int(result.started_s / step), []).append(result.setup_ms)
    if not columns:
        return "<p>No call was answered.</p>"
    points = {number: Percentiles.of(times) for number, times in sorted(columns.items())}
    end = (max(points) + 1) * step
    low, high = _decades([time for times in columns.values() for time in times])
    shapes = [
        _line([((number + 0.5) * step / end, _log(getattr(at, name), low, high)) for number, at in points.items()], hue)
        for name, hue in _LINES.items()
    ]
    axes = _axes([(_log(value, low, high), f"{value:g}") for value in _powers(low, high)], 1.0, _ticks(end), end)
    return _svg("INVITE to answer over time", [*axes, *shapes]) + _legend(_LINES, "seconds from the first call")


def _distribution(results: Sequence[CallResult]) -> str:
    """The share of calls over the time that they took."""
    times = {
        "ringing": sorted(result.ringing_ms for result in results if result.ringing_ms),
        "answered": sorted(result.setup_ms for result in results if result.setup_ms),
    }
    every = [*times["ringing"], *times["answered"]]
    if not every:
        return "<p>No call rang or was answered.</p>"
    low, high = _decades(every)
    shapes = []
    for name, ordered in times.items():
        picked = {round(share * (len(ordered) - 1) / 200) for share in range(201)} if ordered else set[int]()
        line = [(_log(ordered[at], low, high), (at + 1) / len(ordered)) for at in sorted(picked)]
        shapes.append(_line(line, _DISTRIBUTIONS[name]))
    shares = [(share / 100, f"{share} %") for share in (50, 95)]
    axes = _axes(shares, 1.0, [(_log(value, low, high), f"{value:g}") for value in _powers(low, high)], 1.0)
    return _svg("Distribution of times", [*axes, *shapes]) + _legend(_DISTRIBUTIONS, "ms")


def _step(results: Sequence[CallResult]) -> float:
    """The length of a column in seconds: 1, 2, 5, 10 … so that there are not too many."""
    span = max((result.started_s for result in results), default=0.0)
    return _round_up(max(1.0, span / _COLUMNS))


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 … that is not below."""
    size = 10.0 ** max(0, ceil(log10(max(value, 1.0))) - 1)
    return next(factor * size for factor in (1, 2, 5, 10) if factor * size >= value)


def _ticks(end: float) -> list[tuple[float, str]]:
    step = _round_up(end / 8)
    return [(at * step, f"{at * step:g}") for at in range(int(end / step) + 1)]


def _decades(values: Sequence[float]) -> tuple[float, float]:
    return 10.0 ** int(log10(max(min(values), 1e-3)) // 1), 10.0 ** (int(log10(max(values)) // 1) + 1)


def _powers(low: float, high: float) -> list[float]:
    return [low * 10**power for power in range(round(log10(high / low)) + 1)]


def _log(value: float, low: float, high: float) -> float:
    """Where a value lies between two others on a logarithmic axis, from 0 to 1."""
    return (log10(max(value, low)) - log10(low)) / (log10(high) - log10(low))


def _axes(rows: Iterable[tuple[float, str]], top: float, columns: Iterable[tuple[float, str]], end: float) -> list[str]:
    base, width, height = _HEIGHT - _BOTTOM, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    parts = [f'<line x1="{_LEFT}" y1="{base}" x2="{_WIDTH - _RIGHT}" y2="{base}" stroke="#9aa3ad"/>']
    for value, label in rows:
        y = base - value / top * height
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#e4e7ea"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    for value, label in columns:
        x = _LEFT + value / end * width
        parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{escape(label)}</text>')
    return parts


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    """A line through points from 0 to 1; one point alone is a dot."""
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    places = [(_LEFT + x * width, _HEIGHT - _BOTTOM - y * height) for x, y in points]
    if len(places) == 1:
        return f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="{colour}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _svg(title: str, shapes: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(shapes)}</svg>'


def _legend(colours: Mapping[str, str], note: str) -> str:
    marks = "".join(f'<span><i style="background:{hue}"></i>{escape(name)}</span>' for name, hue in colours.items())
    return f"<p class=legend>{marks}{escape(note)}</p>"
