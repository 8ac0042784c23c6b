"""Read and write Zarr stores of formats 2 and 3, as folders or ``.zarr.zip`` files, with zarr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dop_lightning.foundation.atomic import replacing
from dop_lightning.matrices.storage.chunks import ChunkWriter, chunk_rows
from dop_lightning.matrices.storage.places import Place, choose_array


class ZarrSource:
    """Array of a Zarr store.

    Args:
        place: store and path of the array.

    Raises:
        ImportError: zarr is not installed.
        ValueError: the store is damaged, or the array cannot be determined.
    """

    def __init__(self, place: Place) -> None:
        zarr = _zarr(place)
        self._name = str(place.path)
        try:
            is_zip = place.path.suffix.lower() == ".zip"
            store = zarr.storage.ZipStore(place.path, mode="r") if is_zip else str(place.path)
            found = zarr.open(store, mode="r")
            if isinstance(found, zarr.Array):
                arrays = {"": found}
            else:
                members = found.members(max_depth=None)
                arrays = {name: item for name, item in members if isinstance(item, zarr.Array)}
        except Exception as error:  # zarr, its stores and codecs raise errors of many types
            raise ValueError(f"{place.path}: must be a Zarr store, got another or damaged one ({error})") from None
        self._data = arrays[choose_array(place, {name: item.shape for name, item in arrays.items()})]
        self.shape, self.dtype = tuple(self._data.shape), np.dtype(self._data.dtype)
        self.chunk = int((self._data.shards or self._data.chunks or (1,))[0])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Read the rows from ``start`` to ``stop``. Missing chunks have the fill value.

        Raises:
            ValueError: the rows cannot be decoded.
        """
        try:
            return np.asarray(self._data[start:stop])
        except Exception as error:  # as above
            raise ValueError(
                f"{self._name}: rows {start + 1} to {stop} cannot be read; the store is damaged ({error})"
            ) from None


@contextmanager
def zarr_writer(path: Path, shape: tuple[int, int], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a matrix in strips of rows, as a chunked array. See :func:`numpy_writer`.

    Yields:
        A function that appends rows.
    """
    zarr = _zarr(Place(path))
    height = chunk_rows(shape, dtype)
    with replacing(path) as temporary:
        is_zip = path.suffix.lower() == ".zip"
        store = zarr.storage.ZipStore(temporary, mode="x") if is_zip else zarr.storage.LocalStore(temporary)
        try:
            data = zarr.create_array(store, shape=shape, dtype=dtype, chunks=(height, shape[1]))
            writer = ChunkWriter(data, height)
            yield writer.append
            writer.flush()
        finally:
            store.close()


def _zarr(place: Place) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f'{place.path}: Zarr stores require zarr: pip install "dop_lightning[zarr]"') from error
    return zarr
