"""Read matrices: ``.npy`` and ``.npz`` files, text tables ``.csv`` and ``.tsv``, ``.mat``, ``.parquet``, HDF5, Zarr.

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
"""Suffixes of text tables."""

MATRIX_SUFFIXES = (".npy", ".npz", *TABLE_SUFFIXES, ".mat", ".parquet", *STORE_SUFFIXES)

_SPARSE = {"data", "format", "shape"}
"""Names of arrays in files written by scipy.sparse.save_npz."""


def matrix_suffix(path: Path) -> str:
    """Return the matrix suffix of a file in lower case, such as ``.csv.gz``; for other files, their last suffix.

    >>> matrix_suffix(Path("a.b.CSV.gz"))
    '.csv.gz'
    """
    name = path.name.lower()
    return max((suffix for suffix in MATRIX_SUFFIXES if name.endswith(suffix)), key=len, default=path.suffix.lower())


class Matrix(NamedTuple):
    """Content of a matrix file.

    Attributes:
        values: ``(n, m)``, 0 if missing; float64 if the file holds float64, decimal text or integers beyond ±2²⁴,
            otherwise float32.
        mask: ``(n, m)``, true for observed entries; ``None`` if none are missing.
        labels: everything except the numbers of a text table; ``None`` for other files.
    """

    values: Tensor
    mask: Tensor | None
    labels: TableLabels | None = None


def read_matrix(path: str | Path, key: str | None = None, index: Sequence[str] = ()) -> Matrix:
    """Read a matrix. Entries that are NaN, or empty in a table, are missing.

    Within :func:`~dop_lightning.foundation.parsing.parse_once`, each file is parsed only once.

    Args:
        path: ``.npy``, ``.npz``, ``.csv``, ``.tsv``, the latter two optionally compressed as ``.gz`` (see
            :func:`~dop_lightning.matrices.tables.read_table`), ``.mat`` up to version 7 (requires scipy),
            ``.parquet`` (requires pyarrow), ``.h5`` or ``.hdf5`` (require h5py), or ``.zarr`` or ``.zarr.zip`` (require
            zarr).
        key: name of the array in an ``.npz`` or ``.mat`` file, or its path in an HDF5 file or Zarr store; not needed if
            there is only one.
        index: names of the columns of a table that hold labels.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is a folder, empty, damaged, or has another suffix; ``key`` does not name an array, or is
            missing although there are several; the array is not a matrix of real numbers with at least one observed
            entry, or has infinite entries.
        ImportError: the library that reads the format is not installed.
    """
    path = Path(path)
    suffix = matrix_suffix(path)
    if suffix != ".zarr":  # .zarr is a folder
        existing_file(path)
    if suffix not in MATRIX_SUFFIXES:
        raise ValueError(f"{path}: suffix must be one of {', '.join(MATRIX_SUFFIXES)}, got {suffix!r}")
    return parse_file(_parse, path, key, tuple(index))


def thin_matrix_note(shape: Sequence[int]) -> str | None:
    """Return a warning if the matrix is a single row or column, otherwise ``None``.

    Args:
        shape: ``(n, m)``.
    """
    if min(shape) > 1:
        return None
    kind = "row" if shape[0] == 1 else "column"
    return (
        f"a matrix of shape {shape[0]} × {shape[1]} always has rank 1, so outliers cannot be distinguished from data; "
        f"pass more than one {kind}"
    )


def _parse(path: Path, key: str | None, index: tuple[str, ...]) -> Matrix:
    suffix = matrix_suffix(path)
    if suffix in TABLE_SUFFIXES or suffix == ".parquet":
        _refuse_key(path, key)
        table = _read_parquet(path, index) if suffix == ".parquet" else read_table(path, index)
        return Matrix(*_to_matrix(path, table.values), table.labels)
    if index:
        raise ValueError(f"{path}: index is only supported for tables, not for {suffix}; got {', '.join(index)}")
    if suffix in STORE_SUFFIXES:
        return Matrix(*_to_matrix(path, read_array(Place(path, key.strip("/") if key else None))))
    with quiet():  # warnings about old writers and duplicate names; the content is checked below
        array = _read_mat(path, key) if suffix == ".mat" else _read_numpy(path, key)
    return Matrix(*_to_matrix(path, array))


def open_parquet(path: Path) -> Any:
    """Open a ``ParquetFile`` of pyarrow; the caller must close it.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: the file is damaged, or not a Parquet file.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f'{path}: .parquet files require pyarrow: pip install "dop_lightning[parquet]"') from error
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # readers raise errors of any type for damaged files
        raise ValueError(f"{path}: must be a Parquet file, got another or damaged file ({error!r})") from None


