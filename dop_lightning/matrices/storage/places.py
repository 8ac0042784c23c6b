"""Where a matrix is stored: a file, or an array within a file."""

from pathlib import Path
from typing import NamedTuple

from dop_lightning.foundation.user_paths import user_path

HDF5_SUFFIXES = (".h5", ".hdf5")

ZARR_SUFFIXES = (".zarr", ".zarr.zip")

STORE_SUFFIXES = (*HDF5_SUFFIXES, *ZARR_SUFFIXES)
"""Formats that hold several arrays, each with a path."""

MARK = "::"
"""Separates a file from the path of an array in it."""


class Place(NamedTuple):
    """Where a matrix is stored.

    Attributes:
        path: of the file, or of the folder of a Zarr store.
        array: path of the array in an HDF5 file or a Zarr store, without a leading ``/``; ``None`` for the only matrix.
    """

    path: Path
    array: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.array is None else f"{self.path}{MARK}/{self.array}"


def locate(text: str | Path) -> Place:
    """Return the place that a name means: a file, or ``file.h5::/path/of/array``.

    >>> locate("runs/a.h5::/x/matrix").array
    'x/matrix'
    >>> locate("a.npy").array is None
    True
    """
    before, mark, after = str(text).partition(MARK)
    if mark and before.lower().endswith(STORE_SUFFIXES):
        return Place(user_path(before), after.strip("/") or None)
    return Place(user_path(text))


def choose_array(place: Place, shapes: dict[str, tuple[int, ...]]) -> str:
    """Return the path of the array that is meant.

    Args:
        place: of the matrix.
        shapes: of all arrays of the file, by path.

    Raises:
        ValueError: no array has the path; without a path, there is no matrix or there are several.
    """
    listed = ", ".join(f"/{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items()) or "none"
    if place.array is not None:
        if place.array not in shapes:
            raise ValueError(f"{place.path}: has no array /{place.array}; its arrays are {listed}")
        return place.array
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if not matrices:
        raise ValueError(f"{place.path}: must hold a matrix, an array with two dimensions; its arrays are {listed}")
    if len(matrices) > 1:
        raise ValueError(
            f"{place.path}: holds several matrices; choose one, as in {place.path.name}{MARK}/{matrices[0]}; its "
            f"arrays are {listed}"
        )
    return matrices[0]
