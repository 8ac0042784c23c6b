"""Histogram of |s| as a chart. Counts are logarithmic, since nearly all entries of a sparse s are close to 0."""

from collections.abc import Sequence

from dop_lightning.runs.histograms import Histogram
from dop_lightning.runs.report.axes import Axis
from dop_lightning.runs.report.chart import BOTTOM, LEFT, RIGHT, TOP, Chart

AXIS_START = 0.5
"""Lower end of the logarithmic axis of counts; below 1, so that single entries are visible."""


def histogram_chart(histogram: Histogram) -> Chart:
    """Draw the estimated corruption as bars, and the true one, if known, as an outline."""
    x = Axis(0.0, histogram.edges[-1], LEFT, RIGHT)
    highest = max([*histogram.found, *(histogram.true or ()), 1])
    y = Axis(AXIS_START, highest * 2, BOTTOM, TOP, log=True)
    spans = list(zip(histogram.edges[:-1], histogram.edges[1:], strict=True))
    bars = [
        (x(low), y(count), x(high), float(BOTTOM))
        for (low, high), count in zip(spans, histogram.found, strict=True)
        if count
    ]
    total = sum(histogram.found)
    first = histogram.found[0] / total if total else 0.0
    lowest, largest = histogram.edges[1], histogram.edges[-1]
    return Chart(
        title="Histogram of |s|, entries",
        x=x,
        y=y,
        x_label="|s|",
        summary=f"{first:.1%} of {total:,} entries are below {lowest:.3g}, none is above {largest:.3g}",
        bars=bars,
        outline=[] if histogram.true is None else _steps(spans, histogram.true, x, y),
        legend=[("found", "found"), ("true", "true")] if histogram.true is not None else [],
    )


def _steps(spans: Sequence[tuple[float, float]], counts: Sequence[int], x: Axis, y: Axis) -> list[tuple[float, float]]:
    places = [(x(0.0), float(BOTTOM))]
    for (low, high), count in zip(spans, counts, strict=True):
        top = y(count) if count else float(BOTTOM)
        places += [(x(low), top), (x(high), top)]
    return [*places, (places[-1][0], float(BOTTOM))]
