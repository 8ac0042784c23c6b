"""Detectors of corrupted entries that only use the observation."""

import numpy as np

from dop_lightning.engine.rivals.base import Detector, Flags, Image
from dop_lightning.engine.rivals.windows import masked_median
from dop_lightning.foundation.checks import at_least, fraction, positive

MAD_TO_STANDARD_DEVIATION = 1.4826
"""Ratio of standard deviation to median absolute deviation of a normal distribution."""


class ExtremeValues(Detector):
    """Detect entries at the ends of the range, such as 0 and 255 in 8 bits. Suitable for salt-and-pepper noise.

    Args:
        tolerance: distance from an end up to which entries are detected as well, in [0, 1).

    >>> ExtremeValues().corrupted(np.array([[[0.0, 0.5, 1.0]]]), np.zeros((1, 1, 3), dtype=bool)).tolist()
    [[[True, False, True]]]
    """

    def __init__(self, tolerance: float = 0.0) -> None:
        self.tolerance = fraction("tolerance", tolerance)

    def corrupted(self, image: Image, missing: Flags) -> Flags:
        """Return ``y ≤ tolerance`` or ``y ≥ 1 − tolerance``."""
        return (image <= self.tolerance) | (image >= 1 - self.tolerance)


class RobustThreshold(Detector):
    """Detect entries far from the median of their neighbours, for corruptions of any value.

    An entry is corrupted if ``|y − m| > threshold·max(1.4826·d, floor)``, with m the median of the window around it and
    d the median of ``|y − m|`` over the same window (Crnojević, Šenk, Trpovski, *Advanced impulse detection based on
    pixel-wise MAD*, IEEE Signal Processing Letters 11, 2004). Each pass computes both medians over the entries that the
    previous pass did not detect.

    Args:
        threshold: above 0.
        size: side of the window in pixels, odd, at least 3.
        floor: minimum scale in units of the range, above 0; needed because the scale of flat areas is 0.
        passes: number of passes, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, threshold: float = 2.0, size: int = 5, floor: float = 0.03, passes: int = 5) -> None:
        self.threshold = positive("threshold", threshold)
        self.size = at_least("size", size, 3)
        if size % 2 == 0:
            raise ValueError(f"size must be odd, got {size}")
        self.floor = positive("floor", floor)
        self.passes = at_least("passes", passes, 1)

    def corrupted(self, image: Image, missing: Flags) -> Flags:
        """Return the entries detected in the last pass."""
        found = missing
        for _ in range(self.passes):
            center = masked_median(image, ~found, self.size)
            far = np.abs(image - center)
            spread = masked_median(far, ~found, self.size)
            found = missing | (far > self.threshold * np.maximum(MAD_TO_STANDARD_DEVIATION * spread, self.floor))
        return found
