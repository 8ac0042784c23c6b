"""Statistics of square windows around each pixel; images are mirrored at the border, including the edge pixels.

Shapes: an image ``(C, H, W)``.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dop_lightning.engine.rivals.base import Flags, Image

STRIP = 2**22
"""Number of values that are sorted at once."""


def padded(image: Image, radius: int) -> Image:
    """Return the mirrored image, ``(C, H + 2·radius, W + 2·radius)``."""
    return np.pad(image, [(0, 0), (radius, radius), (radius, radius)], mode="symmetric")


def masked_median(image: Image, known: Flags, size: int) -> Image:
    """Return the median of the known entries of each window; for an even number, the mean of the two middle values.

    Args:
        image: ``(C, H, W)``.
        known: ``(C, H, W)``, true for known entries.
        size: side of the window, odd.

    Returns:
        ``(C, H, W)``. Windows without known entries get the median of their channel, or 0.5 if it has none either.
    """
    channels, height, width = image.shape
    windows = sliding_window_view(padded(np.where(known, image, np.inf), size // 2), (size, size), (1, 2))
    fallback = [np.median(c[k]) if k.any() else 0.5 for c, k in zip(image, known, strict=True)]
    result = np.empty_like(image)
    rows = max(1, STRIP // (width * size * size))
    for c in range(channels):
        for top in range(0, height, rows):
            values = np.sort(windows[c, top : top + rows].reshape(-1, size * size), axis=1)
            count = np.isfinite(values).sum(axis=1)
            at = np.arange(len(values))
            middle = (values[at, np.maximum(count - 1, 0) // 2] + values[at, np.minimum(count // 2, size**2 - 1)]) / 2
            result[c, top : top + rows] = np.where(count > 0, middle, fallback[c]).reshape(-1, width)
    return result
