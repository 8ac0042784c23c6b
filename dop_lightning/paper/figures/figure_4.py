"""Figure 4: learning curves over images (a) and corruption levels (b): which methods require early stopping."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from dop_lightning.foundation.plotting import BLUE, GREEN, ORANGE, PURPLE
from dop_lightning.paper.figures.base import Row, mark
from dop_lightning.paper.figures.image_figures import (
    CURVE_COLUMNS,
    MIN_DECREASE,
    ImageFigure,
    image_title,
    peak_and_end,
    percent,
    shown,
)
from dop_lightning.runs.results import render_table

COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
DASHES = ("-", "--", "-.", ":")

LEVELS = "_levels"
"""Suffix of the names of runs over levels, which omit the level used for the images."""


class Figure4(ImageFigure):
    """PSNR by iteration, one column per method; top: images at one level; bottom: levels of the first image."""

    name = "4"
    size = (9.6, 5.6)
    methods: ClassVar = {
        "dip_l1": "DIP-ℓ1",
        "dip_l1_levels": "DIP-ℓ1",
        "dop": "DOP",
        "dop_levels": "DOP",
        "default": "dop recover's default",
        "default_levels": "dop recover's default",
    }
    columns: ClassVar = [
        ("title", "method", ""),
        ("image", "image", ""),
        ("ratio", "p", ".1f"),
        *CURVE_COLUMNS,
    ]

    def table(self, out: Path) -> list[Row]:
        """Return one row per method, problem and evaluation."""
        rows = []
        for run in self.methods:
            method = run.removesuffix(LEVELS)
            rows += [{"method": method, **row} for row in self.curves(out, run)]
        return rows

    def _ends(self, rows: Sequence[Row]) -> list[Row]:
        """Return the peak and the end of each curve."""
        curves: dict[tuple[str, str, float], list[Row]] = {}
        for row in rows:
            curves.setdefault((row["method"], row["image"], row["ratio"]), []).append(row)
        return [
            {"method": method, "title": self.methods[method], "image": image, "ratio": ratio, **peak_and_end(curve)}
            for (method, image, ratio), curve in curves.items()
        ]

    def summary(self, rows: Sequence[Row]) -> str:
        """Return a table of the peaks and ends."""
        return render_table(self._ends(rows), self.columns)

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Check that DIP-ℓ1 requires stopping at an iteration that depends on the problem, unlike the others."""
        ends = self._ends(rows)
        of = {
            method: {(end["image"], end["ratio"]): end for end in ends if end["method"] == method}
            for method in ("dip_l1", "dop", "default")
        }
        problems = list(of["dop"])
        stops = [end["at"] for end in of["dip_l1"].values()]
        falls = [end["fall"] for end in of["dip_l1"].values()]
        lines = [
            f"{mark(min(falls) > MIN_DECREASE)}  DIP-ℓ1 overfits: it ends {min(falls):.1f} to {max(falls):.1f} dB "
            f"below its best, which is reached between iterations {min(stops)} and {max(stops)}"
        ]
        for method in ("dop", "default"):
            largest = max(end["fall"] for end in of[method].values())
            text = f"{self.methods[method]} does not overfit: it ends at most {largest:.2f} dB below its best"
            lines.append(f"{mark(largest < MIN_DECREASE)}  {text}")
        for own, rival, what in (("dop", "dip_l1", "best"), ("default", "dip_l1", "best"), ("default", "dop", "end")):
            gain = [of[own][problem]["end"] - of[rival][problem][what] for problem in problems]
            above = sum(change > 0 for change in gain)
            lines.append(
                f"{mark(above == len(gain))}  the end of {self.methods[own]} is above the {what} of "
                f"{self.methods[rival]} in {above} of {len(gain)}, by {min(gain):+.1f} to {max(gain):+.1f} dB"
            )
        return lines

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Plot six panels with a common PSNR axis; the best of each curve is marked if it has to be stopped."""
        methods = list(dict.fromkeys(row["method"] for row in rows))
        panels = drawing.subplots(2, len(methods), sharex="col", sharey=True)
        first = rows[0]
        images = list(dict.fromkeys(row["image"] for row in rows))
        levels = sorted({row["ratio"] for row in rows})
        for column, method in enumerate(methods):
            own = [row for row in rows if row["method"] == method]
            above = [[row for row in own if (row["image"], row["ratio"]) == (i, first["ratio"])] for i in images]
            below = [[row for row in own if (row["image"], row["ratio"]) == (first["image"], p)] for p in levels]
            _curves(panels[0, column], above, [image_title(image) for image in images])
            _curves(panels[1, column], below, [percent(level) for level in levels])
            panels[0, column].set_title(self.methods[method])
            panels[1, column].set_xlabel("iteration")
            panels[1, column].set_xlim(0, max(row["iteration"] for row in own))
        for letter, line, what in (
            ("a", panels[0], f"{percent(first['ratio'])} salt-and-pepper"),
            ("b", panels[1], image_title(first["image"])),
        ):
            line[0].set_ylabel(f"({letter})  {what}\nPSNR, dB")
            line[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _curves(axes: Any, curves: Sequence[Sequence[Row]], labels: Sequence[str]) -> None:
    """Plot one line per curve; if there is a running average, X̂ is shown in a lighter colour behind it."""
    for index, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        colour, dashes = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        iterations = [row["iteration"] for row in curve]
        if "psnr_average" in curve[-1]:
            axes.plot(iterations, [row["psnr"] for row in curve], color=colour, alpha=0.35, linewidth=0.9)
        axes.plot(iterations, [shown(row) for row in curve], color=colour, linestyle=dashes, label=label)
        summary = peak_and_end(curve)
        if summary["fall"] > MIN_DECREASE:
            axes.plot(summary["at"], summary["best"], "o", color=colour, markersize=4.5, zorder=3)
