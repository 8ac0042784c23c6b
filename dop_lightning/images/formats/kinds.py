"""Detect the format of image files by their first bytes, and dispatch to the readers and writers of formats."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image

from dop_lightning.foundation.find import existing_file
from dop_lightning.foundation.parsing import parse_file
from dop_lightning.foundation.quiet import quiet
from dop_lightning.images.formats import bmp, fits, numpy_files, photographs, png, tiff, tiff_writing
from dop_lightning.images.formats.fits_hdu import split_hdu
from dop_lightning.images.formats.png_chunks import SIGNATURE
from dop_lightning.images.formats.raster import Raster, Unsuitable

_KINDS: tuple[tuple[bytes, ModuleType], ...] = (
    (SIGNATURE, png),
    (b"\xff\xd8\xff", photographs),
    (b"RIFF", photographs),
    (b"BM", bmp),
    (b"II*\0", tiff),
    (b"MM\0*", tiff),
    (b"II+\0", tiff),
    (b"MM\0+", tiff),
    (numpy_files.MAGIC, numpy_files),
    (b"PK\3\4", numpy_files),
    (b"PK\5\6", numpy_files),
    (fits.MAGIC, fits),
    (fits.GZIP, fits),
)
_WRITERS: dict[str, Callable[[BinaryIO, Raster], None]] = {
    ".png": png.write,
    ".webp": photographs.write,
    ".bmp": bmp.write,
    ".tif": tiff_writing.write,
    ".npy": numpy_files.write,
    ".npz": numpy_files.write,
    ".fits": fits.write,
}

T = TypeVar("T")


def read_raster(path: str | Path) -> Raster:
    """Read an image file of any supported format, with its pixels as stored. ``frame.fits[1]`` is HDU 1 of a FITS file.

    Within :func:`~dop_lightning.foundation.parsing.parse_once`, a file is decoded only once.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is a folder, empty, damaged, or not supported; see
            :func:`~dop_lightning.images.formats.read_image`.
    """
    file, hdu = split_hdu(path)
    return parse_file(_read, existing_file(file), hdu)


def _read(path: Path, hdu: str) -> Raster:
    return _decode(path, hdu, lambda kind, *where: checked_raster(kind.read(*where)))


def read_pixels(path: str | Path) -> np.ndarray:
    """Return the values of an image file, upright, ``(H, W, C)`` in their number format.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: see :func:`read_raster`.
    """
    return read_raster(path).upright().colours()


def raster_shape(path: str | Path) -> tuple[int, int, int]:
    """Return (C, H, W) of an upright image file, using only its header.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the errors of :func:`read_raster` that the header reveals.
    """
    return _decode(*split_hdu(path), lambda kind, *where: kind.shape(*where))


def write_raster(file: BinaryIO, raster: Raster) -> None:
    """Write an image with its pixels as stored, in the format of its suffix."""
    _WRITERS[raster.suffix](file, raster)


def _decode(path: Path, hdu: str, decode: Callable[..., T]) -> T:
    """Decode a file, or one HDU of it, by its format. All errors become a ``ValueError`` that names the file."""
    path = existing_file(path)
    kind = _detect_format(path)
    where = (path, hdu) if hdu else (path,)
    if hdu and kind is not fits:
        raise ValueError(f"{path}: only FITS files have HDUs, got [{hdu}] for another format")
    with quiet():  # decoders warn about odd metadata, which is kept unchanged, and about bombs, which are errors here
        try:
            return decode(kind, *where)
        except Unsuitable as error:
            raise ValueError(f"{path}: {error}") from None
        except Image.DecompressionBombError:
            raise ValueError(
                f"{path}: an image must have at most {Image.MAX_IMAGE_PIXELS} pixels, got more; make it smaller first"
            ) from None
        except Exception as error:  # decoders raise errors of any type for damaged files
            reason = " ".join(repr(error).split())[:200]
            raise ValueError(f"{path}: the image cannot be read; it is damaged or truncated ({reason})") from None


def _detect_format(path: Path) -> ModuleType:
    with path.open("rb") as file:
        start = file.read(16)
    for magic, kind in _KINDS:
        if start.startswith(magic) and (magic != b"RIFF" or start[8:12] == b"WEBP"):
            return kind
    raise ValueError(
        f"{path}: must be a PNG, JPEG, TIFF, WebP, BMP or FITS image or a NumPy array, got a file of another format "
        "or a damaged one; convert it to PNG or TIFF first"
    )


def checked_raster(raster: Raster) -> Raster:
    """Return the image if its samples are valid.

    Raises:
        Unsuitable: a value is infinite.
        ValueError: an index is outside of the palette.
    """
    if raster.palette is not None and int(raster.samples.max()) >= len(raster.palette.colours):
        raise ValueError(f"pixel index {raster.samples.max()} exceeds the palette of {len(raster.palette.colours)}")
    if raster.samples.dtype.kind == "f":
        infinite = np.isinf(raster.samples) & ~raster.has_nodata()
        if infinite.any():
            row, column, channel = np.argwhere(infinite)[0]
            raise Unsuitable(
                f"values must be finite, or NaN if missing, got {raster.samples[row, column, channel]} in row "
                f"{row + 1}, column {column + 1}; replace it with NaN to mark it as missing"
            )
    return raster
