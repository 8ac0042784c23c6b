"""Write an array chunk by chunk, from strips of any height.

Shapes: n rows, m columns.
"""

from typing import Any

import numpy as np

CHUNK_BYTES = 2**22
"""Size of a chunk in bytes, unless a single row is larger."""


def chunk_rows(shape: tuple[int, int], dtype: np.dtype) -> int:
    """Return the number of rows per chunk, with chunks of whole rows.

    >>> chunk_rows((1_000_000, 1024), np.dtype("float32"))
    1024
    """
    return max(1, min(shape[0], CHUNK_BYTES // (shape[1] * dtype.itemsize)))


class ChunkWriter:
    """Append rows to an array, writing each chunk once.

    Args:
        data: ``(n, m)``, an array of h5py or zarr.
        height: rows per chunk.
    """

    def __init__(self, data: Any, height: int) -> None:
        self._data, self._height = data, height
        self._waiting: list[np.ndarray] = []
        self._written = self._count = 0

    def append(self, rows: np.ndarray) -> None:
        """Append rows ``(h, m)``."""
        self._waiting.append(rows)
        self._count += len(rows)
        if self._count >= self._height:
            self._write(self._count - self._count % self._height)

    def flush(self) -> None:
        """Write the remaining rows."""
        if self._count:
            self._write(self._count)

    def _write(self, count: int) -> None:
        rows = np.concatenate(self._waiting)
        self._data[self._written : self._written + count] = rows[:count]
        self._written += count
        self._waiting = [rows[count:].copy()]
        self._count -= count
