"""Gross outliers of robust PCA: large Gaussian values are added to an exact number of entries."""

import math

import torch
from torch import Tensor

from dop_lightning.foundation.checks import positive, share
from dop_lightning.problems.noise.base import Corrupted, Noise


def floor_of_share(ratio: float, count: int) -> int:
    """Return ``⌊count·ratio⌋`` for the decimal value of ``ratio``, not for its binary approximation.

    ``0.29 * 100`` is 28.999999999999996 in floating-point arithmetic. Products that differ from an integer only by
    rounding are replaced by that integer.

    >>> floor_of_share(0.29, 100), floor_of_share(0.3, 2500), floor_of_share(0.299, 100)
    (29, 750, 29)
    """
    product = ratio * count
    nearest = round(product)
    # the two rounding errors are below 3e-16 of the product; no meaningful ratio is within 1e-12 of an integer
    return nearest if math.isclose(product, nearest, rel_tol=1e-12) else math.floor(product)


class GrossOutliers(Noise):
    """Add N(0, std²) to ``⌊N·ratio⌋`` of N entries, drawn uniformly without replacement (section 4.1).

    For an n×n matrix, N is n², and the outliers are not symmetric. For the same seed, the entries corrupted at a small
    ratio are a subset of those at a larger one, with the same values. N includes entries that another noise of a
    mixture hides.

    Args:
        ratio: fraction of the entries, in [0, 1].
        std: standard deviation of the outliers, above 0; 10 in the paper.

    Raises:
        ValueError: an argument is out of range.

    >>> from dop_lightning.problems.randomness import stream
    >>> matrix = torch.zeros(50, 50)
    >>> int(GrossOutliers(0.3).corrupt(matrix, stream(0, "corruption")).corruption.count_nonzero())
    750
    """

    name = "gross_outliers"

    def __init__(self, ratio: float, std: float = 10.0) -> None:
        self.ratio = share("ratio", ratio)
        self.std = positive("std", std)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw a permutation of all entries, of which the first are corrupted, and one value per entry."""
        count = clean.numel()
        order = torch.randperm(count, generator=generator)
        values = self.std * torch.randn(count, dtype=torch.float64, generator=generator)
        hit = order[: floor_of_share(self.ratio, count)]
        gross = clean.new_zeros(count)
        gross[hit] = values[hit].to(clean.dtype)
        return running.with_added(gross.view(clean.shape))
