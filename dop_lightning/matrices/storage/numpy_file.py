"""Memory-mapped ``.npy`` files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dop_lightning.foundation.atomic import replacing
from dop_lightning.foundation.quiet import quiet
from dop_lightning.matrices.storage.source import StripMatrix, require_matrix

NATIVE = np.dtype("float32"), np.dtype("float64")
"""Dtypes that are mapped without conversion."""


class NumpySource:
    """Array mapped from a ``.npy`` file.

    Args:
        array: the mapped array.
    """

    chunk = 1

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        self._array = array

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Read the rows from ``start`` to ``stop``."""
        return self._array[start:stop]


def map_numpy(path: Path) -> Tensor | StripMatrix:
    """Return the matrix in a ``.npy`` file without reading it; dtypes other than floats are converted on access.

    Raises:
        ValueError: the file is damaged, or does not contain a matrix of real numbers.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: must be a readable .npy file ({error})") from None
    if array.dtype not in NATIVE:
        return StripMatrix(str(path), NumpySource(array))
    require_matrix(str(path), array.shape, array.dtype)
    with quiet(UserWarning):  # the array is read-only, and is never written to
        return torch.from_numpy(array)


@contextmanager
def numpy_writer(path: Path, shape: tuple[int, int], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a matrix in strips of rows. The file appears under its name once it is complete.

    Yields:
        A function that appends rows.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    with replacing(path) as temporary, temporary.open("xb") as file:
        np.lib.format.write_array_header_2_0(file, header)

        def append(rows: np.ndarray) -> None:
            file.write(np.ascontiguousarray(rows, dtype=dtype).tobytes())

        yield append
