"""TIFF files of any number format, read with tifffile. Channels are samples per pixel, or pages of one size.

The image is read at full size; overviews, thumbnails and masks are ignored. Inverted greys (white is 0) are converted
to black is 0. Values that the file declares missing (GDAL's nodata tag) are missing.

Shapes: H × W pixels, S samples per pixel, C of them colours, N pages.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dop_lightning.images.formats.raster import Palette, Raster, Unsuitable, check_size, upright_shape
from dop_lightning.images.formats.tiff_tags import COLOUR_MAP, kept_tags, nodata_of, orientation_of, resolution_of

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6

_PAGES = 4096
"""Maximum number of pages; a damaged file may have millions."""

_REFUSED = {
    5: "CMYK (print colours); convert it to RGB first, with its colour profile: "
    "`magick in.tif -profile sRGB.icc out.tif`, or Pillow's ImageCms.profileToProfile",
    YCBCR: "YCbCr without JPEG compression; convert it to RGB first",
    8: "CIELab; convert it to RGB first, or save its L, a and b as bands (photometric minisblack)",
    9: "ICCLab; convert it to RGB first",
    10: "ITULab; convert it to RGB first",
    32803: "the raw mosaic of a colour sensor (CFA); develop it to RGB first",
}
_JPEG = (6, 7)


def shape(path: Path) -> tuple[int, int, int]:
    """Return (C, H, W) of an upright TIFF file."""
    with _open(path) as pages:
        page = pages[0]
        return upright_shape(_num_channels(pages), page.imagelength, page.imagewidth, orientation_of(page))


def read(path: Path) -> Raster:
    """Read a TIFF file."""
    with _open(path) as pages:
        page = pages[0]
        for each in pages:
            _check_segments(each, path.stat().st_size)
        planes = np.stack([_page_samples(each) for each in pages], axis=-1)  # (H, W, S, N), S or N is 1
        planes = planes.reshape(*planes.shape[:2], -1)
        metadata = {
            "byteorder": page.parent.byteorder,
            "bigtiff": page.parent.is_bigtiff,
            "paged": len(pages) > 1,
            "separate": page.planarconfig == 2,
            "photometric": int(page.photometric),
            "extrasamples": tuple(int(kind) for kind in page.extrasamples),
            "alpha": _alpha_index(page),
            "compression": int(page.compression),
            "predictor": int(page.predictor),
            "tile": page.tile,
            "resolution": resolution_of(page),
            "tags": [kept_tags(each) for each in pages],
            "size": planes.shape[:2],
            "channels": _num_channels(pages),
        }
        colour_map = page.tags[COLOUR_MAP].value if page.photometric == PALETTE else None
        nodata, orientation = nodata_of(page), orientation_of(page)
    alpha = None
    if metadata["alpha"] is not None:
        alpha, planes = planes[..., metadata["alpha"]], np.delete(planes, metadata["alpha"], axis=2)
    kind = planes.dtype.kind
    bits = page.bitspersample if kind in "bu" else 8 * planes.dtype.itemsize
    if colour_map is not None:
        colours = np.asarray(colour_map).reshape(3, -1).T >> 8
        return Raster(
            ".tif",
            planes.astype(np.uint8),
            bits,
            palette=Palette(colours.astype(np.uint8)),
            orientation=orientation,
            metadata={**metadata, "colour_map": tuple(int(level) for level in np.ravel(colour_map))},
        )
    if page.photometric == WHITE_IS_ZERO:
        planes = inverted(planes, bits)
    return Raster(".tif", planes, bits, alpha, None, None, nodata, orientation, metadata)


def inverted(planes: np.ndarray, bits: int) -> np.ndarray:
    """Swap black and white; signed and floating-point samples have no white, and are returned unchanged."""
    if planes.dtype.kind == "b":
        return ~planes
    return planes.dtype.type(2**bits - 1) - planes if planes.dtype.kind == "u" else planes


@contextmanager
def silent() -> Iterator[None]:
    """Suppress the warnings of tifffile on standard error."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def _open(path: Path) -> Iterator[list[Any]]:
    """Open the pages of the image, and check its header."""
    from tifffile import TiffFile

    # A file may refer to other files, which must not be read.
    with silent(), TiffFile(path, _multifile=False) as file:
        count = len(file.pages)
        if count > _PAGES:
            raise Unsuitable(f"an image must have at most {_PAGES} pages, which are its channels, got {count}")
        pages: list[Any] = list(file.pages)
        # Bit 0 of the type marks images of reduced size, bit 2 masks.
        pages = [page for page in pages if not page.subfiletype & 5] or pages[:1]
        page = pages[0]
        _check_kind(page)
        check_size(_num_channels(pages), page.imagelength, page.imagewidth)
        if page.is_tiled:
            check_size(1, page.tilelength, page.tilewidth)
        if len(pages) > 1:
            _check_equal_pages(pages)
        yield pages


