"""Location of a matrix: a file, or an array within a file."""

from pathlib import Path
from typing import NamedTuple

from dop_lightning.foundation.user_paths import user_path

HDF5_SUFFIXES = (".h5", ".hdf5")

ZARR_SUFFIXES = (".zarr", ".zarr.zip")

STORE_SUFFIXES = (*HDF5_SUFFIXES, *ZARR_SUFFIXES)
"""Formats with several arrays, each identified by a path."""

MARK = "::"
"""Separator between a file and the path of an array in it."""


class Place(NamedTuple):
    """Location of a matrix.

    Attributes:
        path: the file, or the folder of a Zarr store.
        array: path of the array in an HDF5 file or a Zarr store, without a leading ``/``; ``None`` for the only matrix.
    """

    path: Path
    array: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.array is None else f"{self.path}{MARK}/{self.array}"


def locate(text: str | Path) -> Place:
    """Parse the location of a matrix: a file, or ``file.h5::/path/of/array``.

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
    """Return the path of the array at a location.

    Args:
        place: location of the matrix.
        shapes: shapes of all arrays in the file, by path.

    Raises:
        ValueError: there is no array with this path; or the location has no path, and the file has no or several
            matrices.
    """
    listed = ", ".join(f"/{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items()) or "none"
    if place.array is not None:
        if place.array not in shapes:
            raise ValueError(f"{place.path}: has no array /{place.array}; available arrays: {listed}")
        return place.array
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if not matrices:
        raise ValueError(f"{place.path}: must contain a matrix (two dimensions); available arrays: {listed}")
    if len(matrices) > 1:
        raise ValueError(
            f"{place.path}: contains several matrices; choose one, for example "
            f"{place.path.name}{MARK}/{matrices[0]}; available arrays: {listed}"
        )
    return matrices[0]
