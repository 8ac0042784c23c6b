"""Find runs in folders, those of a sweep in its order. Imports no torch."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dop_lightning.runs.folder import MANIFEST, RunFolder
from dop_lightning.runs.sweeps.record import RECORD, SWEEP


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
    order = {name: place for place, name in enumerate(sweep_points(folder))}
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    for path in sorted(inner, key=lambda path: (order.get(path.name, len(order)), path.name)):
        yield from find_runs(path)


def named_runs(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return all runs in some folders, each once, with the names that tell them apart.

    Raises:
        ValueError: a folder holds no run.
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
    return list(runs.items())


def sweep_points(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return the points of a sweep by name, in their order; nothing where the folder is that of no sweep.

    Raises:
        ValueError: its summary is damaged.
    """
    try:
        return {point["name"]: point for point in json.loads((sweep / SWEEP).read_text(encoding="utf-8"))["points"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{sweep / SWEEP}: not a summary written by dop sweep ({error})") from error
