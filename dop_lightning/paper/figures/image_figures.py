"""Common parts of figures of images: location of the paper's images, curves of runs, and labels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dop_lightning.paper.figures.base import RUNS, Fit, FittedFigure, Row
from dop_lightning.paper.figures.configs import Scale, layers
from dop_lightning.runs.folder import RunFolder

TAGS = ("psnr", "psnr_average")
"""Tags of the curves: PSNR of X̂, and of its running average if the run has one."""

CURVE_COLUMNS = (
    ("best", "best PSNR", ".2f"),
    ("at", "at iteration", "d"),
    ("end", "at the end", ".2f"),
    ("iterations", "iterations", "d"),
)
"""Columns for the result of :func:`peak_and_end`."""

MIN_DECREASE = 1.0
"""Decrease in dB below the best from which a method requires stopping; perturbed inputs can cause smaller decreases."""


class ImageFigure(FittedFigure):
    """Figure of runs on images: photographs of the package at scale small, the user's files at scale paper.

    Attributes:
        images: folder that replaces the one in the configs; ``None`` to use that of the configs.
    """

    images: Path | None = None

    def use_images(self, folder: Path) -> None:
        """Read the paper's images from a folder."""
        self.images = folder

    def compute(self, out: Path, scale: Scale, fit: Fit) -> int:
        """Start missing runs and resume interrupted ones.

        Raises:
            ValueError: an image is missing, or a folder was given for a scale that does not use it.
        """
        if scale != "paper" and self.images is not None:
            raise ValueError(f"--images requires --scale paper, got --images {self.images} with --scale {scale}")
        options = {run: self._images(run) for run in self.methods} if scale == "paper" else {}
        for run in self.methods:
            if status := fit(run, layers(self.name, run, scale), out / RUNS / run, options.get(run, [])):
                return status
        return 0

    def _images(self, run: str) -> list[str]:
        """Return the option for the images of a run if they differ from those of its config.

        Raises:
            ValueError: an image is missing.
        """
        config = layers(self.name, run, "paper")[0]
        named = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]["init_args"]["images"]
        paths = [Path(path) for path in ([named] if isinstance(named, str) else named)]
        if self.images is not None:
            paths = [self.images / path.name for path in paths]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ValueError(
                f"{paths[0].parent}: the paper's images {', '.join(missing)} are missing; run scripts/fetch_images.py, "
                "or pass another folder with --images"
            )
        return [] if self.images is None else ["--data.images", json.dumps([str(path) for path in paths])]

    def curves(self, out: Path, run: str) -> list[Row]:
        """Return the curves of a run, one row per problem and evaluation, with the attributes of the problem.

        Raises:
            ValueError: the run has no curves.
        """
        rows: dict[tuple[str, int], Row] = {}
        attributes = {result["problem"]: result["attributes"] for result in self.results(out, run)}
        folder = RunFolder(out / RUNS / run)
        for entry in folder.metrics():
            if entry.tag in TAGS and entry.problem in attributes:
                of_problem = attributes[entry.problem]
                new = {"image": of_problem["image"], "ratio": of_problem["ratio"], "iteration": entry.iteration}
                rows.setdefault((entry.problem, entry.iteration), new)[entry.tag] = entry.value
        if not rows:
            raise ValueError(f"{folder.metrics_path}: must contain the PSNR of at least one problem, got none")
        return list(rows.values())


def setting(out: Path, run: str, *keys: str) -> Any:
    """Return a setting of a run from its ``config.yaml``, for example ``setting(out, "dop", "model", "alpha")``."""
    return RunFolder(out / RUNS / run).setting(*keys)


def shown(row: Row) -> float:
    """Return the PSNR of a run's output, which is the running average if there is one."""
    return float(row["psnr_average"] if "psnr_average" in row else row["psnr"])


def peak_and_end(curve: Sequence[Row]) -> Row:
    """Return the best PSNR of a curve, its iteration, the final PSNR, and the difference between both, in dB.

    >>> curve = [{"iteration": 10 * k, "psnr": psnr} for k, psnr in enumerate([5.0, 20.0, 12.0])]
    >>> peak_and_end(curve)
    {'best': 20.0, 'at': 10, 'end': 12.0, 'iterations': 20, 'fall': 8.0}
    """
    best, last = max(curve, key=shown), curve[-1]
    fall = shown(best) - shown(last)
    return {
        "best": shown(best),
        "at": best["iteration"],
        "end": shown(last),
        "iterations": last["iteration"],
        "fall": fall,
    }


def image_title(name: str) -> str:
    """Return the label of an image: its file name with an upper-case first letter.

    >>> image_title("astronaut"), image_title("F16")
    ('Astronaut', 'F16')
    """
    return name[:1].upper() + name[1:]


def percent(ratio: float) -> str:
    """Format a fraction as a percentage.

    >>> percent(0.7)
    '70 %'
    """
    return f"{100 * ratio:.0f} %"
