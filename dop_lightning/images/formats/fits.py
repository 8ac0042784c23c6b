"""FITS files, read and written with astropy: the first image of a file, or a given HDU.

The file may be uncompressed, compressed with gzip, or have a compressed image extension.

Integers of a scaled image (BSCALE and BZERO) are scaled when read, and written as integers again. Integers stored with
the offset of unsigned integers are read as unsigned. NaN and the integer of BLANK are missing values. The header and
all other parts of the file are kept, with a line of HISTORY about the change.

Rows are in the order of the file, as astropy reads them; many viewers draw the first row at the bottom.

Shapes: H × W pixels, C channels; a cube is ``(C, H, W)``, and leading axes of length 1 are ignored.
"""

import gzip
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np

from dop_lightning.images.formats.fits_hdu import parse_hdu
from dop_lightning.images.formats.raster import Raster, Unsuitable, check_size

MAGIC = b"SIMPLE  ="
GZIP = b"\x1f\x8b"

_HISTORY = "Outliers replaced by dop_lightning {version}"
_COORDINATES = re.compile(r"(CRPIX|CRVAL|CDELT|CTYPE|CUNIT|CROTA)\d+[A-Z]?|(CD|PC|PV)\d+_\d+[A-Z]?|(LON|LAT)POLE[A-Z]?")
"""Keywords of the sky coordinates of pixels, which are wrong after cropping or resizing."""

_REWRITTEN_KEYWORDS = ("CHECKSUM", "DATASUM", "BSCALE", "BZERO", "BLANK")


class _Layout(NamedTuple):
    """Storage of the samples in a file.

    Attributes:
        number: number of the HDU in the file.
        shape: shape of its array.
        stored: number format of its array.
        slope: BSCALE.
        offset: BZERO.
        blank: the stored integer of missing values, if any.
        samples: number format of the samples.
    """

    number: int
    shape: tuple[int, ...]
    stored: np.dtype
    slope: float
    offset: float
    blank: int | None
    samples: np.dtype

    @property
    def is_scaled(self) -> bool:
        """Whether the stored numbers are integers, but the samples are floats."""
        return self.stored.kind in "iu" and self.samples.kind == "f"

    @property
    def size(self) -> tuple[int, int, int]:
        """Size (C, H, W) of the image."""
        channels, height, width = (1, *self.shape)[-3:]
        return channels, height, width


def shape(path: Path, hdu: str = "") -> tuple[int, int, int]:
    """Return (C, H, W) of an image of a FITS file, the first by default."""
    with _open(path) as file, _hdus(file) as hdus:
        return _read_layout(hdus, hdu).size


def read(path: Path, hdu: str = "") -> Raster:
    """Read an image of a FITS file.

    Args:
        path: the file.
        hdu: number or EXTNAME of the HDU, see :mod:`~dop_lightning.images.formats.fits_hdu`; by default the first
            image.

    Raises:
        Unsuitable: the file has no such HDU, or it is not an image with two or three axes.
    """
    with _open(path) as file:
        content = file.read()
    with _hdus(io.BytesIO(content)) as hdus:
        layout = _read_layout(hdus, hdu)
        planes = np.asarray(hdus[layout.number].data).reshape(layout.size)
        stored = planes.astype(layout.stored, copy=False)
    samples = np.moveaxis(_to_samples(stored, layout), 0, 2)
    nodata = None
    if layout.blank is not None and not layout.is_scaled:
        nodata = float(layout.blank + int(layout.offset))
    bits = 8 * samples.dtype.itemsize
    return Raster(".fits", samples, bits, nodata=nodata, metadata={"content": content, "layout": layout})


def write(file: BinaryIO, raster: Raster) -> None:
    """Write the original file with the values of the image replaced."""
    fits = _astropy()
    layout: _Layout = raster.metadata["layout"]
    array = np.moveaxis(raster.samples, 2, 0)  # (C, H, W)
    if array.shape == layout.size:
        array = array.reshape(layout.shape)
    elif len(array) == 1 and len(layout.shape) == 2:
        array = array[0]
    with _hdus(io.BytesIO(raster.metadata["content"])) as hdus:
        before = hdus[layout.number]
        header = before.header.copy()
        moved = [key for key in header if _COORDINATES.fullmatch(key)] if raster.size != layout.size[1:] else []
        for key in (*_REWRITTEN_KEYWORDS, *moved):
            header.remove(key, ignore_missing=True)
        header.add_history(_HISTORY.format(version=metadata.version("dop_lightning")))
        array = np.ascontiguousarray(array)
        options = {}
        # Compression of floats is lossy: they are written uncompressed.
        kind = type(before) if array.dtype.kind in "iu" else fits.ImageHDU
        if layout.number == 0:
            kind = fits.PrimaryHDU
        if kind is fits.CompImageHDU:
            options = {"compression_type": before.compression_type, "tile_shape": before.tile_shape}
        after = kind(array, header=header, **options)
        if layout.is_scaled:
            _scale_to_integers(after, array, layout)
        if layout.blank is not None:
            after.header["BLANK"] = layout.blank
        hdus[layout.number] = after
        buffer = io.BytesIO()  # astropy closes the file that it writes to
        hdus.writeto(buffer, output_verify="silentfix", checksum="CHECKSUM" in before.header)
    file.write(buffer.getvalue())


