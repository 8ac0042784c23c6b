"""Table of runs over seeds: mean and standard deviation of the scores of problems that differ only by seed."""

import csv
import io
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dop_lightning.runs.results import CUSTOM_FORMAT, SCORES, custom_scores
from dop_lightning.runs.sweeps.axes import short_names
from dop_lightning.runs.tables.comparison import RUN, RunTable
from dop_lightning.runs.tables.seeds import DIRECTIONS, STATUSES, Group, best_of, better_of, group_over_seeds

Column = tuple[str, str, str]

COLUMNS = (
    ("iterations", "iterations", ".0f", ""),
    ("seconds", "seconds", ".1f", ""),
    ("input_psnr", "input PSNR", ".2f", ""),
    ("psnr", "PSNR", DIRECTIONS["psnr"].spec, ".2f"),
    ("ssim", "SSIM", DIRECTIONS["ssim"].spec, ".3f"),
    ("relative_error", "rel. error", DIRECTIONS["relative_error"].spec, "#.2g"),
    ("rank", "rank", ".1f", ".1f"),
    ("corruption_density", "density", ".3f", ""),
)
"""Columns of the short table: key, title, format of the mean, and format of the deviation, if it is printed.

Custom scores follow.
"""


def table_over_seeds(groups: Sequence[Group], markdown: bool = False) -> tuple[list[dict[str, str]], list[Column]]:
    """Return rows and columns of the short table, for example for :func:`~dop_lightning.runs.results.render_table`.

    Comparable rows are adjacent. Attributes that are equal in all rows are left out.

    Args:
        groups: at least one group, as returned by :func:`~dop_lightning.runs.tables.seeds.group_over_seeds`.
        markdown: whether to set the best values in bold instead of marking them with a star.
    """
    order = {comparable: place for place, comparable in enumerate(dict.fromkeys(g.comparable for g in groups))}
    groups = sorted(groups, key=lambda group: order[group.comparable])
    labels = _labels(groups)
    shown = [*COLUMNS, *((key, key, CUSTOM_FORMAT, ".2g") for key in _custom(groups))]
    titles = short_names([*labels[0], "seeds", "status", *(title for _, title, *_ in shown)])
    means = [{key: _mean(group, key, *spec) for key, _, *spec in shown if group.values(key)} for group in groups]
    columns = [*((key, titles[key], "") for key in labels[0]), ("seeds", "seeds", ">"), ("status", "status", "")]
    columns += [(key, title, ">") for key, title, *_ in shown]  # formatted already; ">" aligns them to the right
    rows = [
        {**label, "seeds": group.size, "status": group.status, **cells}
        for group, label, cells in zip(groups, labels, means, strict=True)
    ]
    return _mark_best(rows, columns, best_of(groups), markdown)


def mark_best(
    runs: Sequence[RunTable], rows: Sequence[dict[str, Any]], columns: Sequence[Column], markdown: bool = False
) -> tuple[list[dict[str, Any]], list[Column]]:
    """Mark the best values in a table with one row per problem, among results for the same data and seed.

    Args:
        runs: runs, as returned by :func:`~dop_lightning.runs.tables.comparison.read_runs`.
        rows: rows of their problems in order, as returned by :func:`~dop_lightning.runs.tables.comparison.rows_of`.
        columns: ``(key, title, format)``.
        markdown: whether to set the best values in bold instead of marking them with a star.
    """
    texts = [dict(row) for row in rows]
    groups = group_over_seeds(runs, each=True)
    better = better_of(groups)
    for key, _, spec in columns:
        for row in texts:
            if key in better and row.get(key) is not None:
                row[key] = format(row[key], spec)
    right = [(key, title, ">" if key in better else spec) for key, title, spec in columns]
    return _mark_best(texts, right, best_of(groups), markdown)


def _custom(groups: Sequence[Group]) -> list[str]:
    return custom_scores(result for group in groups for result in group.results)


