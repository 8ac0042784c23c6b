"""JPEG and WebP photographs with 8 bits, read with Pillow.

Images with lossy compression (JPEG always, WebP usually) are written as PNG, which adds no errors.

Shapes: H × W pixels, C channels.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from dop_lightning.images.formats import png
from dop_lightning.images.formats.raster import Raster, Unsuitable, check_size, upright_shape

_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 3}


def shape(path: Path) -> tuple[int, int, int]:
    """Return (C, H, W) of an upright JPEG or WebP file."""
    with _open(path) as image:
        return upright_shape(_CHANNELS[image.mode], image.height, image.width, png.orientation_of(image))


def read(path: Path) -> Raster:
    """Read a JPEG or WebP file."""
    with _open(path) as image:
        orientation = png.orientation_of(image)
        metadata: dict[str, Any]
        if image.format == "WEBP" and _scan_webp(path):
            kept = {key: image.info[key] for key in ("icc_profile", "exif", "xmp") if image.info.get(key)}
            suffix, metadata = ".webp", {"webp": kept}
        else:
            suffix, metadata = ".png", {"chunks": png.metadata_chunks(image)}
        pixels = np.array(image).reshape(image.height, image.width, -1)
    alpha = None
    if pixels.shape[2] == 4:
        pixels, alpha = pixels[..., :3], pixels[..., 3]
    return Raster(suffix, pixels, alpha=alpha, orientation=orientation, metadata=metadata)


def write(file: BinaryIO, raster: Raster) -> None:
    """Write a lossless WebP; grey images are written as RGB, because WebP has no grey mode."""
    planes = np.repeat(raster.samples, 3, axis=2) if raster.channels == 1 else raster.samples
    if raster.alpha is not None:
        planes = np.dstack([planes, raster.alpha])
    kept = dict(raster.metadata["webp"])
    if raster.metadata.get("converted"):
        kept.pop("icc_profile", None)  # it describes other channels
    # `exact` keeps the colours of invisible pixels.
    image = Image.fromarray(np.ascontiguousarray(planes))
    image.save(file, format="WEBP", lossless=True, exact=True, **kept)


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    with path.open("rb") as file:
        webp = file.read(4) == b"RIFF"
    if webp:
        _scan_webp(path)
    with Image.open(path, formats=("JPEG", "WEBP")) as image:
        check_size(1, image.height, image.width)
        frames = getattr(image, "n_frames", 1)
        # In a JPEG with several pictures, as phones write them, the first is the photograph.
        if image.format == "WEBP" and frames > 1:
            raise Unsuitable(f"an image must not be an animation, got {frames} frames; save one of them")
        if image.mode == "CMYK":
            raise Unsuitable(
                "an image must be grey or RGB, got CMYK (print colours); convert it to RGB first, with its colour "
                "profile: `magick in.jpg -profile sRGB.icc out.png`, or Pillow's ImageCms.profileToProfile"
            )
        if image.mode not in _CHANNELS:
            raise Unsuitable(
                f"a JPEG or WebP image must be grey or RGB, got mode {image.mode}; convert it to RGB first"
            )
        yield image


def _scan_webp(path: Path) -> bool:
    """Return whether a WebP is lossless (its pixels are in a VP8L chunk), and check its size.

    Pillow allocates memory for the pixels when it opens a WebP, so the size is checked before.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 12
        while position + 8 <= size:
            file.seek(position)
            kind, length = struct.unpack("<4sI", file.read(8))
            start = file.read(10)
            if kind in (b"VP8X", b"VP8L", b"VP8 "):
                width, height = _webp_size(kind, start)
                check_size(1, height, width)
            if kind in (b"VP8L", b"VP8 "):
                return kind == b"VP8L"
            position += 8 + length + length % 2
    return False  # an animation


def _webp_size(kind: bytes, start: bytes) -> tuple[int, int]:
    """Return (width, height) from the first ten bytes of a chunk."""
    if kind == b"VP8X":
        return 1 + int.from_bytes(start[4:7], "little"), 1 + int.from_bytes(start[7:10], "little")
    if kind == b"VP8L":
        sides = int.from_bytes(start[1:5], "little")
        return 1 + sides % 2**14, 1 + (sides >> 14) % 2**14
    return int.from_bytes(start[6:8], "little") % 2**14, int.from_bytes(start[8:10], "little") % 2**14
