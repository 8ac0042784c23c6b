"""Matrices in files of every format."""

from pathlib import Path

import numpy as np
import pytest


def store(path: Path, array: np.ndarray, name: str = "data", chunks: tuple[int, ...] | None = None) -> Path:
    """Write an array into a file, with the library of its format."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix in (".h5", ".hdf5"):
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "a") as file:
            file.create_dataset(name, data=array, chunks=chunks, compression="gzip" if chunks else None)
    else:
        zarr = pytest.importorskip("zarr")
        target = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else zarr.storage.LocalStore(path)
        zarr.open_group(target).create_array(name, data=array, chunks=chunks or "auto")
        target.close()
    return path


def load(path: Path) -> np.ndarray:
    """Read what ``dop separate`` has written."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix in (".h5", ".hdf5"):
        with pytest.importorskip("h5py").File(path) as file:
            (data,) = file.values()
            return data[()]
    zarr = pytest.importorskip("zarr")
    target = zarr.storage.ZipStore(path, mode="r") if path.suffix == ".zip" else zarr.storage.LocalStore(path)
    array = zarr.open(target, mode="r")[:]
    target.close()
    return array