def _to_samples(stored: np.ndarray, layout: _Layout) -> np.ndarray:
    """Convert stored numbers to samples."""
    if layout.is_scaled:
        samples = stored.astype(np.float64) * layout.slope + layout.offset
        if layout.blank is not None:
            samples[stored == layout.blank] = np.nan
        return samples
    if layout.offset:
        bits = stored.view(f"u{stored.itemsize}") ^ (1 << (8 * stored.itemsize - 1))  # the offset flips the highest bit
        return bits.view(layout.samples)
    return stored


def _scale_to_integers(hdu: Any, array: np.ndarray, layout: _Layout) -> None:
    """Convert the samples of an HDU to stored integers."""
    limits = np.iinfo(layout.stored)
    with np.errstate(invalid="ignore"):
        stored = np.rint((array - layout.offset) / layout.slope)
    missing = np.isnan(stored)
    stored = np.where(missing, layout.blank or 0, np.clip(stored, limits.min, limits.max)).astype(layout.stored)
    hdu.data = stored
    hdu.header["BSCALE"], hdu.header["BZERO"] = layout.slope, layout.offset


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open a FITS file, compressed with gzip or not."""
    with path.open("rb") as file:
        zipped = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if not zipped:
            yield file
            return
        with gzip.open(file) as content:
            if content.read(len(MAGIC)) != MAGIC:
                raise Unsuitable("a file compressed with gzip must contain a FITS image, got other content")
            content.seek(0)
            yield content  # type: ignore[misc]


@contextmanager
def _hdus(file: IO[bytes]) -> Iterator[Any]:
    """Open the HDUs of a FITS file, without scaling their numbers."""
    fits = _astropy()
    with fits.open(file, mode="readonly", memmap=False, do_not_scale_image_data=True, lazy_load_hdus=True) as hdus:
        yield hdus


def _read_layout(hdus: Any, named: str = "") -> _Layout:
    """Return the storage of an image after checking its header.

    Raises:
        Unsuitable: there is no image, or it does not have two or three axes.
    """
    number, hdu = _image_by_name(hdus, named) if named else _first_image(hdus)
    shape = tuple(hdu.shape)
    if len(shape) > 3 and math.prod(shape[:-3]) > 1:
        raise Unsuitable(f"an image must have two axes, or three with bands first, got {shape} in HDU {number}")
    header = hdu.header
    slope, offset, blank = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0)), header.get("BLANK")
    stored = np.dtype(_FORMATS[int(header["BITPIX"])])
    if not (math.isfinite(slope) and math.isfinite(offset) and slope):
        raise Unsuitable(f"BSCALE and BZERO must be finite, and BSCALE not 0, got {slope:g} and {offset:g}")
    layout = _Layout(number, shape, stored, slope, offset, blank, _sample_format(stored, slope, offset))
    check_size(*layout.size)
    return layout


def _first_image(hdus: Any) -> tuple[int, Any]:
    """Return the number and the HDU of the first image with at least two axes."""
    for number, hdu in enumerate(hdus):
        if _is_image(hdu):
            return number, hdu
    raise Unsuitable("a FITS file must contain an image with two or three axes, got none")


def _image_by_name(hdus: Any, named: str) -> tuple[int, Any]:
    """Return the number and the HDU of a number or name; without a version, the first HDU of that name."""
    wanted = parse_hdu(named)
    images = []
    for number, hdu in enumerate(hdus):
        if not _is_image(hdu):
            continue
        name = hdu.name.strip().upper()
        if number == wanted.number or (wanted.name and wanted.name == name and wanted.version in (None, hdu.ver)):
            return number, hdu
        images.append(f"{number} ({name},{hdu.ver})" if name else f"{number}")
    known = f"one of the images {', '.join(images)}" if images else "an image, but the file has none"
    raise Unsuitable(f"the HDU must be {known}, got [{named}]")


def _is_image(hdu: Any) -> bool:
    return bool(hdu.is_image) and len(hdu.shape) >= 2


_FORMATS = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
"""Number formats by BITPIX, in native byte order."""


def _sample_format(stored: np.dtype, slope: float, offset: float) -> np.dtype:
    if (slope, offset) == (1, 0):
        return stored
    if stored.kind in "iu" and slope == 1 and abs(offset) == 2 ** (8 * stored.itemsize - 1):
        other = np.dtype(f"{'u' if stored.kind == 'i' else 'i'}{stored.itemsize}")
        if (offset > 0) == (other.kind == "u"):
            return other
    return np.dtype("f8")


def _astropy() -> Any:
    """Import ``astropy.io.fits``.

    Raises:
        Unsuitable: astropy is not installed.
    """
    try:
        from astropy.io import fits
    except ImportError:
        raise Unsuitable('FITS files require astropy: pip install "dop_lightning[astro]"') from None
    return fits
