"""Read several runs into one table: their rows, and the results that each run lacks."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dop_lightning.runs.find import named_runs
from dop_lightning.runs.folder import RunFolder
from dop_lightning.runs.results import summary_columns, write_table
from dop_lightning.runs.status import is_running
from dop_lightning.runs.sweeps.axes import short_names
from dop_lightning.runs.sweeps.record import recorded

RUN = "run"
"""Key of the column with the name of the run."""


@dataclass(frozen=True)
class RunTable:
    """Rows of one run.

    Attributes:
        name: name of the run, in the column :data:`RUN`.
        axes: its value on each axis of its sweep; empty for other runs.
        results: one row per problem that has a result.
        missing: description of missing results; empty if the run is complete.
        problems: all problems, as listed in the manifest.
        listed: which of ``alpha`` and ``tau`` was given as a list with one value per problem and differs.
    """

    name: str
    axes: dict[str, str]
    results: list[dict[str, Any]]
    missing: str
    problems: list[dict[str, Any]] = field(default_factory=list)
    listed: tuple[str, ...] = ()


def read_runs(folders: Sequence[Path]) -> list[RunTable]:
    """Read all runs in some folders, without duplicates, and rebuild ``results.csv`` in writable folders.

    Raises:
        ValueError: a folder contains no run, or a result is damaged.
        OSError: a file cannot be read.
    """
    return [_read_run(run, name) for run, name in named_runs(folders)]


def rows_of(runs: Sequence[RunTable]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of all runs, and the keys of the leading columns: the run, if there are several, and the axes.

    Axes have the keys of their settings, such as ``model.alpha``; ``alpha`` is the value that a problem was given.
    """
    axes = list(dict.fromkeys(key for run in runs for key in run.axes))
    rows = [{RUN: run.name, **run.axes, **result} for run in runs for result in run.results]
    return rows, [RUN, *axes] if len(runs) > 1 else axes


def short_columns(first: Sequence[str], rows: Sequence[dict[str, Any]] = ()) -> list[tuple[str, str, str]]:
    """Return the columns of a short table: the leading columns, with titles as short as possible, then the usual ones.

    Args:
        first: keys of the leading columns.
        rows: rows of the table, which may have custom scores.
    """
    columns = summary_columns(rows)
    titles = short_names([*first, *(title for _, title, _ in columns)])
    return [*((key, titles[key], "") for key in first), *columns]


def _read_run(run: Path, name: str) -> RunTable:
    axes = recorded(run).get("axes", {})
    folder = RunFolder(run)
    if not folder.has_run:
        return RunTable(name, axes, [], "not begun")
    results = write_table(run) if os.access(run, os.W_OK) else folder.results()
    problems = folder.manifest().problems
    count = Counter(result["status"] for result in results)
    without = len(problems) - len(results)
    missing = [
        f"{number} of {len(problems)} problems {what}"
        for number, what in ((without, "without a result"), (count["interrupted"], "interrupted"))
        if number
    ]
    text = ", ".join(missing)
    if missing and is_running(run):
        text += "; still running, see dop status"
    return RunTable(name, axes, results, text, problems, _listed_rates(folder, results))


def _listed_rates(run: RunFolder, results: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the rates that were given as lists. Those of ``auto`` depend on the data and may differ as well."""
    differ = [rate for rate in ("alpha", "tau") if len({result.get(rate) for result in results}) > 1]
    if not differ or not run.config_path.is_file():
        return ()
    model = run.section("model")
    return tuple(rate for rate in differ if isinstance(model.get(rate), list))
