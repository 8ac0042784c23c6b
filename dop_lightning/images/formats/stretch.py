r"""Ranges of frames that noise limits: wide enough for the noise, and stretched where it would be too fine to be seen.

A frame of the sky has stars that are thousands of times brighter than the noise of the sky. In shares of such a range
the sky has no noise, and whatever fits the stars is wrong there by many times of it. The noise of light grows with its
root, and so a root is what makes it even (Anscombe, *Biometrika* 35, 1948): with the level c of the sky and a width w,

    ``f(v) = sign(u)·2w(√(1 + |u|) − 1)``, ``u = (v − c)/w``,

whose slope is 1 at c. Its inverse is ``c + sign(f)·w((1 + |f|/2w)² − 1)``.
"""

import math
from typing import Self, cast

import numpy as np
import torch

from dop_lightning.engine.steps.clean_entries import background_noise

NOISE_INSIDE = 5.0
"""The range goes beyond the image by at least this many standard deviations of the noise."""

TOO_FINE = 100.0
"""A range of more standard deviations of the noise is stretched."""

SKY, DARK = 0.75, 0.1
"""Nor is one stretched unless this share of the values lies in the lowest tenth: a picture is not made of sky."""

WIDTH = 16.0
"""w in standard deviations: that of a sky of 256 photons per pixel."""


class Stretch(tuple[float, float]):
    """A range (lo, hi) whose values in between are not in proportion: f above.

    Attributes:
        centre: c.
        width: w, above 0.
    """

    centre: float
    width: float

    def __new__(cls, low: float, high: float, centre: float, width: float) -> Self:
        """A tuple of two, as any range."""
        made = super().__new__(cls, (low, high))
        made.centre, made.width = centre, width
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[float, float, float, float]]:
        return type(self), (*self, self.centre, self.width)


def forward(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Shares of a range, 0 and 1 at its ends, float64: of a linear one (v − lo)/(hi − lo).

    >>> forward(np.array([0.0, 300.0]), (0.0, 400.0)).tolist()
    [0.0, 0.75]
    """
    low, high = value_range
    if not isinstance(value_range, Stretch):
        return cast(np.ndarray, (values.astype(np.float64) - low) / (high - low))
    bottom, top = _stretched(np.array([low, high]), value_range)
    return cast(np.ndarray, (_stretched(values.astype(np.float64), value_range) - bottom) / (top - bottom))


def inverse(shares: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """The values that :func:`forward` takes there.

    >>> sky = Stretch(100.0, 60000.0, centre=200.0, width=272.0)
    >>> inverse(forward(np.array([120.0, 200.0, 5000.0]), sky), sky).round(6).tolist()
    [120.0, 200.0, 5000.0]
    """
    low, high = value_range
    if not isinstance(value_range, Stretch):
        return cast(np.ndarray, shares * (high - low) + low)
    bottom, top = _stretched(np.array([low, high]), value_range)
    stretched = shares * (top - bottom) + bottom
    width = value_range.width
    root = 1 + np.abs(stretched) / (2 * width)
    return cast(np.ndarray, value_range.centre + np.sign(stretched) * width * (root**2 - 1))


def range_with_noise(
    colours: np.ndarray, observed: np.ndarray | None, value_range: tuple[float, float], step: float
) -> tuple[float, float]:
    """The range of a frame, by its noise.

    Args:
        colours: ``(H, W, C)``.
        observed: bool, ``(H, W, C)``; ``None`` where all are.
        value_range: that of the image without its noise.
        step: the distance of two values of the number format.

    Returns:
        The range itself, of an image that noise does not limit. Else one that goes :data:`NOISE_INSIDE` standard
        deviations further, within the values that were observed; stretched, where it is more than :data:`TOO_FINE` and
        most of the frame is dark.
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
    if not dark or top - bottom <= TOO_FINE * deviation or not math.isfinite(top - bottom):
        return bottom, top
    return Stretch(bottom, top, centre, WIDTH * deviation)


def _stretched(values: np.ndarray, value_range: Stretch) -> np.ndarray:
    u = (values - value_range.centre) / value_range.width
    return cast(np.ndarray, np.sign(u) * 2 * value_range.width * (np.sqrt(1 + np.abs(u)) - 1))
