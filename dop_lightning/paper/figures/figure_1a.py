"""Figure 1a: learning curves of factorisation with and without over-parameterisation, and of DOP."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from dop_lightning.foundation.plotting import BLACK, BLUE, RED, SKY
from dop_lightning.paper.figures.base import RUNS, FittedFigure, Row, mark
from dop_lightning.runs.results import read_metrics, render_table

LINES = {
    "mf_exact": (SKY, ":"),
    "mf_exact_decay": (BLUE, "-."),
    "mf_over": (BLACK, "--"),
    "dop": (RED, "-"),
}
"""Colour and line style of each run."""

CONVERGED = 1e-2
"""Maximum relative error of an exact recovery, up to the length of the last steps."""

SUCCESS = 0.1
"""Maximum relative error of a successful recovery in section 4.1."""

NO_DIP = 1.1
"""Maximum ratio of the final to the lowest error for a curve without overfitting."""


class Figure1a(FittedFigure):
    """Relative error by iteration at n = 50, r = 5, p = 0.3: median and range over seeds."""

    name = "1a"
    size = (5.6, 3.7)
    methods: ClassVar = {
        "mf_exact": "MF-ℓ1, r' = r, constant steps",
        "mf_exact_decay": "MF-ℓ1, r' = r, decaying steps",
        "mf_over": "MF-ℓ1, r' = n",
        "dop": "DOP, r' = n",
    }
    columns: ClassVar = [
        ("title", "method", ""),
        ("seeds", "seeds", "d"),
        ("median", "rel. error at the end", ".2g"),
        ("least", "least", ".2g"),
        ("largest", "largest", ".2g"),
        ("lowest", "lowest median", ".2g"),
        ("at", "at iteration", "d"),
    ]

    def table(self, out: Path) -> list[Row]:
        """Return one row per method and evaluation: median, least and largest relative error."""
        rows = []
        for method in self.methods:
            curves: dict[int, list[float]] = {}
            for entry in read_metrics(out / RUNS / method):
                if entry.tag == "relative_error":
                    curves.setdefault(entry.iteration, []).append(entry.value)
            for iteration, errors in sorted(curves.items()):
                row = {"method": method, "iteration": iteration, "seeds": len(errors)}
                rows.append({**row, "median": median(errors), "least": min(errors), "largest": max(errors)})
        return rows

    def _ends(self, rows: Sequence[Row]) -> dict[str, Row]:
        """Return the last row of each method, with the lowest median of its curve."""
        ends = {}
        for method, title in self.methods.items():
            own = [row for row in rows if row["method"] == method]
            lowest = min(own, key=lambda row: row["median"])
            ends[method] = {**own[-1], "title": title, "lowest": lowest["median"], "at": lowest["iteration"]}
        return ends

    def summary(self, rows: Sequence[Row]) -> str:
        """Return a table of the ends of the curves."""
        return render_table(list(self._ends(rows).values()), self.columns)

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Check that the first two methods converge, that the third overfits, and that DOP does not."""
        ends = self._ends(rows)
        exact, over, dop = ends["mf_exact_decay"], ends["mf_over"], ends["dop"]
        constant = ends["mf_exact"]
        converges = max(constant["largest"], exact["largest"]) < CONVERGED
        settles = dop["median"] < NO_DIP * dop["lowest"] and dop["median"] < SUCCESS
        return [
            f"{mark(converges)}  MF-ℓ1 with r' = r converges up to the length of its steps "
            f"({constant['median']:.1g}), and with decaying steps to {exact['median']:.1g}",
            f"{mark(over['median'] > 10 * over['lowest'])}  MF-ℓ1 with r' = n overfits: {over['lowest']:.1g} at "
            f"iteration {over['at']}, {over['median']:.1g} at the end",
            f"{mark(settles)}  DOP with r' = n converges without "
            f"overfitting: {dop['median']:.1g} at the end, {dop['lowest']:.1g} at its lowest",
        ]

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Plot medians as lines and the range over seeds as bands."""
        axes = drawing.subplots()
        for method, title in self.methods.items():
            own = [row for row in rows if row["method"] == method]
            iterations = [row["iteration"] for row in own]
            colour, dashes = LINES[method]
            least, largest = [row["least"] for row in own], [row["largest"] for row in own]
            axes.fill_between(iterations, least, largest, color=colour, alpha=0.2, linewidth=0)
            axes.plot(iterations, [row["median"] for row in own], color=colour, linestyle=dashes, label=title)
        axes.set_yscale("log")
        axes.set_xlim(0, max(row["iteration"] for row in rows))
        axes.set_xlabel("iteration")
        axes.set_ylabel("relative error  ‖X̂ − X*‖ / ‖X*‖")
        axes.set_title(
            f"Robust PCA, n = 50, r = 5, p = 30 %: median and range of {rows[-1]['seeds']} seeds", loc="left"
        )
        axes.legend(loc="center right")
