"""Figures of pictures: one row per problem, one column per method, with the PSNR below each picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from dop_lightning.foundation.names import safe_name
from dop_lightning.paper.figures.base import RUNS, Row, mark
from dop_lightning.paper.figures.image_figures import MIN_DECREASE, ImageFigure
from dop_lightning.paper.figures.kept_pictures import BEST, OBSERVED, TRUTH
from dop_lightning.runs.results import render_table

END = "recovered.png"

SIDE = 1.32
"""Length of the longer side of a picture, in inches."""

CAPTION = 0.24
"""Height of the caption of a picture, in inches."""


class MosaicFigure(ImageFigure):
    """The truth, the observation, and the result of each method.

    DIP and DIP-ℓ1 are shown at their best PSNR (an oracle stops them), as in the paper. DOP is shown at its end.

    Attributes:
        title: title of the figure.
        stopped: methods that are shown at their best PSNR.
    """

    title: ClassVar[str]
    size = (7.0, 6.6)
    methods: ClassVar = {"dip": "DIP", "dip_l1": "DIP-ℓ1", "dop": "DOP"}
    stopped: ClassVar = ("dip", "dip_l1")
    columns: ClassVar = [
        ("label", "problem", ""),
        ("input", "input", ".2f"),
        ("dip", "DIP, best", ".2f"),
        ("dip_at", "at iteration", "d"),
        ("dip_end", "end", ".2f"),
        ("dip_l1", "DIP-ℓ1, best", ".2f"),
        ("dip_l1_at", "at iteration", "d"),
        ("dip_l1_end", "end", ".2f"),
        ("dop_best", "DOP, best", ".2f"),
        ("dop_end", "end", ".2f"),
    ]

    def label(self, row: Mapping[str, Any]) -> str:
        """Return the label of a row of pictures."""
        raise NotImplementedError

    def table(self, out: Path) -> list[Row]:
        """Return one row per problem and picture, with its method, PSNR and file, relative to the CSV.

        Raises:
            ValueError: the runs have different problems.
        """
        found = {run: {result["problem"]: result for result in self.results(out, run)} for run in self.methods}
        problems = list(found["dop"])
        for run, own in found.items():
            if list(own) != problems:
                raise ValueError(f"{out}: runs must have equal problems, but {run} differs from dop")
        rows: list[Row] = []
        for problem in problems:
            first = found["dop"][problem]
            place = {"problem": problem, "image": first["image"], "ratio": first["ratio"]}
            folder = f"{RUNS}/dop/{safe_name(problem)}"
            rows.append({**place, "method": "truth", "file": f"{folder}/{TRUTH}"})
            observed = {"psnr": first["input_psnr"], "file": f"{folder}/{OBSERVED}"}
            rows.append({**place, "method": "observed", **observed})
            for run in self.methods:
                result, stopped = found[run][problem], run in self.stopped
                row = {**place, "method": run, "psnr": result["best_psnr" if stopped else "psnr"]}
                row["iteration"] = result["best_iteration" if stopped else "iterations"]
                row["file"] = f"{RUNS}/{run}/{safe_name(problem)}/{BEST if stopped else END}"
                row |= {"best_psnr": result["best_psnr"], "best_iteration": result["best_iteration"]}
                rows.append({**row, "end_psnr": result["psnr"], "iterations": result["iterations"]})
        return rows

    def _problems(self, rows: Sequence[Row]) -> list[Row]:
        """Return one row per problem, with all methods as columns."""
        wide: dict[str, Row] = {}
        for row in rows:
            own = wide.setdefault(row["problem"], {"label": self.label(row)})
            if row["method"] == "observed":
                own["input"] = row["psnr"]
            elif row["method"] in self.methods:
                method = row["method"]
                own |= {method: row["psnr"], f"{method}_at": int(row["best_iteration"])}
                own |= {f"{method}_best": row["best_psnr"], f"{method}_end": row["end_psnr"]}
        return list(wide.values())

    def summary(self, rows: Sequence[Row]) -> str:
        """Return a table with one line per problem."""
        return render_table(self._problems(rows), self.columns)

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Check that DOP is best, without early stopping."""
        problems = self._problems(rows)
        lines = []
        for rival in self.stopped:
            below = [p["label"] for p in problems if p["dop"] <= p[rival]]
            gain = [p["dop"] - p[rival] for p in problems]
            where = f"; not at {', '.join(below)}" if below else ""
            lines.append(
                f"{mark(not below)}  the end of DOP is above the best of {self.methods[rival]} in "
                f"{len(problems) - len(below)} of {len(problems)}, by {min(gain):+.1f} to {max(gain):+.1f} dB{where}"
            )
        fall = max(p["dop_best"] - p["dop_end"] for p in problems)
        lines.append(f"{mark(fall < MIN_DECREASE)}  DOP ends at most {fall:.2f} dB below its own best")
        loss = [p["dip_l1"] - p["dip_l1_end"] for p in problems]
        lines.append(f"     without stopping, DIP-ℓ1 ends {min(loss):.1f} to {max(loss):.1f} dB below its best")
        return lines

    def write(self, rows: Sequence[Row], out: Path) -> None:
        """Write the table and the figure, whose pictures are in ``out``."""
        self._pictures = {row["file"]: _picture(out / row["file"]) for row in rows}
        super().write(rows, out)

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Draw a grid of pictures, with the best PSNR of each row in bold."""
        titles = {"truth": "truth", "observed": "observed"}
        for run, title in self.methods.items():
            titles[run] = f"{title},\n{'best iteration' if run in self.stopped else 'at the end'}"
        problems = list(dict.fromkeys(row["problem"] for row in rows))
        pictures = {(row["problem"], row["method"]): self._pictures[row["file"]] for row in rows}
        shapes = [pictures[problem, "truth"].shape for problem in problems]
        heights = [SIDE * shape[0] / max(shape[:2]) + CAPTION for shape in shapes]
        drawing.set_size_inches(len(titles) * (SIDE + 0.06) + 0.3, sum(heights) + 0.62)
        grid = drawing.subplots(len(problems), len(titles), squeeze=False, gridspec_kw={"height_ratios": heights})
        for line, problem in zip(grid, problems, strict=True):
            own = [row for row in rows if row["problem"] == problem]
            best = max(row["psnr"] for row in own if row["method"] in self.methods)
            for axes, row in zip(line, own, strict=True):
                _draw(axes, pictures[problem, row["method"]])
                if "psnr" in row:
                    weight = "bold" if row["psnr"] == best else "normal"
                    axes.set_xlabel(f"{row['psnr']:.2f} dB", fontweight=weight, labelpad=3)
            line[0].set_ylabel(self.label(own[0]), labelpad=4)
        for axes, title in zip(grid[0], titles.values(), strict=True):
            axes.set_title(title)
        drawing.suptitle(self.title, fontsize=10, x=0.01, ha="left")


def _draw(axes: Any, picture: np.ndarray) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _picture(path: Path) -> np.ndarray:
    """Read a picture of a run.

    Raises:
        ValueError: the file has been removed.
    """
    if not path.is_file():
        raise ValueError(f"{path}: the picture is missing; remove the folder of this run and start again")
    with Image.open(path) as image:
        return np.array(image)
