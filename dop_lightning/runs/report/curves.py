"""Charts of the curves of one problem, and of several problems in one chart."""

from collections.abc import Mapping, Sequence
from typing import Any

from dop_lightning.runs.report.axes import fitted
from dop_lightning.runs.report.chart import BOTTOM, LEFT, RIGHT, TOP, Chart, Series, can_be_log, summarize_curve
from dop_lightning.runs.report.reading import Curve, ProblemFiles
from dop_lightning.runs.report.text import score
from dop_lightning.runs.results import custom_scores

TITLES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "relative_error": "Relative error of X",
    "loss": "Loss",
    "corruption_density": "Fraction of entries detected as corrupted",
}
"""Titles of the curves that come first, in order. Other curves follow, titled by their tags."""

COMPANION_TAGS = {"psnr_average": "psnr"}
"""Tags that are drawn in the chart of another tag, such as the score of the average of the last outputs."""

LOGARITHMIC = {"relative_error", "loss"}
FROM_ZERO = {"corruption_density"}
OVERLAID = ("psnr", "relative_error", "loss")
"""Tags with one chart for the curves of all problems; of the first two, only one is used. Custom scores follow."""

COLOURS = 6
MAX_TITLES = 12
"""Maximum number of charts per problem."""


def problem_charts(problem: ProblemFiles) -> list[Chart]:
    """Return the charts of a problem, beginning with common scores."""
    known = [tag for tag in problem.curves if problem.curves[tag] and tag not in COMPANION_TAGS]
    tags = [tag for tag in TITLES if tag in known] + [tag for tag in known if tag not in TITLES]
    charts = []
    for tag in tags[:MAX_TITLES]:
        lines = {tag: problem.curves[tag]}
        for other, host in COMPANION_TAGS.items():
            if host == tag and problem.curves.get(other):
                lines[other] = problem.curves[other]
        charts.append(_chart(tag, lines, _levels(tag, problem.result)))
    return charts


def overlaid_charts(problems: Sequence[ProblemFiles]) -> list[Chart]:
    """Return one chart per score, with the curves of several problems."""
    charts: list[Chart] = []
    for tag in (*OVERLAID, *custom_scores(problem.result for problem in problems)):
        lines = {p.name: p.curves[tag] for p in problems if p.curves.get(tag)}
        if len(lines) < 2 or (tag == "relative_error" and charts):
            continue
        charts.append(_chart(tag, lines))
    return charts


def _chart(tag: str, lines: Mapping[str, Curve], levels: Sequence[tuple[float, str]] = ()) -> Chart:
    values = [value for curve in lines.values() for _, value in curve]
    spread = max(values) / min(values) if can_be_log(values) else 0.0
    log = spread > 0 and (tag in LOGARITHMIC or (tag not in TITLES and spread > 100))
    levels = [level for level in levels if not log or level[0] > 0]
    iterations = [float(iteration) for curve in lines.values() for iteration, _ in curve]
    return Chart(
        title=TITLES.get(tag, tag),
        x=fitted(iterations, LEFT, RIGHT, from_zero=True),
        y=fitted(values + [value for value, _ in levels], BOTTOM, TOP, log, tag in FROM_ZERO),
        x_label="gradient iterations",
        summary=summarize_curve(lines[tag]) if tag in lines else f"{len(lines)} curves",
        series=[Series(label, curve, place % COLOURS) for place, (label, curve) in enumerate(lines.items())],
        levels=levels,
        legend=[(f"c{place}", label) for place, label in enumerate(lines)] if 1 < len(lines) <= COLOURS else [],
    )


def _levels(tag: str, result: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Return the reference values of a curve."""
    if tag == "psnr" and result.get("input_psnr") is not None:
        return [(result["input_psnr"], f"as observed: {score(tag, result['input_psnr'])}")]
    if tag == "corruption_density" and result.get("true_density") is not None:
        return [(result["true_density"], f"true: {score(tag, result['true_density'])}")]
    return []
