"""Detect noise-limited frames and estimate their noise level.

Shapes: C×H×W, an image.
"""

from torch import Tensor

from dop_lightning.engine.steps.clean_entries.level_noise import SIDE, level_noise
from dop_lightning.engine.steps.clean_entries.medians import opposite_median, window_median
from dop_lightning.engine.steps.clean_entries.sharp import sharp_outliers

NOISE_THRESHOLD = 4.0
"""Threshold in standard deviations of the noise. Normal noise exceeds it with probability 6·10⁻⁵."""

MAX_EXCEEDING_FRACTION = 0.015
"""Maximum fraction of entries beyond :data:`NOISE_THRESHOLD` in a noise-limited frame: sources are few or smooth."""

MIN_ENTRIES = 500
"""Minimum number of observed entries; with fewer, a frame is not considered noise-limited."""

MAX_OUTLIERS = 0.1
"""Maximum fraction of outliers in a noise-limited frame."""


def background_noise(y: Tensor, known: Tensor, step: float = 0.0) -> float | None:
    """Return the standard deviation of the noise in the darker part of a noise-limited frame.

    Apart from a few smooth sources and some outliers, a frame of the sky contains only noise. After removal of the
    sharp outliers, at most 1.5 % of its entries differ from the median of their opposite neighbours by more than four
    standard deviations. Photographs have edges and textures and exceed this fraction.

    Args:
        y: the frame, ``(C, H, W)``.
        known: bool, the observed entries, ``(C, H, W)``.
        step: quantization step of the values, in units of y. Noise below this level cannot be detected.

    Returns:
        Standard deviation in units of y, positive; ``None`` if the frame is not noise-limited.

    >>> import torch
    >>> sky = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> abs(background_noise(3 * sky, torch.ones_like(sky, dtype=torch.bool)) - 3) < 0.3
    True
    >>> edges = (torch.arange(64) % 16 < 8).float() + 0.001 * sky
    >>> background_noise(edges, torch.ones_like(sky, dtype=torch.bool)) is None
    True
    """
    if int(known.sum()) < MIN_ENTRIES:
        return None
    middle = window_median(y, known, SIDE)
    noise = level_noise(y, middle, known)
    least = max(_dark_noise(noise, known), step)
    if least <= 0 or _fraction_beyond(y, known, noise.clamp_min(least)) > MAX_EXCEEDING_FRACTION + MAX_OUTLIERS:
        return None
    left = known & ~sharp_outliers(y, known, least)
    noise = level_noise(y, window_median(y, left, SIDE), left)
    least = max(_dark_noise(noise, left), step)
    return least if _fraction_beyond(y, left, noise.clamp_min(least)) <= MAX_EXCEEDING_FRACTION else None


def _dark_noise(noise: Tensor, known: Tensor) -> float:
    """Return the tenth percentile of the noise, the minimum over the channels.

    The minimum itself would be unreliable, because it depends on few entries.
    """
    seen = [each[at].flatten() for each, at in zip(noise, known, strict=True) if bool(at.any())]
    return min(float(each.kthvalue(max(1, each.numel() // 10)).values) for each in seen)


def _fraction_beyond(y: Tensor, known: Tensor, noise: Tensor) -> float:
    """Return the fraction of entries beyond :data:`NOISE_THRESHOLD` from the median of their opposite neighbours."""
    return float(((y - opposite_median(y, known)).abs() > NOISE_THRESHOLD * noise)[known].to(y.dtype).mean())
