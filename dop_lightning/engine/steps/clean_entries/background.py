"""Whether noise is what limits a frame, and how much there is.

Shapes: C×H×W, an image.
"""

from torch import Tensor

from dop_lightning.engine.steps.clean_entries.level_noise import SIDE, level_noise
from dop_lightning.engine.steps.clean_entries.medians import opposite_median, window_median
from dop_lightning.engine.steps.clean_entries.sharp import sharp_outliers

BEYOND = 4.0
"""Noise seldom goes further than this many standard deviations: 6 of 100 000 normal entries do."""

MOST_BEYOND = 0.015
"""In a frame that noise limits, no more than this share of the entries is further off: sources are few, or soft."""

LEAST_ENTRIES = 500
"""Of fewer nothing can be said."""

MOST_OUTLIERS = 0.1
"""Nor are outliers more than this share."""


def background_noise(y: Tensor, known: Tensor, step: float = 0.0) -> float | None:
    """The standard deviation of the noise in the darker part of a frame, if noise is all that its entries differ by.

    A frame of the sky is noise but for a few soft sources and some outliers: hardly an entry is off the median of its
    opposite neighbours by more than four standard deviations (at most 1.5 %), once sharp outliers are left out. A
    photograph has edges and textures.

    Args:
        y: ``(C, H, W)``.
        known: bool, which entries were observed.
        step: the distance of two values of the number format: noise below it is not seen.

    Returns:
        In units of y, above 0; ``None`` where the frame is not limited by noise.

    >>> import torch
    >>> sky = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> abs(background_noise(3 * sky, torch.ones_like(sky, dtype=torch.bool)) - 3) < 0.3
    True
    >>> edges = (torch.arange(64) % 16 < 8).float() + 0.001 * sky
    >>> background_noise(edges, torch.ones_like(sky, dtype=torch.bool)) is None
    True
    """
    if int(known.sum()) < LEAST_ENTRIES:
        return None
    middle = window_median(y, known, SIDE)
    noise = level_noise(y, middle, known)
    least = max(_darkest(noise, known), step)
    if least <= 0 or _beyond(y, known, noise.clamp_min(least)) > MOST_BEYOND + MOST_OUTLIERS:
        return None
    left = known & ~sharp_outliers(y, known, least)
    noise = level_noise(y, window_median(y, left, SIDE), left)
    least = max(_darkest(noise, left), step)
    return least if _beyond(y, left, noise.clamp_min(least)) <= MOST_BEYOND else None


def _darkest(noise: Tensor, known: Tensor) -> float:
    """The least noise of a channel, but for a tenth of its entries: the noise of few is not known well."""
    seen = [each[at].flatten() for each, at in zip(noise, known, strict=True) if bool(at.any())]
    return min(float(each.kthvalue(max(1, each.numel() // 10)).values) for each in seen)


def _beyond(y: Tensor, known: Tensor, noise: Tensor) -> float:
    """The share of the entries that are further off than noise."""
    return float(((y - opposite_median(y, known)).abs() > BEYOND * noise)[known].to(y.dtype).mean())
