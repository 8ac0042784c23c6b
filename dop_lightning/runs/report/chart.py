"""Charts as inline SVG: axes, lines and bars in the colours of the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from dop_lightning.runs.report.axes import Axis, tick_label
from dop_lightning.runs.report.text import escape, number

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 388, 12, 192
"""The sides of the field of a chart, in the units of the drawing."""

MOST_POINTS = 240
"""Points of a line. More do not show at this size."""


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        label: what it is.
        points: (x, value), x rising, finite, and on the axes of the chart.
        colour: 0 … 5, a class of the style sheet.
    """

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: what is drawn, with its unit.
        x: the axis below.
        y: the axis on the left; its place ``start`` is below ``end``.
        x_label: what ``x`` is.
        summary: what a reader who does not see it is told.
        series: lines.
        levels: (value, label) of dashed horizontal lines.
        bars: rectangles as places (left, top, right, bottom).
        outline: places that a second line goes through, under which nothing is read out.
    """

    title: str
    x: Axis
    y: Axis
    x_label: str
    summary: str
    series: Sequence[Series] = ()
    levels: Sequence[tuple[float, str]] = ()
    bars: Sequence[tuple[float, float, float, float]] = ()
    outline: Sequence[tuple[float, float]] = ()
    legend: Sequence[tuple[str, str]] = field(default=())


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most about ``most`` points of a line that looks the same: of each part of it the least and the greatest.

    The first and the last point stay.

    Args:
        points: (x, value), x rising.
        most: at least 4.
    """
    if len(points) <= most:
        return list(points)
    parts = most // 2 - 1
    inner = range(1, len(points) - 1)
    kept = {0, len(points) - 1}
    for part in range(parts):
        span = inner[part * len(inner) // parts : (part + 1) * len(inner) // parts]
        kept |= {min(span, key=lambda i: points[i][1]), max(span, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def render_chart(chart: Chart) -> str:
    """The chart as a figure with its title; lines can be read out by pointing at them or by the arrow keys."""
    parts = [*_grid(chart), *_bars(chart), *_levels(chart)]
    parts += [_line(chart, series) for series in chart.series]
    readable = ' tabindex="0"' if any(len(series.points) > 1 for series in chart.series) else ""
    keys = "".join(f'<span class="key {escape(kind)}">{escape(label)}</span>' for kind, label in chart.legend)
    legend = f'<span class="keys">{keys}</span>' if keys else ""
    return (
        f'<figure class="chart"><figcaption><span class="title">{escape(chart.title)}</span>'
        f'<output class="readout"></output>{legend}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}: {escape(chart.summary)}"'
        f"{readable}>{''.join(parts)}</svg></figure>"
    )


def _grid(chart: Chart) -> list[str]:
    parts = []
    for value in chart.y.ticks:
        y = chart.y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        label = escape(tick_label(value, chart.y.log))
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for value in chart.x.ticks:
        x = chart.x(value)
        label = escape(tick_label(value, chart.x.log))
        parts.append(f'<path class="grid" d="M{x:.1f} {BOTTOM}v4"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{BOTTOM + 17}" text-anchor="middle">{label}</text>')
    parts.append(f'<path class="frame" d="M{LEFT} {BOTTOM}H{RIGHT}"/>')
    middle = (LEFT + RIGHT) / 2
    parts.append(
        f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    return parts


def _bars(chart: Chart) -> list[str]:
    parts = []
    if chart.bars:
        d = "".join(
            f"M{left:.1f} {bottom:.1f}V{top:.1f}H{right:.1f}V{bottom:.1f}z" for left, top, right, bottom in chart.bars
        )
        parts.append(f'<path class="bars" d="{d}"/>')
    if chart.outline:
        d = "L".join(f"{x:.1f} {y:.1f}" for x, y in chart.outline)
        parts.append(f'<path class="outline" d="M{d}"/>')
    return parts


def _levels(chart: Chart) -> list[str]:
    parts = []
    drawn = [(chart.x(x), chart.y(y)) for series in chart.series for x, y in thinned(series.points)]
    for value, label in chart.levels:
        y = chart.y(value)
        anchor, x, at = _clear_place(y, 6.5 * len(label), drawn)
        parts.append(f'<path class="level" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        parts.append(f'<text class="note" x="{x}" y="{at:.1f}" text-anchor="{anchor}">{escape(label)}</text>')
    return parts


def _clear_place(y: float, width: float, drawn: Sequence[tuple[float, float]]) -> tuple[str, float, float]:
    """Where beside a level its label is farthest from the lines: the anchor of the text, and its place."""
    best: tuple[float, tuple[str, float, float]] = (-1.0, ("end", RIGHT, y - 5))
    for anchor, x, low, high in (("end", RIGHT, RIGHT - width, RIGHT), ("start", LEFT + 4, LEFT, LEFT + 4 + width)):
        for at in (y - 5, y + 14):
            if not TOP <= at - 9 <= at <= BOTTOM - 2:
                continue
            free = min((abs(py - (at - 4)) for px, py in drawn if low - 20 <= px <= high + 20), default=1000.0)
            if free > best[0]:
                best = free, (anchor, x, at)
    return best[1]


def _line(chart: Chart, series: Series) -> str:
    """A line, with its values for the reader, and a dot at its end."""
    points = thinned(series.points)
    places = " ".join(f"{chart.x(x):.1f},{chart.y(y):.1f}" for x, y in points)
    values = " ".join(f"{x:.10g}:{y:.5g}" for x, y in points)
    x, y = points[-1]
    return (
        f'<polyline class="line c{series.colour}" points="{places}" data-label="{escape(series.label)}" '
        f'data-values="{values}"/>'
        f'<circle class="end c{series.colour}" cx="{chart.x(x):.1f}" cy="{chart.y(y):.1f}" r="3.2"/>'
    )


def told(points: Sequence[tuple[float, float]]) -> str:
    """A line in words.

    >>> told([(0, 10.0), (100, 25.0)])
    'from 10 at 0 to 25 at 100'
    """
    (first, low), (last, high) = points[0], points[-1]
    return f"from {number(low)} at {first:,} to {number(high)} at {last:,}"


def can_be_log(values: Sequence[float]) -> bool:
    """Whether all values are above 0, and none is so small that it has no ratio to others."""
    return all(value > 0 and math.isfinite(math.log10(value)) for value in values)
