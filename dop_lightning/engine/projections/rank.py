r"""Estimate the rank of a noisy matrix from the edge of the noise spectrum; no gap between singular values is needed.

The largest singular value of an n×m matrix of independent entries with standard deviation σ is close to
``σ(√n + √m)`` for any distribution with a finite fourth moment [Bai, Krishnaiah and Yin, 1988]. Both dense noise and
the remainder of sparse outliers below the threshold are such matrices.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_EDGE_RATIO = 1.5
"""Minimum singular value of a component of L, as a multiple of the edge."""

MIN_THRESHOLD_RATIO = 2.0
"""Minimum singular value as a multiple of the threshold: a few outliers just below it are not noise of low variance."""

MIN_STEP_RATIO = 0.75
"""Minimum ratio of the singular value of a component of L to that of the previous step; values due to residual outliers
fall with the threshold."""

MIN_STEPS = 3
"""Consecutive steps for which a candidate must meet these conditions before it becomes part of L."""


def edge(rms: float, n: int, m: int) -> float:
    """Return ``σ(√n + √m)``, the largest singular value of n×m noise with root mean square ``rms``."""
    return rms * (math.sqrt(n) + math.sqrt(m))


@dataclass
class RankRule:
    """Decide which triplets belong to L, step by step.

    Attributes:
        last: singular values after the last step.
        streak: consecutive steps for which the next candidate has met the conditions.
    """

    last: Tensor
    streak: int = 0

    def rank(self, values: Tensor, rank: int, limit: float, threshold: float, above: float = MIN_EDGE_RATIO) -> int:
        """Return the rank after a step.

        Args:
            values: all singular values, descending.
            rank: rank before the step.
            limit: :func:`edge` of the residual.
            threshold: threshold of outliers.
            above: minimum singular value of a component, as a multiple of the edge.
        """
        kept = int((values[:rank] > limit).sum())
        common = min(len(values), len(self.last))
        new = values[rank:common]
        looks = (new > max(above * limit, MIN_THRESHOLD_RATIO * threshold)) & (
            new > MIN_STEP_RATIO * self.last[rank:common]
        )
        found = int(looks.long().cumprod(0).sum()) if kept == rank else 0
        self.streak = self.streak + 1 if found else 0
        self.last = values
        if self.streak < MIN_STEPS:
            return max(1, kept)
        self.streak = 0
        return rank + found


def first_rank(values: Tensor, limit: float) -> int:
    """Return the number of singular values above the edge, at least 1."""
    return max(1, int(torch.count_nonzero(values > MIN_EDGE_RATIO * limit)))
