"""How many outliers there are of values that say little: those of which few estimates are far.

An outlier of value v is told by its distance from its estimate, and of how many of them that is so depends on the share
``c(v) = #{j: |x̂ⱼ − v| > t}/N``. Where a small change of t changes c(v) by much, as at a value just t away from a sky,
the count is too small: the estimate has come a little closer to what it was fitted to, and most outliers that should be
far are not. Of such values there are taken to be no fewer than of the median of the others: as many, where outliers may
have any value, and none, where they have a few.
"""

import torch
from torch import Tensor

PARTS = 16
"""Of the range of the values."""

SHIFT = 0.2
"""By this share of t, t is enlarged."""

UNRELIABLE = (0.05, 0.2)
"""Where c becomes smaller by the former share or less it is reliable, from the latter on it is not."""

LEAST_FAR = 0.02
"""c counts as this at least; where it is not twice as large it is not reliable."""

EVEN = (0.3, 0.7)
"""The median counts from the former share of the mean of the reliable parts on, and wholly from the latter: it is far
below where outliers have a few values, and what other parts have are clean entries that the estimate does not know."""

FEWEST = 2.0
"""So many parts have to be reliable for the others to be told by them."""


def lifted(rates: Tensor, far: Tensor, further: Tensor) -> Tensor:
    """The share of outliers with values in each part, at least what it was.

    Args:
        rates: that share as it was counted, ``(PARTS,)``.
        far: c at points of each part, ``(PARTS, points)``.
        further: the same at ``(1 + SHIFT)·t``.

    >>> c = torch.full((PARTS, 2), 0.5)
    >>> c[3] = 0.05
    >>> further = torch.where(c < 0.1, 0.01, 0.49)
    >>> rates = torch.full((PARTS,), 0.02)
    >>> rates[3] = 0.004
    >>> lifted(rates, c, further)[:5]
    tensor([0.0200, 0.0200, 0.0200, 0.0200, 0.0200])
    """
    change = torch.where(far > 2 * LEAST_FAR, 1 - further / far.clamp_min(LEAST_FAR), 1).mean(dim=1)
    low, high = UNRELIABLE
    unreliable = ((change - low) / (high - low)).clamp(0, 1)
    order = rates.argsort()
    reliable = (1 - unreliable).to(rates.dtype)
    up_to = reliable[order].cumsum(0)
    if float(up_to[-1]) < FEWEST:
        return rates
    median = rates[order][torch.searchsorted(up_to, up_to[-1:] / 2).clamp_max(PARTS - 1)]
    mean = (reliable * rates).sum() / up_to[-1]
    begin, whole = EVEN
    counts = ((median / mean.clamp_min(1e-30) - begin) / (whole - begin)).clamp(0, 1)
    return torch.maximum(rates, (1 - reliable) * counts * median)
