"""Non-local adaptive mean filter."""

import math

import numpy as np

from dop_lightning.engine.rivals.base import Flags, Image, ImageFilter, optional
from dop_lightning.foundation.checks import at_least, fraction

LARGEST = 3
"""Radius of the largest window of the adaptive mean."""


class NAMF(ImageFilter):
    """Zhang, Zhu, Zheng, *NAMF: A non-local adaptive mean filter for salt-and-pepper noise removal* (arXiv 1910.07787).

    Entries at the ends of the range are suspect. Each channel is filtered separately:

    1. Each suspect entry is replaced by the mean of the unsuspected entries in the smallest window (3×3, 5×5, 7×7) that
       contains any. If there are none, the entry is considered clean if more than a fraction ``uniform`` of the 7×7
       window has exactly its value. Otherwise, it is replaced by the median of the values above, to the left, and above
       left of it.
    2. Each suspect entry is replaced by the mean of its neighbours within ``search`` pixels, excluding itself, with
       weights ``exp(−d²/h²)``, where d² is the mean squared difference of patches of radius ``patch``, and
       ``h = (4.5595 + 6.0314 p + 2.2186 p²)/255`` for a fraction p of suspect entries.

    Unobserved entries are suspect as well.

    Args:
        search: radius of the neighbourhood in pixels, at least 1.
        patch: radius of the patches in pixels, at least 0.
        uniform: fraction of equal values for an entry to be clean, at least 0 and below 1.

    Raises:
        ValueError: an argument is out of range.
        ImportError: SciPy is not installed.
    """

    def __init__(self, search: int = 2, patch: int = 20, uniform: float = 0.8) -> None:
        self.search = at_least("search", search, 1)
        self.patch = at_least("patch", patch, 0)
        self.uniform = fraction("uniform", uniform)
        optional("scipy.ndimage", "scipy", type(self).__name__)

    def restore(self, image: Image, missing: Flags) -> Image:
        """Filter the image channel by channel."""
        restored = np.empty_like(image)
        for c, (channel, holes) in enumerate(zip(image, missing, strict=True)):
            suspect = holes | (channel <= 0) | (channel >= 1)
            mean, suspect = self._adaptive_mean(np.where(holes, 0.0, channel), holes, suspect)
            refined = self._non_local(mean, float(suspect.mean())) if suspect.any() else mean
            restored[c] = np.where(suspect, refined, mean)
        return restored

    def _adaptive_mean(self, channel: Image, missing: Flags, suspect: Flags) -> tuple[Image, Flags]:
        """Return the result of the first stage, and the entries that remain suspect."""
        mean, suspect, clean = channel.copy(), suspect.copy(), ~suspect
        waiting = suspect.copy()
        for radius in range(1, LARGEST + 1):
            sums, counts = (
                _window_sum(np.where(clean, channel, 0.0), radius),
                _window_sum(clean.astype(np.float64), radius).round(),
            )
            found = waiting & (counts > 0)
            mean[found] = sums[found] / counts[found]
            waiting &= ~found
        for i, j in np.argwhere(waiting).tolist():  # in this order: each entry depends on earlier results
            rows, columns = slice(max(i - LARGEST, 0), i + LARGEST + 1), slice(max(j - LARGEST, 0), j + LARGEST + 1)
            alike = (channel[rows, columns] == channel[i, j]) & ~missing[rows, columns]
            if not missing[i, j] and alike.mean() > self.uniform:
                suspect[i, j] = False
                continue
            up, left = max(i - 1, 0), max(j - 1, 0)
            mean[i, j] = np.median([mean[up, left], mean[up, j], mean[i, left]])
        return mean, suspect

    def _non_local(self, channel: Image, density: float) -> Image:
        """Return the result of the second stage for every entry."""
        box = optional("scipy.ndimage", "scipy", type(self).__name__).uniform_filter
        h = (4.5595 + 6.0314 * density + 2.2186 * density**2) / 255
        height, width = channel.shape
        around = np.pad(channel, self.search, mode="symmetric")
        total, weights = np.zeros_like(channel), np.zeros_like(channel)
        nearest = np.full_like(channel, math.inf)
        shifts = range(2 * self.search + 1)
        centre = (self.search, self.search)
        pairs = [around[i : i + height, j : j + width] for i in shifts for j in shifts if (i, j) != centre]
        distances = [box((shifted - channel) ** 2, 2 * self.patch + 1, mode="reflect").clip(0) for shifted in pairs]
        for distance in distances:
            np.minimum(nearest, distance, out=nearest)
        for shifted, distance in zip(pairs, distances, strict=True):
            weight = np.exp((nearest - distance) / h**2)  # the common factor prevents underflow of all weights
            total += weight * shifted
            weights += weight
        return total / weights


def _window_sum(values: Image, radius: int) -> Image:
    """Return window sums, with windows truncated at the border of the image."""
    size = 2 * radius + 1
    ndimage = optional("scipy.ndimage", "scipy", NAMF.__name__)
    summed: Image = ndimage.uniform_filter(values, size, mode="constant") * size**2
    return summed
