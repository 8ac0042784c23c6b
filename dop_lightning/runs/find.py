"""Find runs in folders; the runs of a sweep are in its order. Does not import torch."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dop_lightning.runs.folder import MANIFEST, RunFolder
from dop_lightning.runs.sweeps.record import RECORD, SWEEP


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the runs in a folder at any depth, or the folder itself if it is a run.

    Runs of a sweep are in its order and include points that have not started.

    Raises:
        ValueError: the folder does not exist.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: must be the folder of a run or contain runs, but is not a folder")
    if RunFolder(folder).has_run or (folder / RECORD).is_file():
        yield folder
        return
    order = {name: place for place, name in enumerate(sweep_points(folder))}
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    for path in sorted(inner, key=lambda path: (order.get(path.name, len(order)), path.name)):
        yield from find_runs(path)


def named_runs(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return all runs in some folders, without duplicates, with names that distinguish them.

    Raises:
        ValueError: a folder contains no run.
    """
    runs: dict[Path, str] = {}
    for folder in folders:
        found = list(find_runs(folder))
        if not found:
            raise ValueError(f"{folder}: contains no run (a folder with {MANIFEST})")
        for run in found:
            # two folders may contain runs of the same name; within one folder, names are unique
            name = str(run) if len(folders) > 1 or run == folder else str(run.relative_to(folder))
            runs.setdefault(run.resolve(), name)
    return list(runs.items())


def sweep_points(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return the points of a sweep by name, in order; empty if the folder is not a sweep.

    Raises:
        ValueError: the summary of the sweep is damaged.
    """
    try:
        return {point["name"]: point for point in json.loads((sweep / SWEEP).read_text(encoding="utf-8"))["points"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{sweep / SWEEP}: not a summary written by dop sweep ({error})") from error
