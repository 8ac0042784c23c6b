"""Results of a run: ``result.json`` of each problem, and ``results.csv``, built from them with one row per problem."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dop_lightning.engine.outcome import Outcome
from dop_lightning.foundation.atomic import atomic_text, checked_json
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.tags import RESERVED
from dop_lightning.runs.damage import FILES, names_in
from dop_lightning.runs.folder import RESULT, TABLE, Metric, RunFolder

SCORES = (
    "loss",
    "input_psnr",
    "psnr",
    "best_psnr",
    "best_iteration",
    "ssim",
    "relative_error",
    "relative_error_corruption",
    "corruption_density",
    "true_density",
    "support_precision",
    "support_recall",
    "rank",
)
"""Columns of built-in scores. Those named ``best_…`` are oracle scores, which need the truth."""

HIGHER_IS_BETTER = "higher_is_better"
"""Key of a result: for each tag of a custom score, whether higher is better."""


def custom_scores(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of custom scores, in the order of occurrence.

    >>> custom_scores([{"problem": "a", "psnr": 23.5}, {"problem": "b", "psnr": 21.0, "lpips": 0.25}])
    ['lpips']
    """
    return list(
        dict.fromkeys(
            key
            for result in results
            for key, value in result.items()
            if key not in RESERVED and isinstance(value, int | float) and not isinstance(value, bool)
        )
    )


def write_result(
    folder: Path,
    outcome: Outcome,
    best: Mapping[str, float],
    machine: Mapping[str, Any],
    higher_is_better: Mapping[str, bool] | None = None,
    files: Mapping[Path, str] | None = None,
) -> None:
    """Write ``result.json`` of a problem.

    Args:
        folder: folder of the problem.
        outcome: outcome of the problem.
        best: ``best_psnr`` and ``best_iteration``, if known.
        machine: description of the machine.
        higher_is_better: whether higher is better, by tag of the custom scores for which this is known.
        files: checksums of the other files in the folder, by path.
    """
    scores = {**outcome.scores, **best}
    custom = [key for key in scores if key not in RESERVED]
    checked_json(
        folder / RESULT,
        {
            "problem": outcome.problem.name,
            "attributes": dict(outcome.problem.attributes),
            "seed": outcome.problem.seed,
            "tau": outcome.tau,
            "alpha": outcome.report.get("alpha") if outcome.alpha is None else outcome.alpha,
            "status": outcome.status,
            "iterations": outcome.iteration,
            "seconds": round(outcome.seconds, 3),
            # JSON has no inf or nan: non-finite scores are left out, as unknown
            **{key: scores[key] for key in (*SCORES, *custom) if key in scores and math.isfinite(scores[key])},
            **({HIGHER_IS_BETTER: dict(higher_is_better)} if higher_is_better else {}),
            **({"report": dict(outcome.report)} if outcome.report else {}),
            "machine": dict(machine),
            FILES: names_in(folder, files or {}),
        },
    )


def read_results(run: Path, names: Sequence[str] | None = None, brief: bool = False) -> list[dict[str, Any]]:
    """Read all results of a run, see :meth:`~dop_lightning.runs.folder.RunFolder.results`."""
    return RunFolder(run).results(names, brief)


def read_metrics(run: Path) -> Iterator[Metric]:
    """Read the curves of a run, see :meth:`~dop_lightning.runs.folder.RunFolder.metrics`."""
    return RunFolder(run).metrics()


def remaining_iterations(run: Path, problems: Sequence[Problem], maximum: int) -> dict[str, float]:
    """Estimate the remaining iterations of each problem from the results of a run, to distribute work.

    Args:
        run: folder of the run.
        problems: all problems.
        maximum: maximum number of iterations; -1 if unlimited.

    Returns:
        Remaining iterations by name; if ``maximum`` is -1, 1 for problems that have not started and 0 for others.
    """
    left = {}
    for problem in problems:
        limit = max(1, maximum)
        try:
            result = RunFolder(run).result(problem.folder)
            finished = result["status"] in ("stable", "diverged")
            left[problem.name] = 0.0 if finished else float(max(0, limit - result["iterations"]))
        except (OSError, ValueError, KeyError, TypeError):  # not started, or damaged, which is reported on use
            left[problem.name] = float(limit)
    return left


