"""BMP files: decoded by Pillow, but encoded here to keep depth, palette, alpha and resolution.

Samples of 5 bits per channel (depth 16) are written with 8 bits (depth 24), and run-length encoded files are written
uncompressed.

Shapes: H × W pixels, C channels.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from dop_lightning.images.formats.packing import pack_rows
from dop_lightning.images.formats.raster import Palette, Raster, Unsuitable, check_size

_MODES = ("1", "L", "P", "RGB", "RGBA")
_BITFIELDS = 3


def shape(path: Path) -> tuple[int, int, int]:
    """Return (C, H, W) of a BMP file."""
    with _open(path) as image:
        return (1 if image.mode in ("1", "L") else 3), image.height, image.width


def read(path: Path) -> Raster:
    """Read a BMP file."""
    with path.open("rb") as file:
        head = file.read(46)
    core = struct.unpack_from("<I", head, 14)[0] == 12
    bits = struct.unpack_from("<H", head, 24 if core else 28)[0]
    per_metre = (0, 0) if core else struct.unpack_from("<ii", head, 38)
    with _open(path) as image:
        mode, pixels = image.mode, np.array(image).reshape(image.height, image.width, -1)
        palette = None
        if mode == "P":
            colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
            palette = Palette(colours[: 2**bits])
    alpha = None
    if mode == "RGBA":
        pixels, alpha = pixels[..., :3], pixels[..., 3]
    depth = bits if mode == "P" else 1 if mode == "1" else 8
    return Raster(".bmp", pixels, depth, alpha, palette, metadata={"per_metre": per_metre})


def write(file: BinaryIO, raster: Raster) -> None:
    """Write a BMP with a palette of 1, 4 or 8 bits, with 24 bits, or with 32 bits including alpha."""
    height, width = raster.size
    colours, masks = b"", b""
    if raster.palette is not None or (raster.channels == 1 and raster.alpha is None):
        bits = 1 if raster.bits == 1 else 4 if raster.bits <= 4 else 8
        rows = pack_rows(raster.samples[..., 0], bits)
        table = raster.palette.colours if raster.palette is not None else _grey_palette(bits)  # (n, 3)
        colours = np.pad(table[:, ::-1], ((0, 0), (0, 1))).tobytes()
    else:
        planes = raster.samples[..., ::-1]  # BGR order
        if raster.channels == 1:
            planes = np.repeat(planes, 3, axis=2)
        if raster.alpha is not None:
            planes = np.dstack([planes, raster.alpha])
            # Alpha requires bit masks. Colour space, end points and gamma are sRGB.
            masks = struct.pack("<IIII4s48x", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
        bits = 8 * planes.shape[2]
        rows = planes.reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))[::-1]  # bottom row first
    offset = 14 + 40 + len(masks) + len(colours)
    file.write(b"BM" + struct.pack("<IHHI", offset + rows.size, 0, 0, offset))
    file.write(
        struct.pack(
            "<IiiHHIIiiII",
            40 + len(masks),
            width,
            height,
            1,
            bits,
            _BITFIELDS if masks else 0,
            rows.size,
            *raster.metadata["per_metre"],
            len(colours) // 4,
            0,
        )
    )
    file.write(masks + colours)
    file.write(rows.tobytes())


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    with Image.open(path, formats=("BMP",)) as image:
        check_size(1, image.height, image.width)
        if image.mode not in _MODES:
            raise Unsuitable(f"a BMP image must have one of the modes {', '.join(_MODES)}, got {image.mode}")
        yield image


def _grey_palette(bits: int) -> np.ndarray:
    levels = np.linspace(0, 255, 2**bits).round().astype(np.uint8)
    return np.repeat(levels[:, None], 3, axis=1)
