"""What figures of images share: where the paper's four images are, the curves of their runs, names of problems."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dop_lightning.paper.figures.base import RUNS, Fit, FittedFigure, Row
from dop_lightning.paper.figures.configs import Scale, layers
from dop_lightning.runs.folder import RunFolder

TAGS = ("psnr", "psnr_average")
"""The curves that are read: of X̂, and of the running average of it where a run keeps one."""

CURVE_COLUMNS = (
    ("best", "best PSNR", ".2f"),
    ("at", "at iteration", "d"),
    ("end", "at the end", ".2f"),
    ("iterations", "iterations", "d"),
)
"""Of what :func:`peak_and_end` tells of a curve."""

FALLS = 1.0
"""Decibels: who ends so far below their best has to be stopped; less may be due to the perturbed inputs."""


class ImageFigure(FittedFigure):
    """A figure of runs on images: at scale small on photographs of the package, at scale paper on the user's files.

    Attributes:
        images: a folder in the place of the one that the configs name; ``None`` for that one.
    """

    images: Path | None = None

    def use_images(self, folder: Path) -> None:
        """Take the paper's images from there."""
        self.images = folder

    def compute(self, out: Path, scale: Scale, fit: Fit) -> int:
        """Do the runs that are missing, and finish those that were interrupted.

        Raises:
            ValueError: an image is missing, or a folder was given for a scale that needs none.
        """
        if scale != "paper" and self.images is not None:
            raise ValueError(f"--images goes with --scale paper, got --images {self.images} with --scale {scale}")
        options = {run: self._images(run) for run in self.methods} if scale == "paper" else {}
        for run in self.methods:
            if status := fit(run, layers(self.name, run, scale), out / RUNS / run, options.get(run, [])):
                return status
        return 0

    def _images(self, run: str) -> list[str]:
        """The option that names the images of a run, where they are not those of its config.

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
                f"{paths[0].parent}: the folder must hold the paper's images, got none called {', '.join(missing)}; "
                "scripts/fetch_images.py fetches them, and --images names another folder"
            )
        return [] if self.images is None else ["--data.images", json.dumps([str(path) for path in paths])]

    def curves(self, out: Path, run: str) -> list[Row]:
        """The curves of a run: a row a problem and evaluation, with the attributes of the problem.

        Raises:
            ValueError: there is none.
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
            raise ValueError(f"{folder.metrics_path}: no PSNR of any problem is known")
        return list(rows.values())


def setting(out: Path, run: str, *keys: str) -> Any:
    """A setting of a run, from its ``config.yaml``: ``setting(out, "dop", "model", "alpha")``."""
    return RunFolder(out / RUNS / run).setting(*keys)


def shown(row: Row) -> float:
    """The PSNR of what a run gives: the running average, where it keeps one."""
    return float(row["psnr_average"] if "psnr_average" in row else row["psnr"])


def peak_and_end(curve: Sequence[Row]) -> Row:
    """The best of a curve, where it is, the end, and how far the end is below the best, dB.

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
    """How a figure calls an image: as its file, a first letter in upper case.

    >>> image_title("astronaut"), image_title("F16")
    ('Astronaut', 'F16')
    """
    return name[:1].upper() + name[1:]


def percent(ratio: float) -> str:
    """A share for people.

    >>> percent(0.7)
    '70 %'
    """
    return f"{100 * ratio:.0f} %"