def _check_kind(page: Any) -> None:
    """Check that number format and colours are supported."""
    if page.imagedepth != 1:
        raise Unsuitable(f"an image must have one layer, got {page.imagedepth}; save one of them")
    if page.dtype is None or not isinstance(page.bitspersample, int):
        raise Unsuitable(
            f"samples must be integers or floating point of one depth, got {page.bitspersample} bits of format "
            f"{page.sampleformat}"
        )
    if page.dtype.kind == "c":
        raise Unsuitable("an image must contain real numbers, got complex ones; save its absolute value or its parts")
    photometric = int(page.photometric)
    readable = photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE)
    from_jpeg = photometric == YCBCR and int(page.compression) in _JPEG and page.planarconfig == 1
    if not readable and not (from_jpeg and page.samplesperpixel == 3):
        name = getattr(page.photometric, "name", photometric)
        raise Unsuitable(
            f"an image must be grey, RGB, indexed or multi-band, got {_REFUSED.get(photometric, f'kind {name}')}"
        )
    if photometric == PALETTE and (page.samplesperpixel > 1 or page.bitspersample > 8):
        raise Unsuitable(
            f"an image with a palette must have one index of at most 8 bits per pixel, got {page.samplesperpixel} of "
            f"{page.bitspersample} bits; convert it to RGB first"
        )
    least = 3 if photometric in (RGB, YCBCR) else 1
    if page.samplesperpixel - len(page.extrasamples) < least:
        raise ValueError(
            f"{len(page.extrasamples)} of {page.samplesperpixel} samples are extra, but {least} must be colours"
        )


def _check_equal_pages(pages: Sequence[Any]) -> None:
    first = pages[0]
    for k, page in enumerate(pages):
        same = page.shape == first.shape and page.dtype == first.dtype and page.photometric == first.photometric
        if not same or page.bitspersample != first.bitspersample or page.samplesperpixel > 1:
            raise Unsuitable(
                f"pages must be grey channels of one size and depth, got {first.shape} of {first.dtype} on page 1 and "
                f"{page.shape} of {page.dtype} on page {k + 1}; save one page as a separate file"
            )
    if first.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        raise Unsuitable(f"pages must be grey channels, got {len(pages)} with a palette; save one as a separate file")


def _check_segments(page: Any, file_size: int) -> None:
    """Check that the file is not truncated: the decoder would read missing parts as black."""
    if page.is_tiled:
        expected = math.ceil(page.imagelength / page.tilelength) * math.ceil(page.imagewidth / page.tilewidth)
    else:
        expected = math.ceil(page.imagelength / min(page.rowsperstrip or page.imagelength, page.imagelength))
    if page.planarconfig == 2:
        expected *= page.samplesperpixel
    offsets, counts = page.dataoffsets, page.databytecounts
    if min(len(offsets), len(counts)) < expected:
        raise ValueError(f"expected {expected} strips or tiles, got {len(offsets)}")
    for offset, count in zip(offsets, counts, strict=True):
        # Both are 0 for parts that were never written (a sparse file).
        if (offset, count) != (0, 0) and (offset + count > file_size or offset == 0 or count == 0):
            raise ValueError(f"the strip at offset {offset} of {count} bytes exceeds the file")
        if int(page.compression) == 7 and count:
            _check_jpeg(page, offset, count)


def _check_jpeg(page: Any, offset: int, count: int) -> None:
    """Check the size of a JPEG within a strip before memory is allocated for it; it may exceed that of the image."""
    from tifffile.tifffile import jpeg_shape

    page.parent.filehandle.seek(offset)
    _, height, width, _ = jpeg_shape(page.parent.filehandle.read(count))
    check_size(1, height, width)


def _page_samples(page: Any) -> np.ndarray:
    """Return the samples of a page, ``(H, W, S)``, in native byte order."""
    pixels = page.asarray()
    stored = (page.imagelength, page.imagewidth, page.samplesperpixel)
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        pixels = np.moveaxis(pixels.reshape(stored[2], *stored[:2]), 0, 2)
    return pixels.reshape(stored).astype(page.dtype.newbyteorder("="), copy=False)


def _num_channels(pages: Sequence[Any]) -> int:
    page = pages[0]
    if page.photometric == PALETTE:
        return 3
    return page.samplesperpixel * len(pages) - (_alpha_index(page) is not None)


def _alpha_index(page: Any) -> int | None:
    """Return the index of the alpha sample: the first extra sample of type 1 (associated) or 2 (unassociated)."""
    first = page.samplesperpixel - len(page.extrasamples)
    return next((first + k for k, kind in enumerate(page.extrasamples) if int(kind) in (1, 2)), None)