def write_table(run: Path, names: Sequence[str] | None = None, brief: bool = False) -> list[dict[str, Any]]:
    """Rebuild ``results.csv`` from the results of a run and return them.

    The columns are ``problem``, one column per attribute, ``seed``, ``alpha``, ``status``, ``iterations``, ``seconds``,
    the built-in scores, and the custom scores. Unknown values are empty.

    Args:
        run: the folder.
        names: see :meth:`~dop_lightning.runs.folder.RunFolder.results`.
        brief: see there.
    """
    results = RunFolder(run).results(names, brief)
    atomic_text(run / TABLE, render_csv(results))
    return results


def render_csv(results: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> str:
    """Render all columns of results as CSV.

    Args:
        results: results, as returned by :func:`read_results`.
        first: keys of columns to insert before those of ``results.csv``.
    """
    attributes = list(dict.fromkeys(key for result in results for key in result["attributes"]))
    columns = [*first, "problem", *attributes, "seed", "alpha", "status", "iterations", "seconds", *SCORES]
    columns += custom_scores(results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for result in results:
        values = {**result["attributes"], **{key: value for key, value in result.items() if key != "attributes"}}
        writer.writerow(["" if values.get(column) is None else _text(values[column]) for column in columns])
    return text.getvalue()


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def render_table(results: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]) -> str:
    """Render results as text for a terminal.

    Args:
        results: results, as returned by :func:`read_results`.
        columns: ``(key, title, format)``; columns without any value are left out.

    >>> print(render_table([{"problem": "a", "psnr": 23.512}], [("problem", "problem", ""), ("psnr", "PSNR", ".2f")]))
    problem   PSNR
    a        23.51
    """
    known, rows = format_cells(results, columns)
    widths = [max(len(row[i]) for row in rows) for i in range(len(known))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if spec == "" else cell.rjust(width)
            for cell, width, (_, _, spec) in zip(row, widths, known, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def render_markdown(results: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]) -> str:
    """Render results as a Markdown table.

    >>> print(
    ...     render_markdown([{"problem": "a", "psnr": 23.512}], [("problem", "problem", ""), ("psnr", "PSNR", ".2f")])
    ... )
    | problem | PSNR |
    | --- | ---: |
    | a | 23.51 |
    """
    known, (titles, *rows) = format_cells(results, columns)
    rule = ["---" if spec == "" else "---:" for _, _, spec in known]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in [titles, rule, *rows])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def format_cells(
    results: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]
) -> tuple[list[tuple[str, str, str]], list[list[str]]]:
    """Return the columns with at least one value, and their cells as text, beginning with the titles."""
    known = [column for column in columns if any(result.get(column[0]) is not None for result in results)]
    rows = [[title for _, title, _ in known]]
    for result in results:
        rows.append(["" if result.get(key) is None else format(result[key], spec) for key, _, spec in known])
    return known, rows


SUMMARY = [
    ("problem", "problem", ""),
    ("status", "status", ""),
    ("iterations", "iterations", "d"),
    ("seconds", "seconds", ".1f"),
    ("input_psnr", "input PSNR", ".2f"),
    ("psnr", "PSNR", ".2f"),
    ("ssim", "SSIM", ".3f"),
    ("relative_error", "rel. error", ".3g"),
    ("rank", "rank", ".0f"),
    ("corruption_density", "density", ".3f"),
    ("true_density", "true density", ".3f"),
]
"""Columns of a short table, without custom scores."""

CUSTOM_FORMAT = ".4g"


def summary_columns(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return the columns of a short table: :data:`SUMMARY`, then one per custom score."""
    return [*SUMMARY, *((key, key, CUSTOM_FORMAT) for key in custom_scores(results))]
