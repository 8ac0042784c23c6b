"""Decide whether a frame is limited by noise, and estimate the noise.

Shapes: C×H×W, an image.
"""

from torch import Tensor

from dop_lightning.engine.steps.clean_entries.level_noise import SIDE, level_noise
from dop_lightning.engine.steps.clean_entries.medians import opposite_median, window_median
from dop_lightning.engine.steps.clean_entries.sharp import sharp_outliers

BEYOND = 4.0
"""Noise rarely exceeds this many standard deviations: 6 of 100 000 normal entries do."""

MOST_BEYOND = 0.015
"""Largest share of entries beyond it in a frame limited by noise: sources are few, or soft."""

LEAST_ENTRIES = 500
"""Fewest entries for a decision."""

MOST_OUTLIERS = 0.1
"""Largest share of outliers in such a frame."""


def background_noise(y: Tensor, known: Tensor, step: float = 0.0) -> float | None:
    """Return the standard deviation of the noise in the darker part of a frame, if the frame is limited by noise.

    A frame of the sky is noise, except for a few soft sources and some outliers. Without sharp outliers, at most 1.5 %
    of its entries differ from the median of their opposite neighbours by more than four standard deviations. A
    photograph has edges and textures.

    Args:
        y: ``(C, H, W)``.
        known: bool, which entries were observed.
        step: spacing of the number format: smaller noise cannot be detected.

    Returns:
        In units of y, above 0; ``None`` if the frame is not limited by noise.

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
    """Return the tenth percentile of the noise, the least over the channels: few entries give no reliable noise."""
    seen = [each[at].flatten() for each, at in zip(noise, known, strict=True) if bool(at.any())]
    return min(float(each.kthvalue(max(1, each.numel() // 10)).values) for each in seen)


def _beyond(y: Tensor, known: Tensor, noise: Tensor) -> float:
    """Return the share of the entries that differ by more than noise."""
    return float(((y - opposite_median(y, known)).abs() > BEYOND * noise)[known].to(y.dtype).mean())
