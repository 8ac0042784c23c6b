"""Pictures embedded in a page as data URIs, reduced to screen size."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 1024
"""Maximum length of the longer side of a picture, in pixels."""

SMALL_SIDE = 640
"""The same for pages with more than :data:`MAX_FULL_SIZE_PROBLEMS` problems."""

MAX_FULL_SIZE_PROBLEMS = 4

EXACT_PIXELS = 100_000
"""Pictures with at most this number of pixels are embedded losslessly."""

MIN_SMOOTHED_SIDE = 320
"""Pictures whose longer side has fewer pixels are enlarged without smoothing, like those of matrices."""


@dataclass(frozen=True)
class Embedded:
    """A picture embedded in a page.

    Attributes:
        uri: data URI with the file content.
        width: width in pixels, as embedded.
        height: height in pixels, as embedded.
        scale: size of the original relative to the embedded picture, at least 1.
        sharp: whether to enlarge it without smoothing.
    """

    uri: str
    width: int
    height: int
    scale: float
    sharp: bool


def embed(path: Path, is_matrix: bool, side: int = SIDE) -> Embedded:
    """Read a picture and reduce its size.

    Args:
        path: PNG file of any mode and depth. Transparency is dropped, because missing values have been recovered.
        is_matrix: whether the picture shows a matrix. Of a matrix, every k-th row and column is kept, since averages
            would hide sparse entries, and large ones are reduced to 256 colours. Images are averaged over areas.
        side: maximum length of the longer side in pixels; half as much for matrices, which compress poorly.

    Raises:
        ValueError: the file is not a picture.
    """
    try:
        with Image.open(path) as opened:
            image = _to_8_bits(opened)
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
    sharp = is_matrix or longer < MIN_SMOOTHED_SIDE
    scale = longer / max(image.size)
    return Embedded(f"data:image/{kind};base64,{data}", *image.size, scale, sharp)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert a picture to 8-bit grey or RGB. 16-bit grey is scaled, because Pillow would clip it."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
