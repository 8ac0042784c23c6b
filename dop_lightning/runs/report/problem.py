"""The part of a page about one problem: pictures, scores, curves, files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dop_lightning.runs.report.curves import problem_charts
from dop_lightning.runs.report.embed import SIDE, Embedded, embed
from dop_lightning.runs.report.histogram import histogram_chart
from dop_lightning.runs.report.reading import NO_RESULT, ProblemFiles
from dop_lightning.runs.report.text import escape, number, score, seconds

MEANING = {
    "done": "came to the number of iterations that was asked for",
    "stable": "ended by itself: its output no longer changed, or no longer improved",
    "diverged": "did not converge, and what is shown is from before that; a smaller alpha or tau is needed",
    "interrupted": "was stopped before its end; the same command again finishes it",
    NO_RESULT: "has no result yet: it is at work, waits for its turn, or was stopped hard",
}
"""What a status says."""

SCORES = (
    ("PSNR as observed", "input_psnr"),
    ("PSNR recovered", "psnr"),
    ("SSIM", "ssim"),
    ("Relative error of X", "relative_error"),
    ("Relative error of s", "relative_error_corruption"),
    ("Found corrupted", "corruption_density"),
    ("Truly corrupted", "true_density"),
    ("Right among those found", "support_precision"),
    ("Found among those corrupted", "support_recall"),
    ("Rank", "rank"),
    ("Loss", "loss"),
)


def problem_section(problem: ProblemFiles, anchor: str, page: Path, side: int = SIDE) -> str:
    """All of one problem.

    Args:
        problem: with its curves.
        anchor: the id of the section.
        page: where the page will be, from which its links lead to files.
        side: of its pictures, see :func:`embed`.

    Raises:
        ValueError: a file of the problem is damaged.
    """
    charts = problem_charts(problem)
    histogram = problem.histogram()
    if histogram is not None:
        charts.append(histogram_chart(histogram))
    return f"""
<section class="problem" id="{anchor}" aria-labelledby="{anchor}-title">
<h2 id="{anchor}-title">{escape(problem.name)} {status_chip(problem.status)}</h2>
{_status_note(problem.status)}
{_pictures(problem, side)}
<div class="facts">{_scores(problem.result)}{_settings(problem)}</div>
{chart_row(charts)}
{_links(problem.folder, page)}
</section>"""


def status_chip(status: str) -> str:
    """A status, coloured, and explained to those who point at it."""
    kind = status.replace(" ", "-") if status in MEANING else "other"
    return f'<span class="status {kind}" title="{escape(MEANING.get(status, status))}">{escape(status)}</span>'


def chart_row(charts: Sequence[str]) -> str:
    """Charts side by side, as many as there is room for."""
    return f'<div class="charts n{len(charts)}">{"".join(charts)}</div>' if charts else ""


def _status_note(status: str) -> str:
    if status in ("done", "stable"):
        return ""
    kind = "bad" if status == "diverged" else "mild"
    return f'<p class="note-{kind}">This problem {escape(MEANING.get(status, status))}.</p>'


def _pictures(problem: ProblemFiles, side: int) -> str:
    """The slider over what was observed and what was recovered; beside it the corruption and the truth."""
    paths = {name: problem.folder / f"{name}.png" for name in ("observation", "recovered", "corruption", "truth")}
    if problem.result and not problem.models_corruption:
        del paths["corruption"]
    if not paths["recovered"].is_file():
        return ""
    is_matrix = problem.shows_heat_maps()
    pictures = {name: embed(path, is_matrix, side) for name, path in paths.items() if path.is_file()}
    note = " Blue is below 0, white is 0, red is above, in the same colours for all." if is_matrix else ""
    words = {
        "observation": "what was observed." + note,
        "recovered": "what was recovered." + note,
        "corruption": "the corruption that was found, s." + ("" if is_matrix else " Black is clean."),
        "truth": "the truth, which the method does not know.",
    }
    parts = []
    if "observation" in pictures and "recovered" in pictures:
        parts.append(_slider(problem.name, pictures.pop("observation"), pictures.pop("recovered"), note))
    for name, picture in pictures.items():
        text = words[name]
        parts.append(
            f'<figure class="picture">{picture.tag(f"{problem.name}: {text}")}'
            f"<figcaption>{escape(text[0].upper() + text[1:])}{_scale(picture)}</figcaption></figure>"
        )
    return f'<div class="pictures n{len(parts)}">{"".join(parts)}</div>'


def _slider(name: str, before: Embedded, after: Embedded, note: str) -> str:
    return (
        f'<figure class="compare"><div class="stack">{before.tag(f"{name}: what was observed", "before")}'
        f"{after.tag(f'{name}: what was recovered', 'after')}"
        '<span class="side left" aria-hidden="true">observed</span>'
        '<span class="side right" aria-hidden="true">recovered</span>'
        f'<input type="range" min="0" max="100" value="50" step="1" aria-label="{escape(name)}: '
        'share of the picture that shows what was observed">'
        '<span class="handle" aria-hidden="true"></span></div>'
        '<figcaption><span class="hint">Move the line, by hand or with the arrow keys: left of it what was observed, '
        f"right of it what was recovered.</span>{escape(note)}{_scale(after)}</figcaption></figure>"
    )


def _scale(picture: Embedded) -> str:
    if picture.scale <= 1:
        return ""
    return f" Shown at {1 / picture.scale:.0%} of its size."


def _scores(result: Mapping[str, Any]) -> str:
    rows = [(title, escape(score(key, result[key]))) for title, key in SCORES if result.get(key) is not None]
    if result.get("best_psnr") is not None and result["best_iteration"] != result["iterations"]:
        best = f"{score('best_psnr', result['best_psnr'])} at {number(result['best_iteration'])}"
        rows.append(("Best PSNR on the way", escape(best)))
    return _list("Scores", rows)


def _settings(problem: ProblemFiles) -> str:
    result = problem.result
    rows = [(key, escape(number(value))) for key, value in result.get("attributes", {}).items()]
    if problem.shape:
        rows.append(("size", " × ".join(str(length) for length in problem.shape)))
    for title, key in (("seed", "seed"), ("alpha", "alpha"), ("tau", "tau"), ("iterations", "iterations")):
        if result.get(key) is not None and title not in result["attributes"]:
            rows.append((title, escape(number(result[key]))))
    if "seconds" in result:
        rows.append(("time", seconds(result["seconds"])))
    if "device" in result.get("machine", {}):
        rows.append(("device", escape(result["machine"]["device"])))
    return _list("Settings", rows)


def _list(title: str, rows: list[tuple[str, str]]) -> str:
    """Rows of a title, which is escaped here, and a value, which is markup."""
    if not rows:
        return ""
    inner = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f"<div><h3>{escape(title)}</h3><dl>{inner}</dl></div>"


def _links(folder: Path, page: Path) -> str:
    """The files of the problem; the page does without them."""
    if not folder.is_dir():
        return ""
    names = [p.name for p in folder.iterdir() if p.is_file() and "tfevents" not in p.name and p.name[0] != "."]
    names.sort(key=lambda name: (not name.endswith(".mp4"), name))
    start = os.path.relpath(folder.absolute(), page.absolute().parent)
    links = []
    for name in names:
        address = quote(os.fsencode(Path(start, name)))
        links.append(f'<a href="{escape(address)}">{escape(name)}</a>')
    return f'<p class="files"><span>Files</span> {" ".join(links)}</p>' if links else ""
