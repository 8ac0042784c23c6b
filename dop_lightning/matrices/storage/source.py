"""Stored matrices that are read strip by strip and used like tensors.

Shapes: n rows, m columns.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 2**26
"""Bytes of the rows that are read at once."""

EXACT_INTEGERS = 2**24
"""Largest magnitude up to which float32 represents all integers."""


class ArraySource(Protocol):
    """Array in a file.

    Attributes:
        shape: shape of the array.
        dtype: dtype of its entries.
        chunk: number of rows that are stored together, at least 1.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: int

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Read the rows from ``start`` to ``stop``."""


def working_type(dtype: np.dtype) -> torch.dtype:
    """Return the dtype for the numbers of a file: float64 for floats of at least 64 bits, otherwise float32.

    >>> working_type(np.dtype(">f8")), working_type(np.dtype("int16"))
    (torch.float64, torch.float32)
    """
    return torch.float64 if dtype.kind == "f" and dtype.itemsize >= 8 else torch.float32


def has_large_integers(array: np.ndarray) -> bool:
    """Return whether an array has integers beyond ±2²⁴, which float32 would round.

    >>> has_large_integers(np.array([2**24])), has_large_integers(np.array([-(2**24) - 1]))
    (False, True)
    """
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 4 or array.size == 0:
        return False
    return bool(array.max() > EXACT_INTEGERS or array.min() < -EXACT_INTEGERS)


def require_matrix(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise an error unless an array is a matrix of real numbers.

    Raises:
        ValueError: the array is empty, is not two-dimensional, or does not hold real numbers.
    """
    if dtype.kind not in "biuf":
        raise ValueError(f"{name}: the array must hold real numbers, got {dtype}")
    if len(shape) != 2 or 0 in shape:
        raise ValueError(
            f"{name}: the array must be a matrix with at least one row and one column, got shape {tuple(shape)}"
        )


class _Part:
    """Consecutive rows of a source. If a block starts within a chunk, the chunk is decoded twice per pass."""

    def __init__(self, source: ArraySource, start: int, stop: int) -> None:
        self.shape, self.dtype, self.chunk = (stop - start, *source.shape[1:]), source.dtype, source.chunk
        self._source, self._start = source, start

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self._source.rows(self._start + start, self._start + stop)


class StripMatrix:
    """Matrix in a file, with the part of the tensor interface that alternating projections use.

    Indexing reads from the file: ``D[2:5]`` reads consecutive rows, ``D[rows]`` rows by index, ``D[:, columns]``
    columns by index, and ``D[rows, columns]`` single entries. The last three may read the whole file. Reads are blocks
    of whole chunks of rows, and the last block is cached.

    Args:
        name: name of the file, for errors.
        source: the array.

    Attributes:
        shape: ``(n, m)``.
        dtype: float32 or float64, see :func:`working_type`.
        device: the CPU.

    Raises:
        ValueError: the array is not a matrix of real numbers.
    """

    device = torch.device("cpu")

    def __init__(self, name: str, source: ArraySource) -> None:
        require_matrix(name, source.shape, source.dtype)
        self.shape = torch.Size(source.shape)
        self.dtype = working_type(source.dtype)
        self._name, self._source = name, source
        row = self.shape[1] * max(self.dtype.itemsize, source.dtype.itemsize)
        chunks = BLOCK_BYTES // (source.chunk * row)
        # chunks larger than a block are read in parts, and each part decodes the whole chunk
        self._height = max(1, chunks * source.chunk if chunks else BLOCK_BYTES // row)
        self._step = source.chunk if chunks else 1
        self._start = 0
        self._block = torch.empty(0, self.shape[1], dtype=self.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def decodings(self) -> int:
        """Number of times that each chunk is decoded in a pass over the matrix."""
        return -(-self._source.chunk // self._height)

    def part(self, rows: slice) -> "StripMatrix":
        """Return consecutive rows as a separate matrix, without reading them."""
        start, stop, _ = rows.indices(len(self))
        return StripMatrix(self._name, _Part(self._source, start, stop))

    def numel(self) -> int:
        """Return the number of entries."""
        return self.shape.numel()

    def __getitem__(self, key: Any) -> Tensor:
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            return self._rows(start, max(start, stop))
        if isinstance(key, Tensor):
            return self._pick(key, None)
        rows, columns = key
        if isinstance(rows, slice):
            strips = [self._rows(start, min(start + self._height, len(self)))[:, columns] for start in self._starts()]
            return torch.cat(strips)
        return self._pick(rows, columns)

    def _starts(self) -> range:
        return range(0, len(self), self._height)

    def _rows(self, start: int, stop: int) -> Tensor:
        if not (self._start <= start and stop <= self._start + len(self._block)):
            first = start - start % self._step
            last = min(len(self), max(stop, first + self._height))
            self._block = torch.empty(0, self.shape[1], dtype=self.dtype)  # free its memory before reading the next one
            array = self._source.rows(first, last)
            if has_large_integers(array):
                raise ValueError(
                    f"{self._name}: integers must be within ±{EXACT_INTEGERS}, which float32 represents exactly, got "
                    "larger values; store them as float64"
                )
            kind = np.float64 if self.dtype == torch.float64 else np.float32
            with np.errstate(over="ignore"):  # infinite entries are rejected later
                self._block = torch.from_numpy(np.ascontiguousarray(array, dtype=kind))
            self._start = first
        return self._block[start - self._start : stop - self._start]

    def _pick(self, rows: Tensor, columns: Tensor | None) -> Tensor:
        """Return rows, or single entries, by index."""
        trailing = () if columns is not None else (self.shape[1],)
        result = torch.empty(len(rows), *trailing, dtype=self.dtype)
        of_block = torch.div(rows, self._height, rounding_mode="floor")
        for block in torch.unique(of_block).tolist():
            here = (of_block == block).nonzero()[:, 0]
            start = block * self._height
            strip = self._rows(start, min(start + self._height, len(self)))
            inner = rows[here] - start
            result[here] = strip[inner] if columns is None else strip[inner, columns[here]]
        return result
