"""Charts of the page: positions of their axes, lines and bars. ``templates/chart.html.jinja`` draws them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dop_lightning.runs.report.axes import Axis, tick_label
from dop_lightning.runs.report.text import number

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 388, 12, 192
"""Borders of the plot area of a chart, in the units of the drawing."""

MAX_POINTS = 240
"""Maximum number of points of a line. More are not visible at this size."""


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        label: name of the line.
        points: (x, value), with increasing x; finite, and within the axes of the chart.
        colour: 0 to 5, a class of the style sheet.
    """

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0


class LevelLine(NamedTuple):
    """A horizontal line and the position of its label."""

    y: float
    label: str
    anchor: str
    label_x: float
    label_y: float


class DrawnLine(NamedTuple):
    """A line as SVG attributes: positions, values for the readout, and the position of its end."""

    label: str
    colour: int
    points: str
    values: str
    end: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: plotted quantity and its unit.
        x: horizontal axis.
        y: vertical axis; its position ``start`` is below ``end``.
        x_label: label of the horizontal axis.
        summary: text alternative for screen readers.
        series: lines.
        levels: (value, label) of dashed horizontal lines.
        bars: rectangles as positions (left, top, right, bottom).
        outline: positions of a second line, without a readout.
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
        """Whether the chart has a line with a readout."""
        return any(len(series.points) > 1 for series in self.series)

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Positions and labels of the horizontal ticks."""
        return [(self.x(value), tick_label(value, self.x.log)) for value in self.x.ticks]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Positions and labels of the vertical ticks."""
        return [(self.y(value), tick_label(value, self.y.log)) for value in self.y.ticks]

    @property
    def bars_path(self) -> str:
        """Bars as an SVG path."""
        return "".join(
            f"M{left:.1f} {bottom:.1f}V{top:.1f}H{right:.1f}V{bottom:.1f}z" for left, top, right, bottom in self.bars
        )

    @property
    def outline_path(self) -> str:
        """Outline as an SVG path."""
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in self.outline)

    @property
    def level_lines(self) -> list[LevelLine]:
        """Levels, with labels placed away from the lines."""
        drawn = [(self.x(x), self.y(y)) for series in self.series for x, y in thinned(series.points)]
        lines = []
        for value, label in self.levels:
            y = self.y(value)
            lines.append(LevelLine(y, label, *_label_position(y, 6.5 * len(label), drawn)))
        return lines

    @property
    def lines(self) -> list[DrawnLine]:
        """Series with a limited number of points, and the values for the readout."""
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


def thinned(points: Sequence[tuple[float, float]], most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Reduce a line to about ``most`` points of the same appearance: the minimum and maximum of each of its parts.

    The first and the last point are kept.

    Args:
        points: (x, value), with increasing x.
        most: maximum number of points, at least 4.
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


def _label_position(y: float, width: float, drawn: Sequence[tuple[float, float]]) -> tuple[str, float, float]:
    """Return the text anchor and position of a label at a level, as far from the lines as possible."""
    best: tuple[float, tuple[str, float, float]] = (-1.0, ("end", RIGHT, y - 5))
    for anchor, x, low, high in (("end", RIGHT, RIGHT - width, RIGHT), ("start", LEFT + 4, LEFT, LEFT + 4 + width)):
        for at in (y - 5, y + 14):
            if not TOP <= at - 9 <= at <= BOTTOM - 2:
                continue
            free = min((abs(py - (at - 4)) for px, py in drawn if low - 20 <= px <= high + 20), default=1000.0)
            if free > best[0]:
                best = free, (anchor, x, at)
    return best[1]


def summarize_curve(points: Sequence[tuple[float, float]]) -> str:
    """Describe a line in words.

    >>> summarize_curve([(0, 10.0), (100, 25.0)])
    'from 10 at 0 to 25 at 100'
    """
    (first, low), (last, high) = points[0], points[-1]
    return f"from {number(low)} at {first:,} to {number(high)} at {last:,}"


def can_be_log(values: Sequence[float]) -> bool:
    """Return whether all values are positive and large enough for a logarithmic axis."""
    return all(value > 0 and math.isfinite(math.log10(value)) for value in values)
