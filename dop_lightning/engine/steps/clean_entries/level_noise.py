"""Estimate the signal-dependent noise of a detector from one frame.

Photon counts are Poisson distributed, so the variance of a value v is about ``a + b·v``, where a depends on the
read-out noise and b on the gain. Image files specify neither. The standard deviation at a level is estimated from the
entries whose surrounding median is close to that level. Most of them are sky or another smooth part of the frame.

Shapes: C×H×W, an image.
"""

from itertools import pairwise

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.dense import NORMAL
from dop_lightning.engine.steps.clean_entries.medians import opposite_median

SIDE = 5
"""Side of the window of the median, pixels."""

RANKS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.96, 0.99, 1.0)
"""Boundaries of the levels, as fractions of darker entries. They are denser at the bright end because stars are few."""

DIFFERENCE_DEVIATION = 1.072
"""Standard deviation of the difference between a normal entry and the median of four means of two entries, relative to
the standard deviation of the entry."""

FEWEST = 100
"""Levels with fewer entries are ignored."""


def level_noise(y: Tensor, middle: Tensor, known: Tensor, least: float = 0.0) -> Tensor:
    """Estimate the standard deviation of the noise at each entry of a frame ``(C, H, W)``.

    Args:
        y: the frame.
        middle: the level of each entry, which is the median around it.
        known: bool, true for observed entries that are not outliers.
        least: lower bound of the result.

    Returns:
        ``(C, H, W)``: 1.48 times the median distance from :func:`opposite_median` over the entries of a level,
        corrected for the noise of that median and interpolated linearly between levels. It is slightly too large if the
        picture is strongly curved, because the curvature between neighbouring entries counts as noise.
    """
    result = torch.full_like(y, least)
    distance = (y - opposite_median(y, known)).abs() / DIFFERENCE_DEVIATION
    for channel, (values, levels, seen) in enumerate(zip(distance, middle, known, strict=True)):
        if not bool(seen.any()):
            continue
        ordered, order = levels[seen].sort()
        off = values[seen][order]
        edges = [round(rank * ordered.numel()) for rank in RANKS]
        spans = [(a, b) for a, b in pairwise(edges) if b - a >= FEWEST]
        spans = spans or [(0, ordered.numel())]
        at = torch.stack([ordered[a:b].median() for a, b in spans])
        deviation = torch.stack([NORMAL * off[a:b].median() for a, b in spans])
        result[channel] = _interpolate(levels, at, deviation).clamp_min(least)
    return result


def _interpolate(levels: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Interpolate values given ``at`` some levels: linear in between, constant beyond."""
    if at.numel() == 1:
        return values.expand_as(levels)
    after = torch.bucketize(levels.contiguous(), at).clamp(1, at.numel() - 1)
    share = ((levels - at[after - 1]) / (at[after] - at[after - 1]).clamp_min(1e-30)).clamp(0, 1)
    return values[after - 1] + share * (values[after] - values[after - 1])
