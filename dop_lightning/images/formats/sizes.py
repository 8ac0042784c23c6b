"""Parse and format sizes of images: height × width."""

from collections.abc import Sequence

from dop_lightning.foundation.checks import at_least
from dop_lightning.images.formats.raster import Unsuitable


def new_size(resize: int | Sequence[int], height: int, width: int) -> tuple[int, int]:
    """Return (H, W) of a resized image: ``resize`` itself, or with this longer side and the same aspect ratio.

    Raises:
        ValueError: a side is not an integer of at least 1.

    >>> new_size(6, 10, 20), new_size((5, 6), 10, 20)
    ((3, 6), (5, 6))
    """
    if not isinstance(resize, int):
        return pair("resize", resize)
    longer = at_least("resize", resize, 1)
    scale = longer / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def centre(wanted: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the slices of the rows and columns of a centre crop.

    Raises:
        Unsuitable: the crop is larger than the image.
    """
    if wanted[0] > size[0] or wanted[1] > size[1]:
        raise Unsuitable(f"crop must be at most the image, {by(size)} (height × width), got {by(wanted)}")
    top, left = ((side - inner) // 2 for side, inner in zip(size, wanted, strict=True))
    return slice(top, top + wanted[0]), slice(left, left + wanted[1])


def pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width), given one or two integers.

    Raises:
        ValueError: the value is of another type, or less than 1.
    """
    sides = [value, value] if isinstance(value, int) else list(value) if isinstance(value, Sequence) else [value]
    if len(sides) != 2 or isinstance(value, str):
        raise ValueError(f"{name} must be a whole number or (height, width), got {value!r}")
    return at_least(name, sides[0], 1), at_least(name, sides[1], 1)


def by(size: Sequence[int]) -> str:
    """Format a size as height×width, for messages."""
    return f"{size[0]}×{size[1]}"
