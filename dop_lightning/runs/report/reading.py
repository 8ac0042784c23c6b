"""What the folder of a run has to tell: its problems, results, curves and settings. Whatever is missing is left out."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dop_lightning.foundation.spread import spread
from dop_lightning.images.pictures import thinned_side
from dop_lightning.runs.find import find_runs
from dop_lightning.runs.folder import MANIFEST, RunFolder
from dop_lightning.runs.histograms import HISTOGRAM, Histogram, corruption_histogram, read_histogram

Curve = list[tuple[int, float]]
"""Iterations, rising, and the values there."""

NO_RESULT = "no result"
"""The status of a problem that is at work, or whose turn has not come."""


@dataclass(frozen=True)
class ProblemFiles:
    """One problem of a run.

    Attributes:
        name: of the problem, and of its folder.
        folder: where its files are; it need not be there.
        shape: of its observation.
        result: what ``result.json`` says; empty where there is none.
        curves: its scores during the run, by tag; of an image in tiles the means over its tiles.
    """

    name: str
    folder: Path
    shape: tuple[int, ...]
    result: Mapping[str, Any]
    curves: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Of its result."""
        return str(self.result.get("status", NO_RESULT))

    @property
    def models_corruption(self) -> bool:
        """Whether the method has an s at all; deep image prior has none. Without a result nobody can tell."""
        return self.result.get("alpha") is not None

    def shows_heat_maps(self) -> bool:
        """Whether its pictures are the colours of a matrix: not where its columns are the frames of a video.

        Raises:
            ValueError: a file is damaged.
        """
        if "scene" in self.result.get("attributes", {}):
            return False
        array, picture_file = self.folder / "recovered.npy", self.folder / "recovered.png"
        if len(self.shape) == 3 or not array.is_file() or not picture_file.is_file():
            return len(self.shape) != 3
        shape = _array(array).shape  # of a signal that was measured the observation has another shape
        if len(shape) != 2:
            return False
        with Image.open(picture_file) as picture:
            return picture.size == tuple(thinned_side(side) for side in reversed(shape))

    def histogram(self) -> Histogram | None:
        """Of |ŝ|, where it was kept or can be counted.

        Raises:
            ValueError: a file is damaged.
        """
        if not self.models_corruption:
            return None
        if (self.folder / HISTOGRAM).is_file():
            return read_histogram(self.folder / HISTOGRAM)
        array = self.folder / "corruption.npy"
        if not array.is_file():
            return None
        return corruption_histogram(_array(array))


def _array(path: Path) -> np.ndarray:
    """The numbers of a file, read where they are used."""
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not an array of numbers ({error})") from error


@dataclass(frozen=True)
class RunFiles:
    """A run.

    Attributes:
        folder: as the user has named it.
        problems: all of them, without curves.
        shown: those with pictures and curves.
        config: the resolved settings, YAML; ``None`` where they are not there.
    """

    folder: Path
    problems: Sequence[ProblemFiles]
    shown: Sequence[ProblemFiles]
    config: str | None

    @property
    def statuses(self) -> Counter[str]:
        """How many problems have which status."""
        return Counter(problem.status for problem in self.problems)


def read_run(run: Path, most: int) -> RunFiles:
    """Read a run.

    Args:
        run: its folder.
        most: problems that are shown with pictures and curves. Where there are more they are spread over all of those
            that have pictures.

    Raises:
        ValueError: the folder is not that of one run, or a file in it is damaged.
        OSError: a file cannot be read.
    """
    _check_is_run(run)
    folder = RunFolder(run)
    entries = {entry["name"]: entry for entry in folder.manifest().problems}
    results = {result["problem"]: result for result in folder.results()}
    problems = [
        ProblemFiles(name, run / name, tuple(entry.get("shape", ())), results.get(name, {}))
        for name, entry in entries.items()
    ]
    with_pictures = [problem for problem in problems if (problem.folder / "recovered.png").is_file()]
    candidates = with_pictures if with_pictures and len(problems) > most else problems
    chosen = [candidates[position] for position in spread(len(candidates), most)]
    curves = _curves(folder, {problem.name: entries[problem.name].get("tiles", [problem.name]) for problem in chosen})
    shown = [ProblemFiles(p.name, p.folder, p.shape, p.result, curves[p.name]) for p in chosen]
    return RunFiles(run, problems, shown, folder.config_text())


def _check_is_run(run: Path) -> None:
    """Refuse what is no run, and say of what is more than one which are in it."""
    found = list(find_runs(run))
    if found == [run]:
        if not RunFolder(run).has_run:
            raise ValueError(f"{run}: has not begun, there is nothing to report")
    elif not found:
        raise ValueError(f"{run}: holds no run, which has a {MANIFEST}")
    else:
        raise ValueError(
            f"{run}: a report is of one run, got a folder that holds {len(found)}; give one of them, "
            f"such as {found[0]}; dop table {run} has the results of all"
        )


def _curves(run: RunFolder, parts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Curve]]:
    """The curves of some problems, by problem and tag.

    Args:
        run: the folder.
        parts: for each problem the names under which its scores were taken: its own, or those of its tiles.
    """
    owner = {part: name for name, names in parts.items() for part in names}
    seen: dict[tuple[str, str], dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    try:
        for metric in run.metrics():
            if metric.problem in owner and math.isfinite(metric.value):
                # of an iteration that was done twice, by a run that went on, the later value counts
                seen[owner[metric.problem], metric.tag][metric.iteration][metric.problem] = metric.value
    except FileNotFoundError:  # not yet evaluated
        pass
    curves: dict[str, dict[str, Curve]] = {name: {} for name in parts}
    for (name, tag), by_iteration in seen.items():
        # a mean over a part of the tiles would jump where others set in
        curves[name][tag] = [
            (iteration, sum(values.values()) / len(values))
            for iteration, values in sorted(by_iteration.items())
            if len(values) == len(parts[name])
        ]
    return curves