def parquet_numbers(path: Path, schema: Any, index: Sequence[str]) -> list[str]:
    """Return the names of the columns of a Parquet file that hold numbers: all columns except ``index``.

    Args:
        path: the file, for errors.
        schema: its schema, of pyarrow.
        index: names of columns that hold labels.

    Raises:
        ValueError: a name in ``index`` does not exist, or another column does not hold numbers.
    """
    from pyarrow import types

    for name in index:
        if name not in schema.names:
            raise ValueError(f"{path}: index must name columns of {', '.join(schema.names)}, got {name!r}")
    names = [str(name) for name in schema.names if name not in index]
    for name in names:
        kind = schema.field(name).type
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)):
            raise ValueError(
                f"{path}: columns must hold numbers, got {kind} in column {name!r}; pass --index {name} to use it as "
                "row labels, or remove it"
            )
    return names


def _read_parquet(path: Path, index: tuple[str, ...]) -> Table:
    with open_parquet(path) as file:
        names = parquet_numbers(path, file.schema_arrow, index)
        try:
            table = file.read()
        except Exception as error:  # as above
            raise ValueError(f"{path}: must be a Parquet file, got another or damaged file ({error!r})") from None
    columns = [[math.nan if v is None else float(v) for v in table.column(name).to_pylist()] for name in names]
    values = np.array(columns, dtype=np.float64).reshape(len(names), table.num_rows).T
    beside = [list(row) for row in zip(*(map(str, table.column(name).to_pylist()) for name in index), strict=True)]
    labels = TableLabels([], [[*index, *names]], beside or [[] for _ in range(table.num_rows)], ",")
    return Table(np.ascontiguousarray(values), labels)


def _read_numpy(path: Path, key: str | None) -> Any:
    zipped = path.suffix.lower() == ".npz"
    if not zipped:
        _refuse_key(path, key)
    # Checked here, because NumPy assumes that any other content is a pickle, which leads to a misleading error.
    if not _starts_with(path, b"PK" if zipped else np.lib.format.MAGIC_PREFIX):
        raise ValueError(
            f"{path}: must be a file written by numpy.{'savez' if zipped else 'save'}, got another or damaged file"
        )
    try:
        # Opened here, because NumPy does not close a damaged archive.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if zipped:
                _refuse_sparse(path, loaded.files)
            return loaded[_choose_array(path, key, loaded.files)] if zipped else loaded
    except _Choice:
        raise
    except Exception as error:  # readers raise errors of any type for damaged files
        if "allow_pickle" in str(error):
            raise ValueError(f"{path}: the array must hold numbers, got Python objects") from None
        raise ValueError(f"{path}: the array cannot be read; the file is damaged or truncated ({error!r})") from None


def _read_mat(path: Path, key: str | None) -> Any:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(f'{path}: .mat files require scipy: pip install "dop_lightning[matlab]"') from error
    if _starts_with(path, b"MATLAB 7.3"):
        raise ValueError(f"{path}: a .mat file must have version 7 or older, got 7.3; save it with save(…, '-v7')")
    try:
        variables: Mapping[str, Any] = loadmat(path, appendmat=False)
    except Exception as error:  # as above
        raise ValueError(f"{path}: must be a MATLAB file, got another or damaged file ({error!r})") from None
    return variables[_choose_array(path, key, [name for name in variables if not name.startswith("__")])]


class _Choice(ValueError):
    """Error for a wrong key or array in an intact file."""


def _choose_array(path: Path, key: str | None, names: list[str]) -> str:
    """Return the name of the array to read."""
    listed = ", ".join(names)
    if not names:
        raise _Choice(f"{path}: must contain at least one array, got none")
    if key is None and len(names) > 1:
        raise _Choice(f"{path}: key is required to choose one of the arrays {listed}")
    if key is not None and key not in names:
        raise _Choice(f"{path}: key must be one of {listed}, got {key!r}")
    return names[0] if key is None else key


def _refuse_sparse(path: Path, names: Sequence[str]) -> None:
    if set(names) >= _SPARSE:
        raise _Choice(
            f"{path}: the matrix must be dense, got a SciPy sparse matrix; save it with numpy.save(…, matrix.toarray())"
        )


def _refuse_key(path: Path, key: str | None) -> None:
    if key is not None:
        raise _Choice(
            f"{path}: key is only supported for files with several arrays, not for {path.suffix}; got {key!r}"
        )


def _starts_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _to_matrix(path: Path, array: Any) -> tuple[Tensor, Tensor | None]:
    """Check an array of any type, and separate its values from its mask."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{path}: the array must hold real numbers in dense storage, got {kind}")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"{path}: the array must be a matrix with at least one row and one column, got shape {array.shape}"
        )
    wide = (array.dtype.kind == "f" and array.dtype.itemsize >= 8) or has_large_integers(array)
    observed = ~np.isnan(array)
    complete = bool(observed.all())
    if not observed.any():
        raise ValueError(f"{path}: the matrix must have at least one observed entry, got {array.size} missing entries")
    # A conversion may overflow to infinity, which the check below rejects.
    with np.errstate(over="ignore"):
        known = array if complete else np.where(observed, array, 0)
        values = np.require(known, np.float64 if wide else np.float32, ["C", "A", "W"])  # copied only if necessary
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{path}: entries must be finite, or NaN if missing, got {array[row, column]} in row {row + 1}, "
            f"column {column + 1}"
        )
    return torch.from_numpy(values), None if complete else torch.from_numpy(observed)
