"""Read and write HDF5 files with h5py."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dop_lightning.foundation.atomic import replacing
from dop_lightning.matrices.storage.chunks import ChunkWriter, chunk_rows
from dop_lightning.matrices.storage.places import Place, choose_array


class Hdf5Source:
    """Dataset of an HDF5 file. The file is open during the lifetime of this object.

    Args:
        place: file and path of the dataset.

    Raises:
        ImportError: h5py is not installed.
        ValueError: the file is damaged, or the dataset cannot be determined.
    """

    def __init__(self, place: Place) -> None:
        h5py = _h5py(place)
        shapes: dict[str, tuple[int, ...]] = {}

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                shapes[name] = item.shape or ()

        try:
            self._file = h5py.File(place.path, "r")
            self._file.visititems(note)
            if place.array and (linked := self._file.get(place.array)) is not None:
                note(place.array, linked)  # soft links and second names are not visited
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{place.path}: must be an HDF5 file, got another or damaged file ({error})") from None
        self._data = self._file[choose_array(place, shapes)]
        self.shape, self.dtype = tuple(self._data.shape or ()), self._data.dtype
        self.chunk = int(self._data.chunks[0]) if self._data.chunks else 1

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Read the rows from ``start`` to ``stop``.

        Raises:
            ValueError: the rows cannot be decoded.
        """
        try:
            return np.asarray(self._data[start:stop])
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{self._file.filename}: rows {start + 1} to {stop} cannot be read; the file is damaged or its "
                f"compression is not supported ({error})"
            ) from None


@contextmanager
def hdf5_writer(path: Path, shape: tuple[int, int], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a matrix in strips of rows, as a chunked dataset named after the file. See :func:`numpy_writer`.

    Yields:
        A function that appends rows.
    """
    h5py = _h5py(Place(path))
    height = chunk_rows(shape, dtype)
    with replacing(path) as temporary, h5py.File(temporary, "x") as file:
        data = file.create_dataset(path.stem, shape=shape, dtype=dtype, chunks=(height, shape[1]))
        writer = ChunkWriter(data, height)
        yield writer.append
        writer.flush()


def _h5py(place: Place) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f'{place.path}: HDF5 files require h5py: pip install "dop_lightning[hdf5]"') from error
    return h5py
