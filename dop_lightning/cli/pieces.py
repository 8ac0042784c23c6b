"""``dop separate`` for matrices that are read in pieces, without importing PyTorch Lightning."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dop_lightning.cli.options import MAPPED_FRACTION, refuse
from dop_lightning.engine.projections import AlternatingProjections
from dop_lightning.foundation.atomic import remove_temporary
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.folder_lock import FolderLock
from dop_lightning.foundation.units import parse_bytes
from dop_lightning.foundation.user_paths import user_path
from dop_lightning.matrices.arrays import matrix_suffix
from dop_lightning.matrices.mapped import separate_mapped
from dop_lightning.matrices.robust_separation import describe
from dop_lightning.matrices.storage.formats import open_matrix, strip_suffix
from dop_lightning.matrices.storage.places import Place, locate
from dop_lightning.matrices.table_strips import is_table, table_bytes
from dop_lightning.runs.pieces import add_piece, require_pieces
from dop_lightning.runs.results import render_table, summary_columns, write_table

INAPPLICABLE = {"grey": False, "no_pictures": False, "key": None, "index": None, "truth": None}
"""Options that do not apply, and their defaults."""


def large_matrices(options: argparse.Namespace) -> list[Place]:
    """Return the matrices if all are too large to be read at once and can be read in strips of rows, otherwise none.

    Raises:
        ValueError: ``--max-memory`` is not a size.
    """
    places = [locate(data) for data in options.data]
    limit = parse_bytes(options.max_memory) / MAPPED_FRACTION
    if options.method not in ("auto", "projections") or options.alpha is not None:
        return []
    return places if all(_stored_bytes(place) > limit for place in places) else []


def _stored_bytes(place: Place) -> int:
    """Return the size in bytes of a matrix that can be read in strips of rows; 0 for others."""
    try:
        if is_table(place.path):
            return table_bytes(place.path)
        if strip_suffix(place.path) is None:
            return 0
        D = open_matrix(place)
    except (ImportError, OSError, ValueError):
        return 0
    return D.numel() * D.dtype.itemsize


def checked_names(options: argparse.Namespace, places: Sequence[Place], kind: str) -> list[str]:
    """Return the names of the results of matrices that are read in pieces.

    Args:
        options: options of ``dop separate``.
        places: locations of the matrices.
        kind: description of the matrices, for errors.

    Raises:
        ValueError: an option does not apply or is out of range, two files have the same name, or the folder of the
            results contains another run.
    """
    tables = all(is_table(place.path) for place in places)
    refuse(options, {name: value for name, value in INAPPLICABLE.items() if name != "index" or not tables}, kind)
    names = [_name(place) for place in places]
    if len(set(names)) < len(names):
        raise ValueError(f"large matrices must have different names, got {', '.join(sorted(names))}")
    if options.rank is not None:
        at_least("rank", options.rank, 1)
    at_least("iterations", options.iterations, 1)
    require_pieces(user_path(options.out))
    return names


def _name(place: Place) -> str:
    """Return the name of a problem: that of the file, and of the selected array if any."""
    name = place.path.name[: -len(matrix_suffix(place.path))]
    return name if place.array is None else f"{name}-{place.array.replace('/', '-')}"


def separate_files(options: argparse.Namespace, places: Sequence[Place]) -> int:
    """Separate matrices in pieces, one after the other.

    Raises:
        ValueError: an option does not apply, two files have the same name, or a matrix cannot be separated.
    """
    names = checked_names(options, places, "matrices that are read in pieces (see --max-memory)")
    if options.device not in ("auto", "cpu"):
        raise ValueError(f"--device must be cpu for matrices that are read in pieces, got {options.device!r}")
    out = user_path(options.out)
    with held(out):
        if failures := _separate(options, dict(zip(names, places, strict=True)), out):
            raise ValueError("; ".join(failures))
        print_results(options.out)
    return 0


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Lock the folder of the results, since two processes would overwrite each other's entries of the manifest.

    Raises:
        ValueError: another process uses the folder.
        OSError: the folder cannot be created.
    """
    with FolderLock(out) as lock:
        lock.require()
        remove_temporary(out)
        yield


def _separate(options: argparse.Namespace, places: Mapping[str, Place], out: Path) -> list[str]:
    """Separate all matrices, given by the names of their results; return the errors of those that failed."""
    solver = AlternatingProjections(rank=options.rank)
    failures = []
    for name, place in places.items():
        try:
            result = separate_mapped(
                str(place), out / name, solver, options.seed, say, options.iterations, options.index or ()
            )
        except ValueError as error:  # continue with the other matrices
            failures.append(str(error))
            continue
        add_result(out, name, result)
    return failures


def say(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr)


def add_result(out: Path, name: str, result: Mapping[str, Any]) -> None:
    """Add the result of a matrix to the run, and print its status.

    Args:
        out: folder of the run.
        name: name of the matrix.
        result: content of its ``result.json``.
    """
    add_piece(out, name, result["seed"], result["shape"], result["attributes"])
    say(f"{name}: {describe(result['report'])}")


def print_results(out: Path) -> None:
    """Write and print the table of all results of a run, and print the name of its folder."""
    results = write_table(user_path(out))
    print(render_table(results, summary_columns(results)))
    print(f"Files: {out}")
