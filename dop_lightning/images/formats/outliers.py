"""Clamp values far outside of the range of an image, and check ranges specified by the user."""

from torch import Tensor

from dop_lightning.images.formats.image_format import LoadedImage
from dop_lightning.images.formats.raster import Unsuitable

MAX_EXCESS = 0.5
"""Maximum distance of values from the range, in multiples of its width."""

MIN_FRACTION_INSIDE = 0.1
"""Minimum fraction of the observed values within a specified range; the others may be outliers."""


def within_reach(image: LoadedImage) -> Tensor:
    """Return the values of an image as the observation of a problem.

    Values outside of the range are outliers. They are clamped to half a range beyond it: their magnitude does not
    affect the recovered image, but large values would make the iteration unstable.
    """
    low, high = image.values.aminmax()
    if low >= -MAX_EXCESS and high <= 1 + MAX_EXCESS:
        return image.values  # not copied, since images may be large
    return image.values.clamp(-MAX_EXCESS, 1 + MAX_EXCESS)


def check_range_given(image: LoadedImage) -> None:
    """Check that a specified range matches the values; it may be that of another image or in other units.

    Raises:
        Unsuitable: too few values are within the range.
    """
    inside = (image.values >= 0) & (image.values <= 1)
    share = float((inside if image.mask is None else inside[image.mask]).float().mean())
    if share < MIN_FRACTION_INSIDE:
        raise Unsuitable(
            f"value_range must contain at least {MIN_FRACTION_INSIDE:.0%} of the values, in the units of the image, "
            f"got {image.format.value_range}, which contains {share:.1%}"
        )
