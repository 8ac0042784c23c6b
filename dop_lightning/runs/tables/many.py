"""One table out of many runs: where runs are, what each has, and what is not there yet."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dop_lightning.runs.folder import MANIFEST, RunFolder
from dop_lightning.runs.results import summary_columns, write_table
from dop_lightning.runs.sweeps.axes import short_names
from dop_lightning.runs.sweeps.record import RECORD, SWEEP, recorded

RUN = "run"
"""The column that tells runs apart."""


@dataclass(frozen=True)
class RunTable:
    """The rows of one run.

    Attributes:
        name: of the run, in the column :data:`RUN`.
        axes: its value on each axis of its sweep; empty for other runs.
        results: a row a problem that has a result.
        missing: what is not there yet, in words; empty where nothing is.
        problems: all of them, as the manifest lists them.
        listed: which of ``alpha`` and ``tau`` was given as a list of one value a problem, where it differs.
    """

    name: str
    axes: dict[str, str]
    results: list[dict[str, Any]]
    missing: str
    problems: list[dict[str, Any]] = field(default_factory=list)
    listed: tuple[str, ...] = ()


def find_runs(folder: Path) -> Iterator[Path]:
    """The runs in a folder at any depth, or the folder itself where it is one; those of a sweep in its order.

    Points of a sweep that have not begun are among them.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: must be the folder of a run, or one that holds runs, got none")
    if RunFolder(folder).has_run or (folder / RECORD).is_file():
        yield folder
        return
    order = {name: place for place, name in enumerate(_points(folder))}
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    for path in sorted(inner, key=lambda path: (order.get(path.name, len(order)), path.name)):
        yield from find_runs(path)


def read_runs(folders: Sequence[Path]) -> list[RunTable]:
    """Read all runs in some folders, each once, and rebuild the ``results.csv`` of those that may be written to.

    Raises:
        ValueError: a folder holds no run, or a result is none.
        OSError: a file cannot be read.
    """
    runs: dict[Path, str] = {}
    for folder in folders:
        found = list(find_runs(folder))
        if not found:
            raise ValueError(f"{folder}: holds no run, which has a {MANIFEST}")
        for run in found:
            # two folders may hold runs of one name; of a single one the names are enough
            name = str(run) if len(folders) > 1 or run == folder else str(run.relative_to(folder))
            runs.setdefault(run.resolve(), name)
    return [_read_run(run, name) for run, name in runs.items()]


def rows_of(runs: Sequence[RunTable]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of all runs, and the keys of the columns that come first: the run, where there are several, and axes.

    Axes have the keys of their settings, ``model.alpha``: ``alpha`` is the value that a problem was given.
    """
    axes = list(dict.fromkeys(key for run in runs for key in run.axes))
    rows = [{RUN: run.name, **run.axes, **result} for run in runs for result in run.results]
    return rows, [RUN, *axes] if len(runs) > 1 else axes


def short_columns(first: Sequence[str], rows: Sequence[dict[str, Any]] = ()) -> list[tuple[str, str, str]]:
    """The columns of a short table: those that come first, with titles as short as may be, then the usual ones.

    Args:
        first: their keys.
        rows: of the table, which may have custom scores.
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
    return RunTable(name, axes, results, ", ".join(missing), problems, _listed(folder, results))


def _listed(run: RunFolder, results: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The rates that a run was given one a problem; those of «auto» follow from the data, and differ as well."""
    differ = [rate for rate in ("alpha", "tau") if len({result.get(rate) for result in results}) > 1]
    if not differ or not run.config_path.is_file():
        return ()
    model = run.section("model")
    return tuple(rate for rate in differ if isinstance(model.get(rate), list))


def _points(sweep: Path) -> list[str]:
    """The names of the points of a sweep in their order; nothing where the folder is that of no sweep."""
    try:
        return [point["name"] for point in json.loads((sweep / SWEEP).read_text(encoding="utf-8"))["points"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{sweep / SWEEP}: not a summary written by dop sweep ({error})") from error
