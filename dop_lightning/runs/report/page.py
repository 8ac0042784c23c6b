"""Page of a run: results of each problem, and the command to repeat the run. The page loads no external resources."""

import shlex
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from dop_lightning.runs.folder import CONFIG, TABLE
from dop_lightning.runs.report.curves import overlaid_charts
from dop_lightning.runs.report.embed import MAX_FULL_SIZE_PROBLEMS, SIDE, SMALL_SIDE
from dop_lightning.runs.report.problem import STATUS_MEANINGS, Rows, problem_section, status_of
from dop_lightning.runs.report.reading import RunFiles
from dop_lightning.runs.report.rendering import environment
from dop_lightning.runs.report.text import number, score
from dop_lightning.runs.results import custom_scores, summary_columns

MAX_ROWS = 2000
"""Maximum number of rows in the table of all problems."""

VERSIONS = ("dop_lightning", "torch", "pytorch_lightning", "numpy", "python")

MEANS = (
    ("input_psnr", "PSNR as observed"),
    ("psnr", "PSNR recovered"),
    ("ssim", "SSIM"),
    ("relative_error", "relative error of X"),
)


def render(run: RunFiles, page: Path) -> str:
    """Render the HTML page of a run.

    Args:
        run: contents of the folder of the run.
        page: path where the page will be written.

    Raises:
        ValueError: a file of a problem is damaged.
    """
    side = SIDE if len(run.shown) <= MAX_FULL_SIZE_PROBLEMS else SMALL_SIDE
    anchors = {problem.name: f"p{place}" for place, problem in enumerate(run.shown, 1)}
    order = dict.fromkeys(status for status in (*STATUS_MEANINGS, *run.statuses) if run.statuses[status])
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    template = environment().get_template("page.html.jinja")
    return template.render(
        style=style,
        script=script,
        title=run.folder.resolve().name or str(run.folder),
        count=len(run.problems),
        statuses=[(number(run.statuses[name]), status_of(name)) for name in order],
        means=_means(run),
        overview=_overview(run, anchors) if len(run.problems) > 1 else None,
        sections=[problem_section(problem, anchors[problem.name], page, side) for problem in run.shown],
        command=None if run.config is None else repeat_command(run.folder),
        config_name=CONFIG,
        config_lines=(run.config or "").splitlines(),
        machines=_machines(run),
    )


def _means(run: RunFiles) -> Rows:
    """Return the mean of each score over the problems for which it is known."""
    means = []
    custom = custom_scores(problem.result for problem in run.problems)
    for key, title in (*MEANS, *zip(custom, custom, strict=True)):
        values = [problem.result[key] for problem in run.problems if problem.result.get(key) is not None]
        if values:
            means.append((score(key, sum(values) / len(values)), f"mean {title}" if len(values) > 1 else title))
    return means


def _overview(run: RunFiles, anchors: Mapping[str, str]) -> dict[str, Any]:
    """Return the table of all problems, and charts with the curves of several problems."""
    results = [problem.result for problem in run.problems]
    columns = [column for column in summary_columns(results) if any(r.get(column[0]) is not None for r in results)]
    columns = [column for column in columns if column[0] not in ("problem", "status")]
    rows = []
    for problem in run.problems[:MAX_ROWS]:
        values = [(problem.result.get(key), spec) for key, _, spec in columns]
        rows.append(
            {
                "name": problem.name,
                "anchor": anchors.get(problem.name),
                "status": status_of(problem.status),
                "cells": ["" if value is None else format(value, spec) for value, spec in values],
            }
        )
    left = len(run.problems) - MAX_ROWS
    notes = [f"… and {left:,} more, in {TABLE}."] if left > 0 else []
    if len(run.shown) < len(run.problems):
        notes.append(
            f"Pictures and curves of {len(run.shown):,} of {len(run.problems):,} problems follow, sampled evenly from "
            "those with pictures; use dop report --most to show more."
        )
    titles = [title for _, title, _ in columns]
    return {"titles": titles, "rows": rows, "notes": notes, "charts": overlaid_charts(run.shown)}


def repeat_command(run: Path) -> str:
    """Return the command that repeats a run in another folder.

    >>> repeat_command(Path("my run"))
    "dop fit --config 'my run/config.yaml' --trainer.default_root_dir 'my run-again'"
    """
    folder = str(run.resolve() if run.name in ("", "..") else run)  # "." has no name to append a suffix to
    if folder.startswith("-"):
        folder = f"./{folder}"  # otherwise it would be an option
    options = ["--config", f"{folder}/{CONFIG}", "--trainer.default_root_dir", f"{folder}-again"]
    return shlex.join(["dop", "fit", *options])


def _machines(run: RunFiles) -> list[tuple[int, Rows]]:
    """Return the number of problems for each kind of machine, and its versions."""
    machines = [problem.result.get("machine") or {} for problem in run.problems]
    kinds = Counter(tuple((name, str(value)) for name, value in machine.items()) for machine in machines if machine)
    order = {name: place for place, name in enumerate(VERSIONS)}
    return [(count, sorted(machine, key=lambda row: order.get(row[0], len(order)))) for machine, count in kinds.items()]
