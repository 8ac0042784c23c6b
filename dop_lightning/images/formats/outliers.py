"""What becomes of values beyond the range of an image, and whether a range that was given is one of it at all."""

from torch import Tensor

from dop_lightning.images.formats.image_format import LoadedImage
from dop_lightning.images.formats.raster import Unsuitable

BEYOND = 0.5
"""How far values may lie beyond the range, in widths of it."""

LEAST_INSIDE = 0.1
"""The share of the observed values that a given range must hold; the others may be outliers."""


def within_reach(image: LoadedImage) -> Tensor:
    """The values of an image, as a problem observes them.

    Values beyond the range are outliers; by how much changes nothing of the image, but steps as large as that would not
    be stable. They are brought to half a range beyond it.
    """
    low, high = image.values.aminmax()
    if low >= -BEYOND and high <= 1 + BEYOND:
        return image.values  # the same memory: an image may be large
    return image.values.clamp(-BEYOND, 1 + BEYOND)


def check_range_given(image: LoadedImage) -> None:
    """Refuse a range that has little to do with the values, of another image or in other units.

    Raises:
        Unsuitable: it holds too few of them.
    """
    inside = (image.values >= 0) & (image.values <= 1)
    share = float((inside if image.mask is None else inside[image.mask]).float().mean())
    if share < LEAST_INSIDE:
        raise Unsuitable(
            f"value_range must hold at least {LEAST_INSIDE:.0%} of the values, in the units of the image, got "
            f"{image.format.value_range}, which holds {share:.1%}"
        )
