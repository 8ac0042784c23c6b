"""Charts of the page: where their axes, lines and bars lie. ``templates/chart.html.jinja`` draws them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dop_lightning.runs.report.axes import Axis, tick_label
from dop_lightning.runs.report.text import number

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


class LevelLine(NamedTuple):
    """A horizontal line, and where its label is."""

    y: float
    label: str
    anchor: str
    label_x: float
    label_y: float


class DrawnLine(NamedTuple):
    """A line as attributes of SVG: places, values to read out, and the place of its end."""

    label: str
    colour: int
    points: str
    values: str
    end: tuple[float, float]


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
        legend: (kind, label) of lines, bars and outline; a kind is a class of the style sheet.
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
    legend: Sequence[tuple[str, str]] = ()

    @property
    def is_readable(self) -> bool:
        """Whether there is a line whose values can be read out."""
        return any(len(series.points) > 1 for series in self.series)

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Places and labels."""
        return [(self.x(value), tick_label(value, self.x.log)) for value in self.x.ticks]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Places and labels."""
        return [(self.y(value), tick_label(value, self.y.log)) for value in self.y.ticks]

    @property
    def bars_path(self) -> str:
        """The bars as a path of SVG."""
        return "".join(
            f"M{left:.1f} {bottom:.1f}V{top:.1f}H{right:.1f}V{bottom:.1f}z" for left, top, right, bottom in self.bars
        )

    @property
    def outline_path(self) -> str:
        """The outline as a path of SVG."""
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in self.outline)

    @property
    def level_lines(self) -> list[LevelLine]:
        """The levels, each with a place for its label where there are no lines."""
        drawn = [(self.x(x), self.y(y)) for series in self.series for x, y in thinned(series.points)]
        lines = []
        for value, label in self.levels:
            y = self.y(value)
            lines.append(LevelLine(y, label, *_clear_place(y, 6.5 * len(label), drawn)))
        return lines

    @property
    def lines(self) -> list[DrawnLine]:
        """The series, thinned, with the values that are read out."""
        lines = []
        for series in self.series:
            points = thinned(series.points)
            places = [(self.x(x), self.y(y)) for x, y in points]
            lines.append(
                DrawnLine(
                    series.label,
                    series.colour,
                    " ".join(f"{x:.1f},{y:.1f}" for x, y in places),
                    " ".join(f"{x:.10g}:{y:.5g}" for x, y in points),
                    places[-1],
                )
            )
        return lines


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