def _mark_best(
    rows: Sequence[dict[str, Any]], columns: Sequence[Column], best: Sequence[set[str]], markdown: bool
) -> tuple[list[dict[str, Any]], list[Column]]:
    """Mark the best values in bold or with a star. All cells reserve space for the star, to keep digits aligned."""
    with_marks = set().union(*best)
    rows = [dict(row) for row in rows]
    for row, own in zip(rows, best, strict=True):
        for key in with_marks & row.keys():
            row[key] = (f"**{row[key]}**" if key in own else row[key]) if markdown else row[key] + " *"[key in own]
    return list(rows), [
        (key, title if markdown or key not in with_marks else f"{title} ", spec) for key, title, spec in columns
    ]


def _mean(group: Group, key: str, spec: str, deviation: str) -> str:
    values = group.values(key)
    text = format(statistics.fmean(values), spec)
    if deviation and len(values) > 1:
        text += f" ± {format(statistics.stdev(values), deviation)}"
    return text if len(values) == len(group.results) else f"{text} ({len(values)} of {len(group.results)})"


def _labels(groups: Sequence[Group]) -> list[dict[str, str]]:
    """Return the labels of the rows: axes and differing attributes, and if necessary the run and the first problem."""
    axes = list(dict.fromkeys(key for group in groups for key in group.axes))
    attributes = list(dict.fromkeys(key for group in groups for key in group.attributes))
    texts = [{**{k: str(v) for k, v in group.attributes.items()}, **group.axes} for group in groups]
    columns = {key: tuple(text.get(key, "") for text in texts) for key in [*attributes, *axes]}
    same_as_axis = {columns[key] for key in axes}
    shown = [key for key in attributes if key not in axes and (len(groups) == 1 or len(set(columns[key])) > 1)]
    shown = [*(key for key in shown if columns[key] not in same_as_axis), *axes]
    rows = [{key: text.get(key, "") for key in shown} for text in texts]
    for key, names in ((RUN, [group.run for group in groups]), ("problem", [group.problems[0] for group in groups])):
        unclear = not rows[0] or len({tuple(row.values()) for row in rows}) < len(rows)
        if unclear and (key == "problem" or len(set(names)) > 1):
            rows = [{key: name, **row} for name, row in zip(names, rows, strict=True)]
    return rows


def csv_over_seeds(groups: Sequence[Group]) -> str:
    """Render all columns as CSV, unrounded: labels, counts, and mean, standard deviation and count of every score.

    The standard deviation is that of a sample (n - 1), and empty for a single value. ``best`` lists the scores in which
    a row is the best among the comparable ones.
    """
    axes = list(dict.fromkeys(key for group in groups for key in group.axes))
    attributes = list(dict.fromkeys(key for group in groups for key in group.attributes))
    scores = ("alpha", "tau", "iterations", "seconds", *SCORES, *_custom(groups))
    better = better_of(groups)
    statistic = [f"{key}_{what}" for key in scores for what in ("mean", "std", "n")]
    columns = [RUN, *axes, "problem", *attributes, "seeds", "problems", "results", *STATUSES, "best", *statistic]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for group, best in zip(groups, best_of(groups), strict=True):
        count = Counter(result["status"] for result in group.results)
        writer.writerow(
            [
                group.run,
                *(group.axes.get(key, "") for key in axes),
                group.problems[0],
                *(group.attributes.get(key, "") for key in attributes),
                " ".join(str(result.get("seed", "")) for result in group.results),
                len(group.problems),
                len(group.results),
                *(count[status] for status in STATUSES),
                " ".join(key for key in better if key in best),
                *(cell for key in scores for cell in _statistics(group.values(key))),
            ]
        )
    return text.getvalue()


def _statistics(values: Sequence[float]) -> tuple[str, str, int]:
    mean = repr(statistics.fmean(values)) if values else ""
    return mean, repr(statistics.stdev(values)) if len(values) > 1 else "", len(values)
