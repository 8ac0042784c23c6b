"""Write TIFF files in the layout in which :mod:`dop_lightning.images.formats.tiff` read them.

Lossless compression that can be written is kept (none, LZW, deflate, PackBits, Zstandard, LZMA); other files are
written with deflate, and packed samples (2 … 7, 9 … 15 bits) uncompressed. EXIF data in a separate directory,
overviews, thumbnails, masks and private tags are not kept.

Shapes: H × W pixels, S samples per pixel.
"""

from typing import Any, BinaryIO

import numpy as np

from dop_lightning.images.formats.raster import Raster
from dop_lightning.images.formats.tiff import BLACK_IS_ZERO, PALETTE, RGB, WHITE_IS_ZERO, YCBCR, inverted, silent
from dop_lightning.images.formats.tiff_tags import COLOUR_MAP, GEOREFERENCE, PROFILE

_NONE, _LZW, _ADOBE_DEFLATE, _DEFLATE, _PACKBITS, _ZSTD, _LZMA = 1, 5, 8, 32946, 32773, 50000, 34925
_LOSSLESS = (_NONE, _LZW, _ADOBE_DEFLATE, _DEFLATE, _PACKBITS, _ZSTD, _LZMA)
_UNASSOCIATED = 2


def write(file: BinaryIO, raster: Raster) -> None:
    """Write a TIFF with the layout, number format and tags of the input."""
    from tifffile import TiffWriter

    metadata = raster.metadata
    photometric, alpha, extrasamples = _colour_options(raster)
    samples = raster.samples
    if photometric == WHITE_IS_ZERO:
        samples = inverted(samples, raster.bits)
    if raster.palette is not None and raster.bits == 1:
        samples = samples.astype(bool)
    planes = samples if raster.alpha is None else np.insert(samples, alpha, raster.alpha, axis=2)  # (H, W, S)
    options = {
        "photometric": photometric,
        "metadata": None,  # no description of shapes by tifffile
        "software": "",
        "contiguous": False,
        **_compression_options(raster),
    }
    if metadata["resolution"] is not None:
        *resolution, unit = metadata["resolution"]
        options |= {"resolution": tuple(resolution), "resolutionunit": unit}
    if metadata["paged"]:
        pages = [planes[..., k] for k in range(planes.shape[2])]
    elif planes.shape[2] == 1:
        pages = [planes[..., 0]]
    elif metadata["separate"]:
        pages = [np.moveaxis(planes, 2, 0)]
        options |= {"planarconfig": "separate", "extrasamples": extrasamples}
    else:
        pages = [planes]
        options |= {"planarconfig": "contig", "extrasamples": extrasamples}
    with silent(), TiffWriter(file, byteorder=metadata["byteorder"], bigtiff=metadata["bigtiff"]) as writer:
        for k, page in enumerate(pages):
            writer.write(np.ascontiguousarray(page), extratags=_tags(raster, k), **options)


def _colour_options(raster: Raster) -> tuple[int, int, tuple[int, ...]]:
    """Return the photometric tag, the index of alpha among the samples, and the types of extra samples."""
    metadata = raster.metadata
    if raster.palette is not None:
        return PALETTE, 0, ()
    as_before = raster.channels == metadata["channels"] and metadata["photometric"] != PALETTE
    if as_before and (raster.alpha is None) == (metadata["alpha"] is None):
        photometric = RGB if metadata["photometric"] == YCBCR else metadata["photometric"]
        return photometric, metadata["alpha"] or 0, metadata["extrasamples"]
    extrasamples = () if raster.alpha is None else (_UNASSOCIATED,)
    return (RGB if raster.channels == 3 else BLACK_IS_ZERO), raster.channels, extrasamples


def _compression_options(raster: Raster) -> dict[str, Any]:
    """Return the options of the compression, and of a predictor and tiles if they are compatible with it."""
    metadata, dtype = raster.metadata, raster.samples.dtype
    depth = 1 if dtype.kind == "b" else 8 * dtype.itemsize
    if raster.bits not in (1, depth):
        return {"bitspersample": raster.bits}
    compression = metadata["compression"] if metadata["compression"] in _LOSSLESS else _ADOBE_DEFLATE
    options: dict[str, Any] = {"compression": compression}
    fitting = {2: dtype.kind in "iu" and raster.bits == depth, 3: dtype.kind == "f"}
    if compression not in (_NONE, _PACKBITS) and fitting.get(metadata["predictor"], False):
        options["predictor"] = metadata["predictor"]
    if metadata["tile"] is not None and all(side % 16 == 0 for side in metadata["tile"]):
        options["tile"] = metadata["tile"]
    return options


def _tags(raster: Raster, k: int) -> list[tuple[int, int, int, Any, bool]]:
    """Return additional tags of page k."""
    metadata = raster.metadata
    left_out: set[int] = set()
    if raster.size != metadata["size"]:
        left_out |= set(GEOREFERENCE)
    if metadata.get("converted"):
        left_out.add(PROFILE)
    tags = [(*tag, True) for tag in metadata["tags"][min(k, len(metadata["tags"]) - 1)] if tag[0] not in left_out]
    if raster.palette is not None:
        tags.append((COLOUR_MAP, 3, len(metadata["colour_map"]), metadata["colour_map"], True))
    return tags
