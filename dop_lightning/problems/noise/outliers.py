"""Gross outliers of robust PCA: an exact number of entries, to which large Gaussian values are added."""

import math

import torch
from torch import Tensor

from dop_lightning.foundation.checks import positive, share
from dop_lightning.problems.noise.base import Corrupted, Noise


def floor_of_share(ratio: float, count: int) -> int:
    """``⌊count·ratio⌋`` of the number that was written, not of its binary neighbour.

    ``0.29 * 100`` is 28.999999999999996 in floating point; a product that is a whole number but for rounding counts
    as that number.

    >>> floor_of_share(0.29, 100), floor_of_share(0.3, 2500), floor_of_share(0.299, 100)
    (29, 750, 29)
    """
    product = ratio * count
    nearest = round(product)
    # the two roundings are below 3e-16 of the product; no ratio that means something lies as close as 1e-12
    return nearest if math.isclose(product, nearest, rel_tol=1e-12) else math.floor(product)


class GrossOutliers(Noise):
    """``⌊N·ratio⌋`` of N entries, drawn uniformly without replacement, get N(0, std²) added (section 4.1).

    For an n×n matrix N is n² and the outliers are not symmetric. The entries hit at a small ratio are among those hit
    at a larger one for the same seed, with the same values. Entries that another noise of a mixture hides count in N.

    Args:
        ratio: the share of the entries, in [0, 1].
        std: standard deviation of what is added, above 0; the paper has 10.

    Raises:
        ValueError: an argument is out of its range.

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
        """A permutation of all entries, of which the first are hit, and a value for every entry."""
        count = clean.numel()
        order = torch.randperm(count, generator=generator)
        values = self.std * torch.randn(count, dtype=torch.float64, generator=generator)
        hit = order[: floor_of_share(self.ratio, count)]
        gross = clean.new_zeros(count)
        gross[hit] = values[hit].to(clean.dtype)
        return running.with_added(gross.view(clean.shape))
