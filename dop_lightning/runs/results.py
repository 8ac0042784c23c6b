"""The results of a run: ``result.json`` of each problem, and ``results.csv``, a row a problem, built from them."""

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
"""Columns of built-in scores; ``best_…`` are an oracle's: they need the truth."""

HIGHER_IS_BETTER = "higher_is_better"
"""The key of a result that says, by tag, which custom scores are better when they are higher."""


def custom_scores(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of scores that are not built in: those of the user's metrics, in the order of their occurrence.

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
    """Write ``result.json`` of one problem.

    Args:
        folder: of the problem.
        outcome: its outcome.
        best: ``best_psnr`` and ``best_iteration`` where they are known.
        machine: what it ran on.
        higher_is_better: of custom scores, by tag, if it is known.
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
            # JSON has neither inf nor nan: what is not a finite number is unknown to a reader
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


def remaining(run: Path, problems: Sequence[Problem], maximum: int) -> dict[str, float]:
    """What is left to do of each problem, as the results in the folder of a run tell: an estimate, to deal work by.

    Args:
        run: the folder.
        problems: all of them.
        maximum: iterations asked for; -1 for no such number.

    Returns:
        Iterations by name, in units of 1 where there is no maximum.
    """
    left = {}
    for problem in problems:
        asked = max(1, maximum)
        try:
            result = RunFolder(run).result(problem.folder)
            finished = result["status"] in ("stable", "diverged")
            left[problem.name] = 0.0 if finished else float(max(0, asked - result["iterations"]))
        except (OSError, ValueError, KeyError, TypeError):  # not started; a damaged file is reported when it is needed
            left[problem.name] = float(asked)
    return left


def write_table(run: Path, names: Sequence[str] | None = None, brief: bool = False) -> list[dict[str, Any]]:
    """Rebuild ``results.csv`` from the results of a run and return them.

    The columns are ``problem``, one an attribute, ``seed``, ``alpha``, ``status``, ``iterations``, ``seconds``, then
    the built-in scores, then those of the user's metrics. What is not known is empty.

    Args:
        run: the folder.
        names: see :meth:`~dop_lightning.runs.folder.RunFolder.results`.
        brief: likewise.
    """
    results = RunFolder(run).results(names, brief)
    atomic_text(run / TABLE, render_csv(results))
    return results


def render_csv(results: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> str:
    """All columns of results as CSV.

    Args:
        results: as :func:`read_results` gives them.
        first: keys of columns to put before those of ``results.csv``.
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
    """Results as text for a terminal.

    Args:
        results: as :func:`read_results` gives them.
        columns: ``(key, title, format)``; a column that is known for no result is left out.

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
    """The same as a table of Markdown.

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
    """The columns that are known for a result, and their texts, the titles first."""
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
"""The columns of a short table, without custom scores."""

CUSTOM_FORMAT = ".4g"


def summary_columns(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return the columns of a short table: the usual ones, then one per custom score."""
    return [*SUMMARY, *((key, key, CUSTOM_FORMAT) for key in custom_scores(results))]
