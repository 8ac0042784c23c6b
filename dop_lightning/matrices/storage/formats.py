"""Formats of stored matrices, chosen by the suffix of the file.

Shapes: n rows, m columns.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from torch import Tensor

from dop_lightning.foundation.find import existing_file
from dop_lightning.matrices.storage.hdf5 import Hdf5Source, hdf5_writer
from dop_lightning.matrices.storage.numpy_file import map_numpy, numpy_writer
from dop_lightning.matrices.storage.places import HDF5_SUFFIXES, STORE_SUFFIXES, ZARR_SUFFIXES, Place
from dop_lightning.matrices.storage.source import ArraySource, StripMatrix, require_matrix
from dop_lightning.matrices.storage.zarr_store import ZarrSource, zarr_writer

STRIP_SUFFIXES = (".npy", *STORE_SUFFIXES)
"""Formats that can be read strip by strip."""

Append = Callable[[np.ndarray], None]
"""Function that appends rows to a matrix being written."""


def strip_suffix(path: Path) -> str | None:
    """Return the suffix of a file if it is in :data:`STRIP_SUFFIXES`, otherwise ``None``.

    >>> strip_suffix(Path("a.ZARR.zip")), strip_suffix(Path("a.csv"))
    ('.zarr.zip', None)
    """
    name = path.name.lower()
    return max((suffix for suffix in STRIP_SUFFIXES if name.endswith(suffix)), key=len, default=None)


def open_matrix(place: Place) -> Tensor | StripMatrix:
    """Return a stored matrix without reading its entries.

    Args:
        place: a file with one of :data:`STRIP_SUFFIXES`.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: the library that reads the format is not installed.
        ValueError: the file is damaged, of another format, or does not contain a matrix of real numbers.
    """
    if strip_suffix(place.path) == ".npy":
        return map_numpy(existing_file(place.path))
    return StripMatrix(str(place), open_source(place))


def open_source(place: Place) -> ArraySource:
    """Return an array of an HDF5 file or a Zarr store. Raises the errors of :func:`open_matrix`."""
    suffix = strip_suffix(place.path)
    if suffix == ".zarr":
        if not place.path.is_dir():
            raise ValueError(f"{existing_file(place.path)}: must be the folder of a Zarr store, got another file")
        return ZarrSource(place)
    existing_file(place.path)
    if suffix in ZARR_SUFFIXES:
        return ZarrSource(place)
    if suffix in HDF5_SUFFIXES:
        return Hdf5Source(place)
    raise ValueError(f"{place.path}: suffix must be one of {', '.join(STRIP_SUFFIXES)}, got {suffix!r}")


def read_array(place: Place) -> np.ndarray:
    """Read a matrix of an HDF5 file or a Zarr store into memory. Raises the errors of :func:`open_matrix`."""
    source = open_source(place)
    require_matrix(str(place), source.shape, source.dtype)
    return source.rows(0, source.shape[0])


def write_matrix(path: Path, shape: tuple[int, int], dtype: np.dtype) -> AbstractContextManager[Append]:
    """Return a context manager that writes a matrix in strips of rows; at its end, the file appears under its name.

    Args:
        path: a file with one of :data:`STRIP_SUFFIXES`, in an existing folder.
        shape: ``(n, m)``.
        dtype: dtype of the entries.

    Raises:
        ImportError: the library that writes the format is not installed.
        OSError: the file cannot be written.
    """
    suffix = strip_suffix(path)
    writer = numpy_writer if suffix == ".npy" else hdf5_writer if suffix in HDF5_SUFFIXES else zarr_writer
    return writer(path, shape, dtype)
