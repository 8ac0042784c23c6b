"""Copy tables larger than memory into a memory-mapped ``.npy`` file, strip by strip.

Shapes: n rows, m columns.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dop_lightning.foundation.find import existing_file
from dop_lightning.matrices.arrays import TABLE_SUFFIXES, matrix_suffix, open_parquet, parquet_numbers
from dop_lightning.matrices.storage.numpy_file import numpy_writer
from dop_lightning.matrices.tables import text_strips

STRIP_BYTES = 2**24
"""Bytes of the numbers in a strip."""

COMPRESSION = 4
"""Approximate bytes of text per byte of a compressed table."""


class TableStrips(NamedTuple):
    """Table that is read in strips.

    Attributes:
        shape: ``(n, m)``, without header and labels.
        strips: iterator over ``(h, m)``, float64, NaN if missing.
    """

    shape: tuple[int, int]
    strips: Iterator[np.ndarray]


def is_table(path: Path) -> bool:
    """Return whether a file is a text table or a Parquet file, judging by its suffix."""
    return matrix_suffix(path) in (*TABLE_SUFFIXES, ".parquet")


def table_bytes(path: Path) -> int:
    """Estimate the memory of a table as float64 numbers, in bytes.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is empty, or not a Parquet file.
        ImportError: pyarrow is not installed.
    """
    existing_file(path)
    if matrix_suffix(path) == ".parquet":
        with open_parquet(path) as file:
            return int(file.metadata.num_rows * file.metadata.num_columns * 8)
    return path.stat().st_size * (COMPRESSION if path.suffix.lower() == ".gz" else 1)


def read_strips(path: Path, index: Sequence[str] = ()) -> TableStrips:
    """Read a table in strips.

    The layout of a text table, including its decimal mark, is inferred from its first rows and its last row
    (:func:`~dop_lightning.matrices.tables.text_strips`).

    Args:
        path: a text table or a Parquet file.
        index: names of columns with labels, which are skipped.

    Raises:
        ValueError: as in :func:`~dop_lightning.matrices.arrays.read_matrix`; for text, also while strips are read.
        ImportError: pyarrow is not installed.
    """
    if matrix_suffix(path) != ".parquet":
        return TableStrips(*text_strips(path, index, STRIP_BYTES // 8))
    with open_parquet(path) as file:
        names = parquet_numbers(path, file.schema_arrow, index)
        return TableStrips((file.metadata.num_rows, len(names)), _parquet_strips(path, names))


def _parquet_strips(path: Path, names: list[str]) -> Iterator[np.ndarray]:
    height = max(1, STRIP_BYTES // (8 * max(1, len(names))))
    with open_parquet(path) as file:
        for batch in file.iter_batches(batch_size=height, columns=names):
            columns = [batch.column(name).cast("float64", safe=False) for name in names]
            yield np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)


def convert_table(path: Path, target: Path, index: Sequence[str] = ()) -> None:
    """Copy the numbers of a table into a float64 ``.npy`` file, which appears under its name once it is complete.

    Args:
        path: the table.
        target: file to write, in an existing folder.
        index: as in :func:`read_strips`.

    Raises:
        ValueError: the table is damaged, or a cell is not a number.
        ImportError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    shape, strips = read_strips(path, index)
    if 0 in shape:
        raise ValueError(f"{path}: must have at least one row and one column of numbers, got {shape[0]}×{shape[1]}")
    with numpy_writer(target, shape, np.dtype(np.float64)) as append:
        for strip in strips:
            append(strip)
