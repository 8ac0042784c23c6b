"""Noise of a detector, which grows with the signal: its standard deviation at each level, from one frame.

Photon counts are Poisson, so the variance of a value v is about ``a + b·v``, with the read-out noise in a and the gain
in b. A file specifies neither. The noise at a level is estimated from the entries whose surrounding median is about
that level: most of them are sky, or another smooth part of the frame.

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
"""Boundaries of the levels, as shares of the entries that are darker. Stars are few."""

OWN = 1.072
"""Standard deviation of a normal entry minus the median of four means of two, relative to that of the entry."""

FEWEST = 100
"""Levels with fewer entries are ignored."""


def level_noise(y: Tensor, middle: Tensor, known: Tensor, least: float = 0.0) -> Tensor:
    """Estimate the standard deviation of the noise at each entry of a frame ``(C, H, W)``.

    Args:
        y: the frame.
        middle: the median around each entry, its level.
        known: bool, the entries that were observed and are not outliers.
        least: lower bound of the result.

    Returns:
        ``(C, H, W)``: 1.48 times the median of the distances from :func:`opposite_median` over the entries of a level,
        linear in between, corrected for the noise of that median. Strong curvature of the picture between neighbouring
        entries is included, so that the result is slightly too large.
    """
    result = torch.full_like(y, least)
    distance = (y - opposite_median(y, known)).abs() / OWN
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
        result[channel] = _interpolated(levels, at, deviation).clamp_min(least)
    return result


def _interpolated(levels: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Interpolate values known ``at`` some levels: linear in between, constant beyond."""
    if at.numel() == 1:
        return values.expand_as(levels)
    after = torch.bucketize(levels.contiguous(), at).clamp(1, at.numel() - 1)
    share = ((levels - at[after - 1]) / (at[after] - at[after - 1]).clamp_min(1e-30)).clamp(0, 1)
    return values[after - 1] + share * (values[after] - values[after - 1])
