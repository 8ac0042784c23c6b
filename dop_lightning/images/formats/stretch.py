r"""Ranges of frames limited by noise: wide enough for the noise, and stretched if the noise is small in the range.

A frame of the sky contains stars that are thousands of times brighter than the noise of the sky. Relative to such a
range, the noise is negligible, and a fit to the stars has errors in the sky that are many times the noise. The standard
deviation of photon noise grows with the square root of the signal, so a square root stabilizes it (Anscombe,
*Biometrika* 35, 1948). With the level c of the sky and a width w,

    ``f(v) = sign(u)·2w(√(1 + |u|) − 1)``, ``u = (v − c)/w``,

whose slope is 1 at c. Its inverse is ``c + sign(f)·w((1 + |f|/2w)² − 1)``.
"""

import math
from typing import Self, cast

import numpy as np
import torch

from dop_lightning.engine.steps.clean_entries import background_noise

NOISE_INSIDE = 5.0
"""Standard deviations of the noise by which the range exceeds the median."""

MAX_RANGE_RATIO = 100.0
"""Width of the range, in standard deviations of the noise, above which it is stretched."""

SKY, DARK = 0.75, 0.1
"""A range is stretched only if the fraction SKY of the values is in its lowest fraction DARK, unlike in photographs."""

WIDTH = 16.0
"""Width w in standard deviations of the noise: that of a sky of 256 photons per pixel."""


class Stretch(tuple[float, float]):
    """A range (lo, hi) with the nonlinear scale f of this module.

    Attributes:
        centre: level c of the sky.
        width: width w, positive.
    """

    centre: float
    width: float

    def __new__(cls, low: float, high: float, centre: float, width: float) -> Self:
        """Create a tuple of two numbers, like other ranges."""
        made = super().__new__(cls, (low, high))
        made.centre, made.width = centre, width
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[float, float, float, float]]:
        return type(self), (*self, self.centre, self.width)


def forward(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Scale values to fractions of a range, float64: 0 at lo, 1 at hi; (v − lo)/(hi − lo) for a linear range.

    >>> forward(np.array([0.0, 300.0]), (0.0, 400.0)).tolist()
    [0.0, 0.75]
    """
    low, high = value_range
    if not isinstance(value_range, Stretch):
        return cast(np.ndarray, (values.astype(np.float64) - low) / (high - low))
    bottom, top = _stretch(np.array([low, high]), value_range)
    return cast(np.ndarray, (_stretch(values.astype(np.float64), value_range) - bottom) / (top - bottom))


def inverse(shares: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Invert :func:`forward`.

    >>> sky = Stretch(100.0, 60000.0, centre=200.0, width=272.0)
    >>> inverse(forward(np.array([120.0, 200.0, 5000.0]), sky), sky).round(6).tolist()
    [120.0, 200.0, 5000.0]
    """
    low, high = value_range
    if not isinstance(value_range, Stretch):
        return cast(np.ndarray, shares * (high - low) + low)
    bottom, top = _stretch(np.array([low, high]), value_range)
    stretched = shares * (top - bottom) + bottom
    width = value_range.width
    root = 1 + np.abs(stretched) / (2 * width)
    return cast(np.ndarray, value_range.centre + np.sign(stretched) * width * (root**2 - 1))


def range_with_noise(
    colours: np.ndarray, observed: np.ndarray | None, value_range: tuple[float, float], step: float
) -> tuple[float, float]:
    """Extend the range of a frame by its noise.

    Args:
        colours: ``(H, W, C)``.
        observed: bool ``(H, W, C)``; ``None`` if all values are observed.
        value_range: range of the image without noise.
        step: spacing of the number format.

    Returns:
        The range itself if the image is not limited by noise. Otherwise, a range that extends at least
        :data:`NOISE_INSIDE` standard deviations from the median, but not beyond the observed values. It is stretched if
        it is wider than :data:`MAX_RANGE_RATIO` standard deviations and most of the frame is dark.
    """
    low, high = value_range
    largest = float(np.finfo(np.float32).max)
    shares = np.clip(forward(colours, value_range), -largest, largest)
    y = torch.from_numpy(np.ascontiguousarray(shares.transpose(2, 0, 1), dtype=np.float32))
    known = torch.ones_like(y, dtype=torch.bool)
    if observed is not None:
        known = torch.from_numpy(np.ascontiguousarray(observed.transpose(2, 0, 1)))
        y = torch.where(known, y, 0)
    noise = background_noise(y, known, step / (high - low))
    if noise is None:
        return value_range
    seen = y[known]
    middle = float(seen.median())
    reach = NOISE_INSIDE * noise
    wide = min(0.0, max(float(seen.min()), middle - reach)), max(1.0, min(float(seen.max()), middle + reach))
    bottom, top = (low + share * (high - low) for share in wide)
    deviation, centre = noise * (high - low), low + middle * (high - low)
    most = float(seen.kthvalue(max(1, round(SKY * seen.numel()))).values)
    dark = most < wide[0] + DARK * (wide[1] - wide[0])
    if not dark or top - bottom <= MAX_RANGE_RATIO * deviation or not math.isfinite(top - bottom):
        return bottom, top
    return Stretch(bottom, top, centre, WIDTH * deviation)


def _stretch(values: np.ndarray, value_range: Stretch) -> np.ndarray:
    u = (values - value_range.centre) / value_range.width
    return cast(np.ndarray, np.sign(u) * 2 * value_range.width * (np.sqrt(1 + np.abs(u)) - 1))
