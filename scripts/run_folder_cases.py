"""Runs of a few iterations on 12×12 problems, for fault injection: their commands and their expected results."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

MATRICES = """
model: {tau: 2.e-3, block: 2, evaluate_every: 2}
data:
  class_path: MatrixDataModule
  init_args:
    n: 12
    rank: 1
    batch_size: 2
    noise: {class_path: dop_lightning.problems.noise.GrossOutliers, init_args: {ratio: 0.1}}
trainer: {accelerator: cpu}
"""

IMAGES = """
model:
  signal: {class_path: SkipUNet, init_args: {width: 2, scales: 1, input_channels: 2, precision: fp32}}
  corruption: {class_path: HadamardCorruption, init_args: {scale: 1.0e-5, tied: false}}
  loss: {class_path: SquaredLoss, init_args: {reduction: mean}}
  tau: 0.5
  alpha: 20.0
  block: 2
  evaluate_every: 2
data:
  class_path: ImageDataModule
  init_args: {noise: {class_path: dop_lightning.problems.noise.SaltAndPepper, init_args: {ratio: 0.3}}}
trainer: {accelerator: cpu}
"""


class Level(NamedTuple):
    """Amount of work of a command.

    Attributes:
        problems: number of problems, from 1 to 3.
        iterations: 1 for half of the iterations, 2 for all, if the command allows an increase later.
    """

    problems: int
    iterations: int


class Case(NamedTuple):
    """A command.

    Attributes:
        command: function that returns its arguments, given inputs, run and level.
        has_config: whether ``dop fit --config RUN/config.yaml`` repeats it.
        runs_on: whether the number of iterations may be increased later.
    """

    command: Callable[[Path, Path, Level], list[str]]
    has_config: bool = False
    runs_on: bool = False


def _fit(name: str, *option: str) -> Callable[[Path, Path, Level], list[str]]:
    def command(inputs: Path, run: Path, level: Level) -> list[str]:
        arguments = [part.format(level.problems) for part in option]
        steps = ["--trainer.max_steps", str(6 * level.iterations)]
        return ["fit", "--config", str(inputs / name), "--trainer.default_root_dir", str(run), *steps, *arguments]

    return command


def _fit_images(inputs: Path, run: Path, level: Level) -> list[str]:
    names = ", ".join(str(inputs / f"{letter}.png") for letter in "abc"[: level.problems])
    return _fit("images.yaml", "--data.images", f"[{names}]")(inputs, run, level)


def _verb(verb: str, suffix: str, *option: str) -> Callable[[Path, Path, Level], list[str]]:
    def command(inputs: Path, run: Path, level: Level) -> list[str]:
        files = [str(inputs / f"{letter}{suffix}") for letter in "abc"[: level.problems]]
        return [verb, *files, "--out", str(run), *option]

    return command


CASES = {
    "matrices": Case(_fit("matrices.yaml", "--data.seeds", "{}"), has_config=True, runs_on=True),
    "images": Case(_fit_images, has_config=True, runs_on=True),
    "recover": Case(_verb("recover", ".png", "--width", "2", "--iterations", "20")),
    "instant": Case(_verb("recover", ".png", "--preset", "instant")),
    "separate": Case(_verb("separate", ".npy", "--method", "dop", "--alpha", "4", "--iterations", "60")),
    "pieces": Case(_verb("separate", "-large.npy", "--max-memory", "1K")),
}


def write_inputs(folder: Path) -> None:
    """Write configs, pictures and matrices."""
    (folder / "matrices.yaml").write_text(MATRICES)
    (folder / "images.yaml").write_text(IMAGES)
    draws = np.random.default_rng(0)
    for letter in "abc":
        pixels = np.add.outer(np.arange(12), np.arange(12)) * 10
        pixels[draws.random((12, 12)) < 0.1] = 255
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{letter}.png")
        matrix = draws.normal(size=(12, 1)) @ draws.normal(size=(1, 12))
        matrix[draws.random((12, 12)) < 0.05] += 10
        np.save(folder / f"{letter}.npy", matrix)
        large = draws.normal(size=(150, 2)) @ draws.normal(size=(2, 120))
        large[draws.random((150, 120)) < 0.1] += 10
        np.save(folder / f"{letter}-large.npy", large.astype(np.float32))


def rows(run: Path) -> list[dict[str, str]]:
    """Return the rows of ``results.csv`` without seconds."""
    with (run / "results.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


KEPT = re.compile(r"(\.npy|\.png|histogram\.csv|metrics\.csv)$")
"""Names of files whose bytes depend only on the problems."""


def files(run: Path) -> dict[str, bytes]:
    """Return arrays, pictures and curves, by name."""
    found = (path for path in sorted(run.rglob("*")) if path.is_file() and KEPT.search(path.name))
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in found}


def temporary_files(run: Path) -> list[str]:
    """Return the names of temporary files, which should have been renamed."""
    found = (path for path in sorted(run.rglob("*")) if path.suffix in (".tmp", ".new"))
    return [path.relative_to(run).as_posix() for path in found]
