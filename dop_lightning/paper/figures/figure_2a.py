"""Figure 2a: errors of X̂ and Ŝ for different ratios α of the learning rates."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

from dop_lightning.foundation.plotting import BLUE, GREY, RED
from dop_lightning.paper.figures.base import FittedFigure, Row, mark

MAX_ERROR_RATIO = 1.05
"""Maximum ratio of the mean error at √n to that of the best α."""

ERRORS = {"signal": ("relative_error", "X̂", RED, "o"), "corruption": ("relative_error_corruption", "Ŝ", BLUE, "s")}
"""Score, symbol, colour and marker of each error."""


class Figure2a(FittedFigure):
    """Relative errors at n = 50, r = 5, p = 0.3: mean and range over instances, which are the same for all α."""

    name = "2a"
    size = (5.2, 3.5)
    methods: ClassVar = {"dop": "DOP"}
    columns: ClassVar = [
        ("alpha_scale", "α/√n", "g"),
        ("alpha", "α", ".3f"),
        ("instances", "instances", "d"),
        ("signal_mean", "error of X̂", ".4f"),
        ("signal_least", "least", ".4f"),
        ("signal_largest", "largest", ".4f"),
        ("corruption_mean", "error of Ŝ", ".4f"),
        ("corruption_least", "least", ".4f"),
        ("corruption_largest", "largest", ".4f"),
    ]

    def table(self, out: Path) -> list[Row]:
        """Return one row per α."""
        results = self.results(out, "dop")
        rows = []
        for scale in sorted({result["alpha_scale"] for result in results}):
            own = [result for result in results if result["alpha_scale"] == scale]
            row: Row = {"alpha_scale": scale, "alpha": own[0]["alpha"], "instances": len(own)}
            for what, (score, *_) in ERRORS.items():
                errors = [result[score] for result in own]
                row |= {f"{what}_mean": mean(errors), f"{what}_least": min(errors), f"{what}_largest": max(errors)}
            rows.append(row)
        return rows

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Check that √n is the best α, or nearly the best."""
        lines = []
        for what, (_, symbol, *_) in ERRORS.items():
            best = min(rows, key=lambda row: row[f"{what}_mean"])
            own = next(row for row in rows if row["alpha_scale"] == 1)
            ratio = own[f"{what}_mean"] / best[f"{what}_mean"]
            lines.append(
                f"{mark(ratio <= MAX_ERROR_RATIO)}  mean error of {symbol} at α = √n: {own[f'{what}_mean']:.4f}, "
                f"{100 * (ratio - 1):.1f} % above the best of the grid (at {best['alpha_scale']:g}·√n); "
                f"at most {100 * (MAX_ERROR_RATIO - 1):.0f} % required"
            )
        return lines

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Plot means as lines and ranges as error bars."""
        axes = drawing.subplots()
        scales = [row["alpha_scale"] for row in rows]
        axes.axvline(1, color=GREY, linewidth=1, linestyle="--", zorder=1)
        for what, (_, symbol, colour, marker) in ERRORS.items():
            means = [row[f"{what}_mean"] for row in rows]
            below = [row[f"{what}_mean"] - row[f"{what}_least"] for row in rows]
            above = [row[f"{what}_largest"] - row[f"{what}_mean"] for row in rows]
            axes.errorbar(
                scales, means, [below, above], color=colour, marker=marker, markersize=4.5, capsize=2.5, label=symbol
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = [0.1, 0.2, 0.5, 1, 2, 5]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("ratio of the learning rates,  α / √n")
        axes.set_ylabel("relative error")
        text = f"Robust PCA, n = 50, r = 5, p = 30 %: mean and range of {rows[0]['instances']} instances"
        axes.set_title(text, loc="left")
        axes.legend(loc="lower left")
