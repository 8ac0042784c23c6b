"""Output folder of a separation in strips: its description, the copy of a table, and rejections.

:func:`~dop_lightning.matrices.mapped.separate_mapped` writes it; with several ranks, the first one does.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dop_lightning.engine.projections.ranks import SingleProcess
from dop_lightning.engine.projections.solver import AlternatingProjections
from dop_lightning.foundation.atomic import atomic_json
from dop_lightning.foundation.checksums import file_fault, read_json
from dop_lightning.foundation.find import existing_file
from dop_lightning.matrices.distributed import PIECES, PROGRESS
from dop_lightning.matrices.storage.numpy_file import map_numpy
from dop_lightning.matrices.storage.places import Place
from dop_lightning.matrices.storage.source import StripMatrix
from dop_lightning.matrices.table_strips import convert_table

RESULT, REJECTED = "result.json", "rejected.json"

COPY = "observation"
"""Prefix of the name of a table's copy."""


def advice(ranks: SingleProcess) -> str:
    """Return a suggestion for matrices whose projections are not confirmed.

    >>> advice(SingleProcess())
    'DOP requires the matrix in memory, so raise --max-memory'
    """
    if ranks.size == 1:
        return "DOP requires the matrix in memory, so raise --max-memory"
    return "DOP requires the matrix in the memory of one process, so use --devices 1 and raise --max-memory"


def is_separated(folder: Path) -> bool:
    """Return whether a folder holds results or progress of a separation in strips."""
    if (folder / PROGRESS).is_file():
        return True
    try:
        return "about" in read_json(folder / RESULT)
    except (OSError, ValueError):
        return False


def previous_result(folder: Path, say: Callable[[str], object]) -> dict[str, Any] | None:
    """Return the result in a folder, or ``None`` if there is none, or the result or one of its files is damaged.

    Args:
        folder: output folder.
        say: called with a line about damage.
    """
    if not (folder / RESULT).is_file():
        return None
    try:
        known: dict[str, Any] = read_json(folder / RESULT)
    except ValueError as error:
        say(f"{folder / RESULT}: {error}; separating again")
        return None
    for name, expected in known.get("files", {}).items():
        if fault := file_fault(folder / name, expected):
            say(f"{folder / name}: {fault}; separating again")
            return None
    return known


def description(place: Place, solver: AlternatingProjections, seed: int, index: Sequence[str]) -> dict[str, Any]:
    """Return a description of the file and settings of a separation, to avoid mixing results of different ones.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    files = (
        [existing_file(place.path)]
        if not place.path.is_dir()
        else [file for file in place.path.rglob("*") if file.is_file()]
    )
    states = [file.stat() for file in files]
    return {
        "file": str(place.path.resolve()),
        **({} if place.array is None else {"array": place.array}),
        **({"index": list(index)} if index else {}),
        "bytes": sum(state.st_size for state in states),
        "modified": max(state.st_mtime_ns for state in states),
        "rank": solver.bound,
        "tolerance": solver.tolerance,
        "seed": seed,
    }


def require_same(known: object, about: Mapping[str, Any], folder: Path) -> None:
    """Raise an error for results of another matrix or of other settings.

    Args:
        known: description of the results in the folder.
        about: description of the requested separation, see :func:`description`.
        folder: output folder.

    Raises:
        ValueError: the descriptions differ.
    """
    if known == about:
        return
    differing = [key for key, value in about.items() if not isinstance(known, dict) or known.get(key) != value]
    raise ValueError(
        f"{folder} holds the results of another separation ({', '.join(differing)} differ); use another --out"
    )


def copied(
    place: Place,
    folder: Path,
    about: Mapping[str, Any],
    index: Sequence[str],
    say: Callable[[str], object],
    ranks: SingleProcess,
) -> Tensor | StripMatrix:
    """Return the memory-mapped numbers of a table. The first rank copies them, unless the file has been copied before.

    Args:
        place: location of the table.
        folder: folder of the copy.
        about: description of the separation.
        index: names of columns that hold labels.
        say: called with a progress line.
        ranks: processes that share the rows; they wait for the copy.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: the table is damaged, or a cell is not a number.
    """
    content = json.dumps([about["file"], about["bytes"], about["modified"], *index])
    copy = folder / f"{COPY}-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}.npy"
    if ranks.rank == 0 and not copy.is_file():
        _remove(folder, f"{COPY}-*.npy")
        say(f"{place.path.name}: copying the table to {copy}")
        convert_table(place.path, copy, index)
    ranks.every()  # wait until the copy is complete
    return map_numpy(copy)


def clear(folder: Path) -> None:
    """Remove the files that are not needed after a separation has ended."""
    (folder / PROGRESS).unlink(missing_ok=True)
    _remove(folder, PIECES)
    _remove(folder, f"{COPY}-*.npy")


def reject(folder: Path, about: Mapping[str, Any], reason: str, passes: int) -> None:
    """Record that the projections were not confirmed."""
    atomic_json(folder / REJECTED, {"reason": reason, "passes": passes, "about": dict(about)})
    clear(folder)


def previous_rejection(place: Place, folder: Path, about: Mapping[str, Any], ranks: SingleProcess) -> str:
    """Return why the separation is not repeated, if it was rejected; remove the rejection of another separation.

    Args:
        place: location of the matrix.
        folder: output folder.
        about: description of the requested separation, see :func:`description`.
        ranks: processes that share the rows.

    Raises:
        ValueError: ``rejected.json`` is damaged.
    """
    file = folder / REJECTED
    if not file.is_file():
        return ""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        is_same, reason, passes = known["about"] == about, known["reason"], known["passes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error!r}); remove it to start over") from None
    if is_same:
        return (
            f"{place}: alternating projections were not confirmed in an earlier run, after {passes} passes ({reason}); "
            f"{advice(ranks)}, or remove {file} to repeat them"
        )
    file.unlink()
    return ""


def _remove(folder: Path, pattern: str) -> None:
    for file in folder.glob(pattern):
        file.unlink()
