"""Pictures inside a page: data URIs of a size for screens."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 1024
"""The longer side of a picture is at most this, in pixels."""

SIDE_OF_MANY = 640
"""The same where a page shows more than a few problems."""

A_FEW = 4

EXACT_PIXELS = 100_000
"""Pictures with at most so many pixels are embedded without loss."""

SHARP_BELOW = 320
"""Pictures whose longer side is below this show their pixels when they are enlarged, as those of matrices do."""


@dataclass(frozen=True)
class Embedded:
    """A picture as it stands in a page.

    Attributes:
        uri: with all its bytes.
        width: in pixels, as embedded.
        height: likewise.
        scale: pixels of the file to one of these, 1 where none are left out.
        sharp: whether pixels are to be seen as squares.
    """

    uri: str
    width: int
    height: int
    scale: float
    sharp: bool


def embed(path: Path, is_matrix: bool, side: int = SIDE) -> Embedded:
    """Read a picture and make it small enough.

    Args:
        path: PNG, of any mode and depth. Transparency is left out: what was missing there has been recovered.
        is_matrix: every k-th row and column is kept of a matrix, where averages would hide sparse entries, in 256
            colours where it is large; of an image areas are averaged.
        side: pixels of the longer side, at most; half of them of a matrix, which hardly compresses.

    Raises:
        ValueError: the file is no picture.
    """
    try:
        with Image.open(path) as opened:
            image = _of_8_bits(opened)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as a picture ({error})") from error
    longer = max(image.size)
    if is_matrix:
        side //= 2
    if longer > side and is_matrix:
        every = math.ceil(longer / side)
        image = Image.fromarray(np.ascontiguousarray(np.asarray(image)[::every, ::every]))
    elif longer > side:
        width, height = (max(1, round(length * side / longer)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    large = image.width * image.height > EXACT_PIXELS
    kind = "webp" if large and not is_matrix else "png"
    if large and is_matrix:
        image = image.quantize(256)
    content = io.BytesIO()
    image.save(content, kind, **({"quality": 88} if kind == "webp" else {"optimize": True}))
    data = base64.b64encode(content.getvalue()).decode("ascii")
    sharp = is_matrix or longer < SHARP_BELOW
    scale = longer / max(image.size)
    return Embedded(f"data:image/{kind};base64,{data}", *image.size, scale, sharp)


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Grey or RGB; grey of 16 bits is scaled, which Pillow would clip."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
