r"""The rank of a matrix in noise, from the edge of the noise's spectrum, without a gap between singular values.

The largest singular value of an n×m matrix of independent entries with standard deviation σ is close to
``σ(√n + √m)``, whatever their distribution, as long as it has a fourth moment [Bai, Krishnaiah and Yin, 1988]. What is
left of sparse outliers below the threshold is such a matrix, and so is dense noise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ABOVE = 1.5
"""A component of L has a singular value of so many times the edge."""

SPIKES = 2.0
"""And of so many times the threshold: a few outliers just below it are no independent entries of small variance."""

STEADY = 0.75
"""The singular value of a component of L does not fall by more than this factor in a step; that of what is left of
outliers falls with the threshold."""

STREAK = 3
"""Steps in a row for which a candidate must be above all of this before it belongs to L."""


def edge(rms: float, n: int, m: int) -> float:
    """``σ(√n + √m)``, the largest singular value of n×m entries of noise with root mean square ``rms``."""
    return rms * (math.sqrt(n) + math.sqrt(m))


@dataclass
class RankRule:
    """Decides which triplets belong to L, step by step.

    Attributes:
        last: singular values after the last step.
        streak: steps for which the next candidate has looked like a component.
    """

    last: Tensor
    streak: int = 0

    def rank(self, values: Tensor, rank: int, limit: float, threshold: float, above: float = ABOVE) -> int:
        """Return the rank after a step.

        Args:
            values: all singular values, from the largest on.
            rank: before the step.
            limit: the :func:`edge` of what is left.
            threshold: of outliers.
            above: a component has so many times the edge.
        """
        kept = int((values[:rank] > limit).sum())
        common = min(len(values), len(self.last))
        new = values[rank:common]
        looks = (new > max(above * limit, SPIKES * threshold)) & (new > STEADY * self.last[rank:common])
        found = int(looks.long().cumprod(0).sum()) if kept == rank else 0
        self.streak = self.streak + 1 if found else 0
        self.last = values
        if self.streak < STREAK:
            return max(1, kept)
        self.streak = 0
        return rank + found


def first_rank(values: Tensor, limit: float) -> int:
    """Return how many singular values are above the edge, at least 1."""
    return max(1, int(torch.count_nonzero(values > ABOVE * limit)))
