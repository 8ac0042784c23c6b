"""Section of a page about one problem: pictures, scores, settings, charts and files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from dop_lightning.runs.damage import require_intact
from dop_lightning.runs.report.chart import Chart
from dop_lightning.runs.report.curves import problem_charts
from dop_lightning.runs.report.embed import SIDE, Embedded, embed
from dop_lightning.runs.report.histogram import histogram_chart
from dop_lightning.runs.report.reading import NO_RESULT, ProblemFiles
from dop_lightning.runs.report.text import number, score, seconds
from dop_lightning.runs.results import custom_scores

STATUS_MEANINGS = {
    "done": "completed the requested number of iterations",
    "stable": "stopped early, because its output no longer changed or no longer improved",
    "diverged": "did not converge; the last state before divergence is shown; use a smaller alpha or tau",
    "interrupted": "was interrupted; run the same command again to finish it",
    NO_RESULT: "has no result yet: it is running or waiting, or its process was killed",
}
"""Explanation of each status."""

SCORES = (
    ("PSNR as observed", "input_psnr"),
    ("PSNR recovered", "psnr"),
    ("SSIM", "ssim"),
    ("Relative error of X", "relative_error"),
    ("Relative error of s", "relative_error_corruption"),
    ("Detected as corrupted", "corruption_density"),
    ("Truly corrupted", "true_density"),
    ("Precision of the detected corruption", "support_precision"),
    ("Recall of the detected corruption", "support_recall"),
    ("Rank", "rank"),
    ("Loss", "loss"),
)

Rows = list[tuple[str, str]]
"""Pairs of a name and a value."""


class Status(NamedTuple):
    """A status on the page. ``kind`` and ``note`` are classes of the style sheet."""

    name: str
    kind: str
    meaning: str
    note: str


class Picture(NamedTuple):
    """A picture with its caption; a slider over two pictures if ``before`` is given."""

    picture: Embedded
    text: str
    before: Embedded | None = None

    @property
    def caption(self) -> str:
        """The caption, with a capital first letter."""
        return self.text[:1].upper() + self.text[1:]


@dataclass(frozen=True)
class ProblemSection:
    """Section of one problem.

    Attributes:
        anchor: id of the section.
        name: name of the problem.
        status: status of the problem.
        pictures: pictures, side by side.
        scores: names and values of its scores.
        settings: names and values of its settings.
        charts: charts of its curves and its corruption.
        files: address, relative to the page, and name of each file.
    """

    anchor: str
    name: str
    status: Status
    pictures: Sequence[Picture]
    scores: Rows
    settings: Rows
    charts: Sequence[Chart]
    files: Rows


def problem_section(problem: ProblemFiles, anchor: str, page: Path, side: int = SIDE) -> ProblemSection:
    """Collect the content of the section of a problem.

    Args:
        problem: the problem, with its curves.
        anchor: id of the section.
        page: path where the page will be written; links to files are relative to it.
        side: maximum size of its pictures, see :func:`embed`.

    Raises:
        ValueError: a file of the problem is damaged.
    """
    charts = problem_charts(problem)
    histogram = problem.histogram()
    if histogram is not None:
        charts.append(histogram_chart(histogram))
    return ProblemSection(
        anchor,
        problem.name,
        status_of(problem.status),
        _pictures(problem, side),
        _scores(problem.result),
        _settings(problem),
        charts,
        _files(problem.folder, page),
    )


def status_of(name: str) -> Status:
    """Return a status with its explanation.

    >>> status_of("stable").kind, status_of("no result").kind, status_of("unheard of").kind
    ('stable', 'no-result', 'other')
    """
    kind = name.replace(" ", "-") if name in STATUS_MEANINGS else "other"
    note = {"done": "", "stable": "", "diverged": "bad"}.get(name, "mild")
    return Status(name, kind, STATUS_MEANINGS.get(name, name), note)


def _pictures(problem: ProblemFiles, side: int) -> list[Picture]:
    """Return a slider over observation and recovery, then the pictures of corruption and truth."""
    names = ("observation", "recovered", "corruption", "corruption_probability", "truth")
    paths = {name: problem.folder / f"{name}.png" for name in names}
    if problem.result and not problem.models_corruption:
        del paths["corruption"]
    if not paths["recovered"].is_file():
        return []
    is_matrix = problem.shows_heat_maps()
    for path in paths.values():
        if path.is_file():
            require_intact(path, problem.result)
    found = {name: embed(path, is_matrix, side) for name, path in paths.items() if path.is_file()}
    note = " Blue is negative, white is 0, red is positive; all pictures have the same scale." if is_matrix else ""
    texts = {
        "observation": "observed." + note,
        "recovered": "recovered." + note,
        "corruption": "detected corruption s." + ("" if is_matrix else " Black is clean."),
        "corruption_probability": "probability that a value is corrupted. White is certain.",
        "truth": "truth, which is unknown to the method.",
    }
    pictures = []
    if "observation" in found and "recovered" in found:
        pictures.append(Picture(found.pop("recovered"), note, before=found.pop("observation")))
    return pictures + [Picture(picture, texts[name]) for name, picture in found.items()]


def _scores(result: Mapping[str, Any]) -> Rows:
    custom = custom_scores([result])
    titles = [*SCORES, *zip(custom, custom, strict=True)]
    rows = [(title, score(key, result[key])) for title, key in titles if result.get(key) is not None]
    if result.get("best_psnr") is not None and result["best_iteration"] != result["iterations"]:
        best = f"{score('best_psnr', result['best_psnr'])} at {number(result['best_iteration'])}"
        rows.append(("Best PSNR during the run", best))
    return rows


def _settings(problem: ProblemFiles) -> Rows:
    result = problem.result
    rows = [(key, number(value)) for key, value in result.get("attributes", {}).items()]
    if problem.shape:
        rows.append(("size", " × ".join(str(length) for length in problem.shape)))
    for key in ("seed", "alpha", "tau", "iterations"):
        if result.get(key) is not None and key not in result["attributes"]:
            rows.append((key, number(result[key])))
    if "seconds" in result:
        rows.append(("time", seconds(result["seconds"])))
    if "device" in result.get("machine", {}):
        rows.append(("device", str(result["machine"]["device"])))
    return rows


def _files(folder: Path, page: Path) -> Rows:
    """Return links to the files of the problem. The page does not depend on them."""
    if not folder.is_dir():
        return []
    names = [p.name for p in folder.iterdir() if p.is_file() and "tfevents" not in p.name and p.name[0] != "."]
    names.sort(key=lambda name: (not name.endswith(".mp4"), name))
    start = os.path.relpath(folder.absolute(), page.absolute().parent)
    return [(quote(os.fsencode(Path(start, name))), name) for name in names]
