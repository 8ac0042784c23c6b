"""The folder of a matrix that is separated in pieces: what it is of, the copy of a table, and rejections.

:func:`~dop_lightning.matrices.mapped.separate_mapped` writes it. Of several ranks, the first one does.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dop_lightning.engine.projections.ranks import Alone
from dop_lightning.engine.projections.solver import AlternatingProjections
from dop_lightning.foundation.atomic import atomic_json
from dop_lightning.foundation.checksums import file_fault, read_json
from dop_lightning.foundation.find import existing_file
from dop_lightning.matrices.ranked import PIECES, PROGRESS
from dop_lightning.matrices.storage.numpy_file import map_numpy
from dop_lightning.matrices.storage.places import Place
from dop_lightning.matrices.storage.source import StripMatrix
from dop_lightning.matrices.table_strips import convert_table

RESULT, REJECTED = "result.json", "rejected.json"

COPY = "observation"
"""Start of the name of the copy of a table."""


def advice(ranks: Alone) -> str:
    """Return what to do if the projections are not confirmed.

    >>> advice(Alone())
    'DOP needs the matrix in memory, raise --max-memory'
    """
    if ranks.size == 1:
        return "DOP needs the matrix in memory, raise --max-memory"
    return "DOP needs the matrix in the memory of one process, use --devices 1 and raise --max-memory"


def is_separated(folder: Path) -> bool:
    """Return whether a folder holds results, or the progress, of a matrix that is separated in pieces."""
    if (folder / PROGRESS).is_file():
        return True
    try:
        return "about" in read_json(folder / RESULT)
    except (OSError, ValueError):
        return False


def known_result(folder: Path, say: Callable[[str], object]) -> dict[str, Any] | None:
    """Return the result in a folder, or ``None`` if there is none, or it or a part is damaged.

    Args:
        folder: of the results.
        say: gets a line about damage.
    """
    if not (folder / RESULT).is_file():
        return None
    try:
        known: dict[str, Any] = read_json(folder / RESULT)
    except ValueError as error:
        say(f"{folder / RESULT}: {error}: separated anew")
        return None
    for name, expected in known.get("files", {}).items():
        if fault := file_fault(folder / name, expected):
            say(f"{folder / name}: {fault}: separated anew")
            return None
    return known


def description(place: Place, solver: AlternatingProjections, seed: int, index: Sequence[str]) -> dict[str, Any]:
    """Return what a result is of: it is not mixed with that of another file or of other settings.

    Raises:
        FileNotFoundError: there is no such file.
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
    """Refuse the results of another matrix or of other settings.

    Args:
        known: what the results in the folder are of.
        about: what is asked for, see :func:`description`.
        folder: of the results.

    Raises:
        ValueError: they differ.
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
    ranks: Alone,
) -> Tensor | StripMatrix:
    """Return the numbers of a table, mapped. The first rank copies them, unless there is a copy of the same file.

    Args:
        place: of the table.
        folder: of the copy.
        about: what is separated.
        index: names of columns that hold labels.
        say: gets a line.
        ranks: all of them; the others wait for the copy.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: the table is damaged, or a cell is no number.
    """
    content = json.dumps([about["file"], about["bytes"], about["modified"], *index])
    copy = folder / f"{COPY}-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}.npy"
    if ranks.rank == 0 and not copy.is_file():
        _remove(folder, f"{COPY}-*.npy")
        say(f"{place.path.name}: copying the table to {copy}")
        convert_table(place.path, copy, index)
    ranks.every()  # the copy has its name
    return map_numpy(copy)


def clear(folder: Path) -> None:
    """Remove what a separation that has ended does not need."""
    (folder / PROGRESS).unlink(missing_ok=True)
    _remove(folder, PIECES)
    _remove(folder, f"{COPY}-*.npy")


def reject(folder: Path, about: Mapping[str, Any], reason: str, passes: int) -> None:
    """Record that the projections were not confirmed."""
    atomic_json(folder / REJECTED, {"reason": reason, "passes": passes, "about": dict(about)})
    clear(folder)


def known_rejection(place: Place, folder: Path, about: Mapping[str, Any], ranks: Alone) -> str:
    """Return why the passes are not to be repeated, if they are not; remove the rejection of another separation.

    Args:
        place: of the matrix.
        folder: of the results.
        about: what is asked for, see :func:`description`.
        ranks: all of them.

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
        raise ValueError(f"{file}: damaged ({error!r}); remove it to begin anew") from None
    if is_same:
        return (
            f"{place}: alternating projections were not confirmed before, after {passes} passes ({reason}); "
            f"{advice(ranks)}, or remove {file} to repeat them"
        )
    file.unlink()
    return ""


def _remove(folder: Path, pattern: str) -> None:
    for file in folder.glob(pattern):
        file.unlink()
