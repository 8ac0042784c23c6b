"""Matrices in: NumPy's ``.npy`` and ``.npz``, text tables ``.csv`` and ``.tsv``, ``.mat``, ``.parquet``, HDF5, Zarr.

Shapes: n rows, m columns.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dop_lightning.foundation.find import existing_file
from dop_lightning.foundation.parsing import parse_file
from dop_lightning.foundation.quiet import quiet
from dop_lightning.matrices.storage.formats import read_array
from dop_lightning.matrices.storage.places import STORE_SUFFIXES, Place
from dop_lightning.matrices.storage.source import has_large_integers
from dop_lightning.matrices.tables import Table, TableLabels, read_table

TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""Text tables."""

MATRIX_SUFFIXES = (".npy", ".npz", *TABLE_SUFFIXES, ".mat", ".parquet", *STORE_SUFFIXES)

_SPARSE = {"data", "format", "shape"}
"""Arrays in the files of scipy.sparse.save_npz."""


def matrix_suffix(path: Path) -> str:
    """Return the suffix of a matrix in lower case, such as ``.csv.gz``; the last suffix of other files.

    >>> matrix_suffix(Path("a.b.CSV.gz"))
    '.csv.gz'
    """
    name = path.name.lower()
    return max((suffix for suffix in MATRIX_SUFFIXES if name.endswith(suffix)), key=len, default=path.suffix.lower())


class Matrix(NamedTuple):
    """What the file of a matrix holds.

    Attributes:
        values: ``(n, m)``, missing entries 0: float64 where the file holds float64, decimal text or integers
            beyond ±2²⁴, else float32.
        mask: ``(n, m)``, true where observed; ``None`` where nothing is missing.
        labels: what stands around the numbers of a text table; ``None`` for other files.
    """

    values: Tensor
    mask: Tensor | None
    labels: TableLabels | None = None


def read_matrix(path: str | Path, key: str | None = None, index: Sequence[str] = ()) -> Matrix:
    """Read a matrix. Entries that are NaN, or empty in a table, are missing.

    Within :func:`~dop_lightning.foundation.parsing.parse_once` a file is parsed once.

    Args:
        path: ``.npy``, ``.npz``, ``.csv``, ``.tsv``, either compressed as ``.gz`` (see
            :func:`~dop_lightning.matrices.tables.read_table`), ``.mat`` up to version 7, which needs scipy,
            ``.parquet``, which needs pyarrow, ``.h5`` or ``.hdf5``, which need h5py, or ``.zarr`` or ``.zarr.zip``,
            which need zarr.
        key: the name of the array in an ``.npz``, ``.mat``, HDF5 file or Zarr store, where it is a path; not needed
            where there is one only.
        index: names of the columns of a table that hold labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is a folder, empty, damaged, or of another suffix; ``key`` names no array in it, or does
            not choose one of several; the array is not a matrix of real numbers with at least one observed entry, or
            holds an infinite one.
        ImportError: a library that reads the format is not installed.
    """
    path = Path(path)
    suffix = matrix_suffix(path)
    if suffix != ".zarr":  # a folder
        existing_file(path)
    if suffix not in MATRIX_SUFFIXES:
        raise ValueError(f"{path}: a matrix must be a file with suffix {', '.join(MATRIX_SUFFIXES)}, got {suffix!r}")
    return parse_file(_parse, path, key, tuple(index))


def thin_matrix_note(shape: Sequence[int]) -> str | None:
    """Return a warning for a single row or column, else ``None``.

    Args:
        shape: ``(n, m)``.
    """
    if min(shape) > 1:
        return None
    kind = "row" if shape[0] == 1 else "column"
    return (
        f"a matrix of shape {shape[0]} × {shape[1]} always has rank 1, so outliers cannot be told from data in a "
        f"{kind}; pass several"
    )


def _parse(path: Path, key: str | None, index: tuple[str, ...]) -> Matrix:
    suffix = matrix_suffix(path)
    if suffix in TABLE_SUFFIXES or suffix == ".parquet":
        _refuse_key(path, key)
        table = _read_parquet(path, index) if suffix == ".parquet" else read_table(path, index)
        return Matrix(*_to_matrix(path, table.values), table.labels)
    if index:
        raise ValueError(f"{path}: index names columns of a table, a {suffix} has none; got {', '.join(index)}")
    if suffix in STORE_SUFFIXES:
        return Matrix(*_to_matrix(path, read_array(Place(path, key.strip("/") if key else None))))
    with quiet():  # of files by old writers, and of names that occur twice: what is read is checked below
        array = _read_mat(path, key) if suffix == ".mat" else _read_numpy(path, key)
    return Matrix(*_to_matrix(path, array))


