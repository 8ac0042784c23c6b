"""Which kind of image a file is, by its first bytes, and who reads and writes that kind."""

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
    """Read an image file of any kind, its pixels as they are stored. ``frame.fits[1]`` is HDU 1 of a FITS file.

    Within :func:`~dop_lightning.foundation.parsing.parse_once` a file is decoded once.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is a folder, empty, damaged, of another kind, or holds what cannot be taken; see
            :func:`~dop_lightning.images.formats.read_image`.
    """
    file, hdu = split_hdu(path)
    return parse_file(_read, existing_file(file), hdu)


def _read(path: Path, hdu: str) -> Raster:
    return _decoded(path, hdu, lambda kind, *where: checked_raster(kind.read(*where)))


def read_pixels(path: str | Path) -> np.ndarray:
    """Return the values of an image file, upright, ``(H, W, C)`` in their number format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as :func:`read_raster`.
    """
    return read_raster(path).upright().colours()


def raster_shape(path: str | Path) -> tuple[int, int, int]:
    """(C, H, W) of an image file, upright, by its header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as :func:`read_raster`, as far as the header tells.
    """
    return _decoded(*split_hdu(path), lambda kind, *where: kind.shape(*where))


def write_raster(file: BinaryIO, raster: Raster) -> None:
    """Write an image, its pixels as they are to be stored, in the kind that its suffix says."""
    _WRITERS[raster.suffix](file, raster)


def _decoded(path: Path, hdu: str, decode: Callable[..., T]) -> T:
    """Let the right kind decode a file, or one HDU of it. Whatever goes wrong becomes one error that names the file."""
    path = existing_file(path)
    kind = _kind(path)
    where = (path, hdu) if hdu else (path,)
    if hdu and kind is not fits:
        raise ValueError(f"{path}: only FITS files have HDUs, got [{hdu}] for a file of another kind")
    with quiet():  # decoders warn of odd metadata, which is taken over as it is; and of bombs, which are refused
        try:
            return decode(kind, *where)
        except Unsuitable as error:
            raise ValueError(f"{path}: {error}") from None
        except Image.DecompressionBombError:
            raise ValueError(
                f"{path}: an image must have at most {Image.MAX_IMAGE_PIXELS} pixels, got more; make it smaller first"
            ) from None
        except Exception as error:  # damaged bytes make decoders raise errors of any kind
            reason = " ".join(repr(error).split())[:200]
            raise ValueError(f"{path}: the image cannot be read, it is damaged or cut off ({reason})") from None


def _kind(path: Path) -> ModuleType:
    with path.open("rb") as file:
        start = file.read(16)
    for magic, kind in _KINDS:
        if start.startswith(magic) and (magic != b"RIFF" or start[8:12] == b"WEBP"):
            return kind
    raise ValueError(
        f"{path}: must be a PNG, JPEG, TIFF, WebP, BMP or FITS image or an array of NumPy, got a file that is none of "
        "these, or damaged; convert it to PNG or TIFF first"
    )


def checked_raster(raster: Raster) -> Raster:
    """Return an image whose samples all stand for something.

    Raises:
        Unsuitable: a value is infinite.
        ValueError: an index is beyond its palette.
    """
    if raster.palette is not None and int(raster.samples.max()) >= len(raster.palette.colours):
        raise ValueError(f"a pixel has colour {raster.samples.max()} of a palette of {len(raster.palette.colours)}")
    if raster.samples.dtype.kind == "f":
        infinite = np.isinf(raster.samples) & ~raster.has_nodata()
        if infinite.any():
            row, column, channel = np.argwhere(infinite)[0]
            raise Unsuitable(
                f"values must be finite, or NaN where missing, got {raster.samples[row, column, channel]} in row "
                f"{row + 1}, column {column + 1}; put NaN there, which marks what is missing"
            )
    return raster
