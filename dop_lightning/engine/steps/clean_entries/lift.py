"""Estimate the fraction of outliers with values that few estimates are far from.

Only outliers far from their estimate are detected. Among outliers of value v, this is the fraction
``c(v) = #{j: |x̂ⱼ − v| > t}/N``. If c(v) depends strongly on t, for example at distance t from a large sky, too few
outliers are counted: the fit pulls the estimate slightly toward outliers, so that most of them are no longer far from
it. For such values, the median over the reliable values is used as a lower bound. For uniformly distributed outliers it
is the common fraction; for salt and pepper it is 0.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.sorting import cumulated

PARTS = 16
"""Number of parts of the range of the values."""

SHIFT = 0.2
"""Relative increase of t."""

RELIABILITY_RANGE = (0.05, 0.2)
"""c is reliable if its relative decrease is at most the first number, and unreliable from the second number on."""

MIN_FAR_FRACTION = 0.02
"""Lower bound of c; c is unreliable below twice this."""

MEDIAN_RATIO_RANGE = (0.3, 0.7)
"""The median is used if its ratio to the mean of the reliable parts exceeds the first number, with full weight from the
second number on. The median is far below the mean if outliers have only a few values; the other parts then contain
clean entries with a poor estimate."""

FEWEST = 2.0
"""Minimum number of reliable parts needed to bound the others."""


def share_far(ordered: Tensor, values: Tensor, far: Tensor | float, dtype: torch.dtype) -> Tensor:
    """Return c of each value, the fraction of estimates that differ from it by more than ``far``.

    Args:
        ordered: estimates in ascending order, one dimension.
        values: values with the same dtype.
        far: t, in the units of both.
        dtype: dtype of the result.

    >>> share_far(torch.tensor([0.1, 0.2, 0.5, 0.9]), torch.tensor([0.15, 0.9]), 0.25, torch.float32)
    tensor([0.5000, 0.7500])
    """
    above = torch.searchsorted(ordered, values + far, right=True)
    near = above - torch.searchsorted(ordered, values - far)
    return 1 - near.to(dtype) / len(ordered)


def lifted(rates: Tensor, far: Tensor, further: Tensor) -> Tensor:
    """Return the fraction of outliers with values in each part, at least ``rates``.

    Args:
        rates: counted fraction, ``(PARTS,)``.
        far: c at points of each part, ``(PARTS, points)``.
        further: c for the distance ``(1 + SHIFT)·t``, the same shape.

    >>> c = torch.full((PARTS, 2), 0.5)
    >>> c[3] = 0.05
    >>> further = torch.where(c < 0.1, 0.01, 0.49)
    >>> rates = torch.full((PARTS,), 0.02)
    >>> rates[3] = 0.004
    >>> lifted(rates, c, further)[:5]
    tensor([0.0200, 0.0200, 0.0200, 0.0200, 0.0200])
    """
    change = torch.where(far > 2 * MIN_FAR_FRACTION, 1 - further / far.clamp_min(MIN_FAR_FRACTION), 1).mean(dim=1)
    low, high = RELIABILITY_RANGE
    unreliable = ((change - low) / (high - low)).clamp(0, 1)
    order = rates.argsort()
    reliable = (1 - unreliable).to(rates.dtype)
    up_to = cumulated(reliable[order])
    if float(up_to[-1]) < FEWEST:
        return rates
    median = rates[order][torch.searchsorted(up_to, up_to[-1:] / 2).clamp_max(PARTS - 1)]
    mean = (reliable * rates).sum() / up_to[-1]
    begin, whole = MEDIAN_RATIO_RANGE
    counts = ((median / mean.clamp_min(1e-30) - begin) / (whole - begin)).clamp(0, 1)
    return torch.maximum(rates, (1 - reliable) * counts * median)
