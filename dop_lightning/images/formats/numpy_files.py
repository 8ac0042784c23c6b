"""Images as arrays of NumPy: ``.npy``, and ``.npz`` with one array.

Shapes: ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``; the channels are on the shorter of the first and the last axis, on
the last where these are equal.
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
        """Of the channels; ``None`` where there is one alone."""
        return channel_axis(self.shape)

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        if self.axis is None:
            return 1, self.shape[0], self.shape[1]
        height, width = (side for k, side in enumerate(self.shape) if k != self.axis)
        return self.shape[self.axis], height, width


def shape(path: Path) -> tuple[int, int, int]:
    """(C, H, W) of an array."""
    with _open(path) as (_, header):
        return header.size


def read(path: Path) -> Raster:
    """The content of a file of NumPy."""
    with _open(path) as (file, header):
        count = int(np.prod(header.shape))
        content = file.read(count * header.dtype.itemsize)
    # Too few bytes are an error here.
    flat = np.frombuffer(content, dtype=header.dtype, count=count).astype(header.dtype.newbyteorder("="))
    array = flat.reshape(header.shape, order="F" if header.fortran else "C")
    samples = array[..., None] if header.axis is None else np.moveaxis(array, header.axis, 2)
    suffix = ".npy" if header.key is None else ".npz"
    return Raster(suffix, samples, 8 * header.dtype.itemsize, metadata={"header": header})


def write(file: BinaryIO, raster: Raster) -> None:
    """Write an array with the axes and the order in memory that it came with, under the name that it had."""
    header: _Header = raster.metadata["header"]
    axis = header.axis
    # After a conversion of channels a grey image has one of the axes of before.
    array = raster.samples[..., 0] if axis is None and raster.channels == 1 else raster.samples
    if axis == 0:
        array = np.moveaxis(array, 2, 0)
    array = array.astype(array.dtype.newbyteorder(header.dtype.byteorder), copy=False)
    array = np.asfortranarray(array) if header.fortran else np.ascontiguousarray(array)
    if header.key is None:
        np.save(file, array, allow_pickle=False)
        return
    compression = zipfile.ZIP_DEFLATED if header.compressed else zipfile.ZIP_STORED
    # Not by numpy.savez, which has arguments of its own and takes no array of their names.
    with (
        zipfile.ZipFile(file, "w", compression) as archive,
        archive.open(f"{header.key}.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array(member, array, allow_pickle=False)


@contextmanager
def _open(path: Path) -> Iterator[tuple[IO[bytes], _Header]]:
    """The file at the first sample of its array, and what its header says."""
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
                f"an image must be alone in its .npz file, got {len(names)} arrays: {listed}; "
                "save the one that is meant with numpy.save"
            )
        compressed = archive.getinfo(names[0]).compress_type != zipfile.ZIP_STORED
        with archive.open(names[0]) as file:
            yield file, _header(file, names[0].removesuffix(".npy"), compressed)


def _header(file: IO[bytes], key: str | None, compressed: bool) -> _Header:
    """Read the header of an array and refuse what is no image."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version not in ((1, 0), (2, 0)):
        raise Unsuitable(f"an array must have version 1 or 2 of the format of NumPy, got {version[0]}.{version[1]}")
    shape, fortran, dtype = read_header(file)
    check_array(shape, dtype)
    header = _Header(shape, fortran, dtype, key, compressed)
    check_size(*header.size)
    return header


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of the channels; ``None`` where there is one alone, and no axis.

    >>> channel_axis((480, 640)), channel_axis((480, 640, 3)), channel_axis((3, 480, 640))
    (None, 2, 0)
    """
    if len(shape) == 2:
        return None
    return 0 if shape[0] < shape[2] else 2


def check_array(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse arrays that are no images.

    Raises:
        Unsuitable: the shape or the number format is none of an image.
    """
    if dtype.hasobject:
        raise Unsuitable("an image must hold numbers, got Python objects (a pickle), which are never loaded")
    if dtype.kind == "c":
        raise Unsuitable(f"an image must hold real numbers, got {dtype}; save its absolute value or its parts")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise Unsuitable(f"an image must hold numbers of at most 64 bits, got {dtype}")
    if len(shape) not in (2, 3):
        raise Unsuitable(f"an image must have shape (H, W), (H, W, C) or (C, H, W), got {shape}")
