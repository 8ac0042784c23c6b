"""Figure 1b: learning curves on a photograph: DIP-ℓ1 depends on the width of its network, DOP does not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from dop_lightning.foundation.plotting import BLACK, BLUE, GREY, ORANGE, PURPLE, RED, SKY
from dop_lightning.paper.figures.base import Row, mark
from dop_lightning.paper.figures.image_figures import (
    CURVE_COLUMNS,
    MIN_DECREASE,
    ImageFigure,
    image_title,
    peak_and_end,
    percent,
    setting,
    shown,
)
from dop_lightning.runs.results import render_table

LINES = {
    "dip_l1_narrow": (BLUE, ":"),
    "dip_l1_middle": (SKY, "-."),
    "dip_l1_wide": (BLACK, "--"),
    "dop_narrow": (ORANGE, "-"),
    "dop_middle": (PURPLE, "-"),
    "dop_wide": (RED, "-"),
}
"""Colour and line style of each run."""


class Figure1b(ImageFigure):
    """PSNR by iteration at 50 % salt-and-pepper, for networks of three widths."""

    name = "1b"
    size = (5.9, 3.9)
    methods: ClassVar = {
        "dip_l1_narrow": "DIP-ℓ1",
        "dip_l1_middle": "DIP-ℓ1",
        "dip_l1_wide": "DIP-ℓ1",
        "dop_narrow": "DOP",
        "dop_middle": "DOP",
        "dop_wide": "DOP",
    }
    columns: ClassVar = [
        ("title", "method", ""),
        ("width", "width", "d"),
        *CURVE_COLUMNS,
    ]

    def table(self, out: Path) -> list[Row]:
        """Return one row per run and evaluation."""
        rows = []
        for run, title in self.methods.items():
            width = setting(out, run, "model", "signal", "init_args", "width")
            rows += [{"run": run, "title": title, "width": width, **row} for row in self.curves(out, run)]
        return rows

    def _ends(self, rows: Sequence[Row]) -> dict[str, Row]:
        """Return the peak and the end of each run."""
        ends = {}
        for run, title in self.methods.items():
            own = [row for row in rows if row["run"] == run]
            ends[run] = {"title": title, "width": own[0]["width"], **peak_and_end(own)}
        return ends

    def summary(self, rows: Sequence[Row]) -> str:
        """Return a table of the peaks and ends."""
        return render_table(list(self._ends(rows).values()), self.columns)

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Check that DIP-ℓ1 requires a narrow network or early stopping, and DOP neither."""
        ends = self._ends(rows)
        narrow, wide = ends["dip_l1_narrow"], ends["dip_l1_wide"]
        rivals = [end for end in ends.values() if end["title"] == "DIP-ℓ1"]
        own = [end for end in ends.values() if end["title"] == "DOP"]
        largest = max(end["fall"] for end in own)
        wins = all(end["end"] > rival["best"] for end, rival in zip(own, rivals, strict=True))
        pairs = ", ".join(
            f"{end['end']:.1f} against {rival['best']:.1f} at width {end['width']}"
            for end, rival in zip(own, rivals, strict=True)
        )
        return [
            f"{mark(wide['fall'] > MIN_DECREASE)}  DIP-ℓ1 with width {wide['width']} overfits: {wide['best']:.1f} dB "
            f"at iteration {wide['at']}, {wide['end']:.1f} dB at the end",
            f"{mark(narrow['fall'] < wide['fall'])}  DIP-ℓ1 with width {narrow['width']} falls less: "
            f"from {narrow['best']:.1f} to {narrow['end']:.1f} dB",
            f"{mark(largest < MIN_DECREASE)}  DOP does not overfit at any width: it ends at most {largest:.2f} dB "
            "below its best",
            f"{mark(wins)}  the end of DOP is above the best of DIP-ℓ1 at each width: {pairs}",
        ]

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Plot one line per run; the best of each DIP-ℓ1 run is marked."""
        axes = drawing.subplots()
        for run, title in self.methods.items():
            own = [row for row in rows if row["run"] == run]
            colour, dashes = LINES[run]
            if run == "dop_narrow":  # the legend has one column per method
                axes.plot([], [], "o", color=GREY, markersize=4.5, linestyle="none", label="best of DIP-ℓ1")
            label = f"{title}, width {own[0]['width']}"
            axes.plot(
                [row["iteration"] for row in own],
                [shown(row) for row in own],
                color=colour,
                linestyle=dashes,
                label=label,
            )
            if title != "DOP":
                best = max(own, key=shown)
                axes.plot(best["iteration"], shown(best), "o", color=colour, markersize=4.5, zorder=3)
        axes.set_xlim(0, max(row["iteration"] for row in rows))
        axes.set_xlabel("iteration")
        axes.set_ylabel("PSNR, dB")
        first = rows[0]
        axes.set_title(f"{image_title(first['image'])}, {percent(first['ratio'])} salt-and-pepper", loc="left")
        axes.legend(loc="lower left", ncols=2, columnspacing=1.2)
