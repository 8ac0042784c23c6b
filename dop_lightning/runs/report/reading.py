"""Read problems, results, curves and settings from the folder of a run. Missing files are skipped."""

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
"""Pairs of an iteration and a value, with increasing iterations."""

NO_RESULT = "no result"
"""Status of a problem that is running or waiting."""


@dataclass(frozen=True)
class ProblemFiles:
    """One problem of a run.

    Attributes:
        name: name of the problem and of its folder.
        folder: folder of its files, which may not exist.
        shape: shape of its observation.
        result: content of ``result.json``; empty if it does not exist.
        curves: its scores during the run, by tag; means over its tiles if the image is recovered in tiles.
    """

    name: str
    folder: Path
    shape: tuple[int, ...]
    result: Mapping[str, Any]
    curves: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Status of its result."""
        return str(self.result.get("status", NO_RESULT))

    @property
    def models_corruption(self) -> bool:
        """Whether the method models a corruption s; deep image prior does not. False if there is no result."""
        return self.result.get("alpha") is not None

    def shows_heat_maps(self) -> bool:
        """Return whether its pictures are heat maps of a matrix. They are not if its columns are frames of a video.

        Raises:
            ValueError: a file is damaged.
        """
        if "scene" in self.result.get("attributes", {}):
            return False
        array, picture_file = self.folder / "recovered.npy", self.folder / "recovered.png"
        if len(self.shape) == 3 or not array.is_file() or not picture_file.is_file():
            return len(self.shape) != 3
        shape = _array(array).shape  # the shape of the signal may differ from that of the observation
        if len(shape) != 2:
            return False
        with Image.open(picture_file) as picture:
            return picture.size == tuple(thinned_side(side) for side in reversed(shape))

    def histogram(self) -> Histogram | None:
        """Return the histogram of |ŝ|, if it was saved or can be computed.

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
    """Open the array of a file, which is read on access."""
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not an array of numbers ({error})") from error


@dataclass(frozen=True)
class RunFiles:
    """A run.

    Attributes:
        folder: folder of the run, as given by the user.
        problems: all problems, without curves.
        shown: problems with pictures and curves.
        config: resolved settings as YAML; ``None`` if the file is missing.
    """

    folder: Path
    problems: Sequence[ProblemFiles]
    shown: Sequence[ProblemFiles]
    config: str | None

    @property
    def statuses(self) -> Counter[str]:
        """Number of problems by status."""
        return Counter(problem.status for problem in self.problems)


def read_run(run: Path, most: int) -> RunFiles:
    """Read a run.

    Args:
        run: folder of the run.
        most: maximum number of problems with pictures and curves. If there are more, an evenly spaced sample of the
            problems that have pictures is used.

    Raises:
        ValueError: the folder does not contain exactly one run, or a file in it is damaged.
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
    """Refuse a folder that does not contain exactly one run; list some of them if there are several."""
    found = list(find_runs(run))
    if found == [run]:
        if not RunFolder(run).has_run:
            raise ValueError(f"{run}: has not started, so a report cannot be created")
    elif not found:
        raise ValueError(f"{run}: contains no run (a folder with {MANIFEST})")
    else:
        raise ValueError(
            f"{run}: a report shows one run, but the folder contains {len(found)}; specify one of them, "
            f"such as {found[0]}; dop table {run} lists the results of all runs"
        )


def _curves(run: RunFolder, parts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Curve]]:
    """Return the curves of some problems, by problem and tag.

    Args:
        run: folder of the run.
        parts: for each problem, the names of its curves: its own name, or those of its tiles.
    """
    owner = {part: name for name, names in parts.items() for part in names}
    seen: dict[tuple[str, str], dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    try:
        for metric in run.metrics():
            if metric.problem in owner and math.isfinite(metric.value):
                # a resumed run may repeat an iteration: the later value counts
                seen[owner[metric.problem], metric.tag][metric.iteration][metric.problem] = metric.value
    except FileNotFoundError:  # not yet evaluated
        pass
    curves: dict[str, dict[str, Curve]] = {name: {} for name in parts}
    for (name, tag), by_iteration in seen.items():
        # a mean over some of the tiles would jump when others begin
        curves[name][tag] = [
            (iteration, sum(values.values()) / len(values))
            for iteration, values in sorted(by_iteration.items())
            if len(values) == len(parts[name])
        ]
    return curves
