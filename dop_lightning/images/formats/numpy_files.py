"""Images in NumPy files: ``.npy``, and ``.npz`` with one array.

Shapes: ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``; the channels are the shorter of the first and the last axis, or the
last if they are equal.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np

from dop_lightning.images.formats.raster import Raster, Unsuitable, check_size

MAGIC = np.lib.format.MAGIC_PREFIX


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    key: str | None
    compressed: bool

    @property
    def axis(self) -> int | None:
        """Axis of the channels; ``None`` for two dimensions."""
        return channel_axis(self.shape)

    @property
    def size(self) -> tuple[int, int, int]:
        """Size (C, H, W) of the image."""
        if self.axis is None:
            return 1, self.shape[0], self.shape[1]
        height, width = (side for k, side in enumerate(self.shape) if k != self.axis)
        return self.shape[self.axis], height, width


def shape(path: Path) -> tuple[int, int, int]:
    """Return (C, H, W) of the array in a file."""
    with _open(path) as (_, header):
        return header.size


def read(path: Path) -> Raster:
    """Read a NumPy file."""
    with _open(path) as (file, header):
        count = int(np.prod(header.shape))
        content = file.read(count * header.dtype.itemsize)
    # Raises an error if bytes are missing.
    flat = np.frombuffer(content, dtype=header.dtype, count=count).astype(header.dtype.newbyteorder("="))
    array = flat.reshape(header.shape, order="F" if header.fortran else "C")
    samples = array[..., None] if header.axis is None else np.moveaxis(array, header.axis, 2)
    suffix = ".npy" if header.key is None else ".npz"
    return Raster(suffix, samples, 8 * header.dtype.itemsize, metadata={"header": header})


def write(file: BinaryIO, raster: Raster) -> None:
    """Write an array with the axes, memory order and name of the input."""
    header: _Header = raster.metadata["header"]
    axis = header.axis
    # A two-dimensional input that was converted to RGB has three axes.
    array = raster.samples[..., 0] if axis is None and raster.channels == 1 else raster.samples
    if axis == 0:
        array = np.moveaxis(array, 2, 0)
    array = array.astype(array.dtype.newbyteorder(header.dtype.byteorder), copy=False)
    array = np.asfortranarray(array) if header.fortran else np.ascontiguousarray(array)
    if header.key is None:
        np.save(file, array, allow_pickle=False)
        return
    compression = zipfile.ZIP_DEFLATED if header.compressed else zipfile.ZIP_STORED
    # numpy.savez does not support arrays whose names are those of its arguments.
    with (
        zipfile.ZipFile(file, "w", compression) as archive,
        archive.open(f"{header.key}.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array(member, array, allow_pickle=False)


@contextmanager
def _open(path: Path) -> Iterator[tuple[IO[bytes], _Header]]:
    """Open a file at the first sample of its array, and parse its header."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            file.seek(0)
            yield file, _header(file, None, False)
            return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(names) != 1:
            listed = ", ".join(name.removesuffix(".npy") for name in names) or "none"
            raise Unsuitable(
                f"an .npz file must contain exactly one array, got {len(names)}: {listed}; save the image with "
                "numpy.save"
            )
        compressed = archive.getinfo(names[0]).compress_type != zipfile.ZIP_STORED
        with archive.open(names[0]) as file:
            yield file, _header(file, names[0].removesuffix(".npy"), compressed)


def _header(file: IO[bytes], key: str | None, compressed: bool) -> _Header:
    """Read the header of an array, and check that it is an image."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version not in ((1, 0), (2, 0)):
        raise Unsuitable(f"an array must have version 1 or 2 of the NumPy format, got {version[0]}.{version[1]}")
    shape, fortran, dtype = read_header(file)
    check_array(shape, dtype)
    header = _Header(shape, fortran, dtype, key, compressed)
    check_size(*header.size)
    return header


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis of the channels; ``None`` for two dimensions.

    >>> channel_axis((480, 640)), channel_axis((480, 640, 3)), channel_axis((3, 480, 640))
    (None, 2, 0)
    """
    if len(shape) == 2:
        return None
    return 0 if shape[0] < shape[2] else 2


def check_array(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Check that an array is an image.

    Raises:
        Unsuitable: the shape or the number format is not supported.
    """
    if dtype.hasobject:
        raise Unsuitable("an image must contain numbers, got Python objects (a pickle), which are never loaded")
    if dtype.kind == "c":
        raise Unsuitable(f"an image must contain real numbers, got {dtype}; save its absolute value or its parts")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise Unsuitable(f"an image must contain numbers of at most 64 bits, got {dtype}")
    if len(shape) not in (2, 3):
        raise Unsuitable(f"an image must have shape (H, W), (H, W, C) or (C, H, W), got {shape}")
