"""Adaptive median filter."""

import numpy as np

from dop_lightning.engine.rivals.base import Flags, Image, ImageFilter, optional
from dop_lightning.foundation.checks import at_least


class AdaptiveMedian(ImageFilter):
    """Median of the smallest window whose median is not an extreme value of the window.

    The windows have 3×3, 5×5, … pixels. If ``min < med < max``, an entry with ``min < y < max`` is kept, and any other
    is replaced by ``med``; otherwise the window grows. In the largest window, entries are replaced by ``med`` even if
    it is an extreme value (Hwang, Haddad, *Adaptive median filters*, IEEE Trans. Image Processing 4, 1995). Unobserved
    entries count as 0.

    Args:
        largest: side of the largest window in pixels, odd, at least 3.

    Raises:
        ValueError: ``largest`` is out of range.
        ImportError: SciPy is not installed.
    """

    def __init__(self, largest: int = 19) -> None:
        self.largest = at_least("largest", largest, 3)
        if largest % 2 == 0:
            raise ValueError(f"largest must be odd, got {largest}")
        optional("scipy.ndimage", "scipy", type(self).__name__)

    def restore(self, image: Image, missing: Flags) -> Image:
        """Filter the image channel by channel."""
        ndimage = optional("scipy.ndimage", "scipy", type(self).__name__)
        restored = np.where(missing, 0.0, image)
        for channel in restored:
            source, waiting = channel.copy(), np.ones(channel.shape, dtype=bool)
            for size in range(3, self.largest + 1, 2):
                least, most = ndimage.minimum_filter(source, size), ndimage.maximum_filter(source, size)
                median = ndimage.median_filter(source, size)
                decided = waiting & (((least < median) & (median < most)) | (size == self.largest))
                keeps = (least < source) & (source < most)
                if size == self.largest:
                    keeps &= (least < median) & (median < most)
                channel[decided & ~keeps] = median[decided & ~keeps]
                waiting &= ~decided
                if not waiting.any():
                    break
        return restored