def open_parquet(path: Path) -> Any:
    """Return the ``ParquetFile`` of pyarrow, to be closed by the caller.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: the file is damaged, or no Parquet file.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f'{path}: .parquet files need pyarrow: pip install "dop_lightning[parquet]"') from error
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # damaged bytes make readers raise errors of any kind
        raise ValueError(f"{path}: must be a Parquet file, got another, or a damaged one ({error!r})") from None


def parquet_numbers(path: Path, schema: Any, index: Sequence[str]) -> list[str]:
    """Return the names of the columns of a Parquet file that hold numbers: all but those of ``index``.

    Args:
        path: of the file, for errors.
        schema: its schema, of pyarrow.
        index: names of columns that hold labels.

    Raises:
        ValueError: ``index`` names no column, or another column holds something else.
    """
    from pyarrow import types

    for name in index:
        if name not in schema.names:
            raise ValueError(f"{path}: index must name columns, {', '.join(schema.names)}, got {name!r}")
    names = [str(name) for name in schema.names if name not in index]
    for name in names:
        kind = schema.field(name).type
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)):
            raise ValueError(
                f"{path}: columns must hold numbers, got {kind} in column {name!r}; label the rows by it with "
                f"--index {name}, or remove it"
            )
    return names


def _read_parquet(path: Path, index: tuple[str, ...]) -> Table:
    with open_parquet(path) as file:
        names = parquet_numbers(path, file.schema_arrow, index)
        try:
            table = file.read()
        except Exception as error:  # as above
            raise ValueError(f"{path}: must be a Parquet file, got another, or a damaged one ({error!r})") from None
    columns = [[math.nan if v is None else float(v) for v in table.column(name).to_pylist()] for name in names]
    values = np.array(columns, dtype=np.float64).reshape(len(names), table.num_rows).T
    beside = [list(row) for row in zip(*(map(str, table.column(name).to_pylist()) for name in index), strict=True)]
    labels = TableLabels([], [[*index, *names]], beside or [[] for _ in range(table.num_rows)], ",")
    return Table(np.ascontiguousarray(values), labels)


def _read_numpy(path: Path, key: str | None) -> Any:
    zipped = path.suffix.lower() == ".npz"
    if not zipped:
        _refuse_key(path, key)
    # Else NumPy takes what is neither for a pickle, and says so.
    if not _starts_with(path, b"PK" if zipped else np.lib.format.MAGIC_PREFIX):
        raise ValueError(
            f"{path}: must be a file written by numpy.{'savez' if zipped else 'save'}, got another, or a damaged one"
        )
    try:
        # Opened here, since NumPy leaves a damaged archive open.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if zipped:
                _refuse_sparse(path, loaded.files)
            return loaded[_choose(path, key, loaded.files)] if zipped else loaded
    except _Choice:
        raise
    except Exception as error:  # damaged bytes make readers raise errors of any kind
        if "allow_pickle" in str(error):
            raise ValueError(f"{path}: the array must hold numbers, got Python objects") from None
        raise ValueError(f"{path}: the array cannot be read, the file is damaged or cut off ({error!r})") from None


def _read_mat(path: Path, key: str | None) -> Any:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(f'{path}: .mat files need scipy: pip install "dop_lightning[matlab]"') from error
    if _starts_with(path, b"MATLAB 7.3"):
        raise ValueError(f"{path}: a .mat file must have version 7 or older, got 7.3; save it with save(…, '-v7')")
    try:
        variables: Mapping[str, Any] = loadmat(path, appendmat=False)
    except Exception as error:  # as above
        raise ValueError(f"{path}: must be a MATLAB file, got another, or a damaged one ({error!r})") from None
    return variables[_choose(path, key, [name for name in variables if not name.startswith("__")])]


class _Choice(ValueError):
    """The wrong key, in a file that is whole."""


def _choose(path: Path, key: str | None, names: list[str]) -> str:
    """The name of the array that is meant."""
    listed = ", ".join(names)
    if not names:
        raise _Choice(f"{path}: must hold at least one array, got none")
    if key is None and len(names) > 1:
        raise _Choice(f"{path}: key must choose one of its arrays {listed}, got none")
    if key is not None and key not in names:
        raise _Choice(f"{path}: key must be one of {listed}, got {key!r}")
    return names[0] if key is None else key


def _refuse_sparse(path: Path, names: Sequence[str]) -> None:
    if set(names) >= _SPARSE:
        raise _Choice(
            f"{path}: the matrix must be dense, got a sparse one of scipy; save it with numpy.save(…, matrix.toarray())"
        )


def _refuse_key(path: Path, key: str | None) -> None:
    if key is not None:
        raise _Choice(
            f"{path}: key chooses an array of an .npz or .mat file, a {path.suffix} holds one only; got {key!r}"
        )


def _starts_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _to_matrix(path: Path, array: Any) -> tuple[Tensor, Tensor | None]:
    """Check an array of any kind, and part its values from its mask."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{path}: the array must hold real numbers, dense, got {kind}")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"{path}: the array must be a matrix with at least one row and one column, got shape {array.shape}"
        )
    wide = (array.dtype.kind == "f" and array.dtype.itemsize >= 8) or has_large_integers(array)
    observed = ~np.isnan(array)
    complete = bool(observed.all())
    if not observed.any():
        raise ValueError(f"{path}: the matrix must have at least one observed entry, got {array.size} missing ones")
    # A conversion may overflow to infinity, which is refused with the others.
    with np.errstate(over="ignore"):
        known = array if complete else np.where(observed, array, 0)
        values = np.require(known, np.float64 if wide else np.float32, ["C", "A", "W"])  # not copied if it is so
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{path}: entries must be finite, or NaN where missing, got {array[row, column]} in row {row + 1}, "
            f"column {column + 1}"
        )
    return torch.from_numpy(values), None if complete else torch.from_numpy(observed)
