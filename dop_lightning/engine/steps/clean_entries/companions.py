r"""Evidence from companions: neighbouring entries have similar errors of the estimate, outliers do not.

If the estimate blurs or shifts an edge, the residuals ``r = y − x̂`` are similar along the edge and in all channels of
a pixel. The residual of an outlier is unrelated to those of other entries. Consider the rank-ordered difference
[Garnett et al., 2005] of residuals,

    ``D(i) = mean of the four smallest |r_j − r_i|``

over the companions j of entry i: its 8 neighbours and the same pixel in other channels. D is small for errors of the
estimate. The distribution of D for outliers depends on the image and on the corruption, and is estimated from the
observation. For this, the value y_i is moved to a random position k with about the same estimate, ``x̂_k ≈ x̂_i``,
which simulates an outlier. Let P be the current probability that an entry is an outlier. The histogram of ``D`` at the
drawn positions, weighted by P, is ``n₀ = N₀·f₀``. Let n be the histogram of the entries themselves. Then
``n − n₀ = N₁·f₁`` is the histogram of clean entries, and

    ``log f₀(D)/f₁(D)``

is added to the log-odds that an entry is an outlier.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import activity_classes
from dop_lightning.engine.steps.clean_entries.indices import indices
from dop_lightning.engine.steps.clean_entries.neighbours import bordered, neighbours_at
from dop_lightning.engine.steps.clean_entries.places import places_like
from dop_lightning.engine.steps.clean_entries.sorting import ascending

NUM_COMPANIONS = 4
"""Number of companions with the most similar residuals, over which D is averaged."""

CELLS = 12
"""Number of histogram bins of D, narrower for small D."""

RANKS = (0.5, 0.8, 0.95)
"""Boundaries of the activity classes, as quantile levels."""

STEPS = (2.0, 4.0)
"""Boundaries of the classes of ``|r|``, in multiples of ``distance``. D grows with ``|r|`` for clean entries and
outliers alike, so the two are compared within a class."""

PRIOR = 5.0
"""Pseudocount of each bin at the overall fraction of outliers, so that bins with few entries give no evidence."""

DEVIATIONS = 1.0
"""Fractions within this many standard deviations of the overall fraction give no evidence."""

MIN_FRACTION = 0.01
"""Fractions are clamped to between this value and 1 minus this value."""


class Companions:
    """D of the entries that are far from their estimate, and D at random positions.

    Args:
        y: observation, ``(C, H, W)``.
        estimate: x̂, ``(C, H, W)``.
        distance: minimum distance from the estimate of the entries to compare, positive.
        activity: activity of the estimate around each entry, ``(C, H, W)``.
        observed: bool, ``(C, H, W)``; unobserved entries are not companions.
        joint: whether the channels of a pixel are corrupted together. If so, they are not companions of each other.
        generator: CPU generator that draws the positions.
    """

    def __init__(
        self,
        y: Tensor,
        estimate: Tensor,
        distance: float,
        activity: Tensor,
        observed: Tensor,
        joint: bool,
        generator: torch.Generator,
    ) -> None:
        residual = torch.where(observed, y - estimate, torch.inf)
        self.away = (residual.abs() > distance) & observed
        at = indices(self.away)
        expected, values = estimate.flatten(), y.flatten()[at]
        drawn = places_like(expected, at, generator)
        moved = values - expected[drawn]
        self.counted = moved.abs() > distance  # entries near their estimate are not compared
        own, chance = (
            _companion_distance(residual, at, values - expected[at], joint),
            _companion_distance(residual, drawn, moved, joint),
        )
        edges = _bin_edges(chance[self.counted])
        lively = activity_classes(activity, RANKS).flatten()
        steps = distance * torch.tensor(STEPS, dtype=y.dtype, device=y.device)

        def cell(apart: Tensor, places: Tensor, moved: Tensor) -> Tensor:
            group = lively[places] * (len(STEPS) + 1) + torch.bucketize(moved.abs(), steps)
            return torch.bucketize(apart, edges) + CELLS * group

        self.own, self.chance = cell(own, at, values - expected[at]), cell(chance, drawn, moved)

    def evidence(self, outlying: Tensor, alone: Tensor) -> Tensor:
        """Return ``log f₀/f₁`` of each entry, ``(C, H, W)``; 0 for entries near their estimate.

        Args:
            outlying: P of each entry, ``(C, H, W)``.
            alone: weight of each entry, ``(C, H, W)``, in [0, 1]: 1 for values that are rare among outliers. Outliers
                of equal value have similar residuals, so they get less weight.
        """
        probable, counted = outlying[self.away], alone[self.away]
        found = _weighted_counts(self.own, counted)
        expected = _weighted_counts(self.chance, counted * probable * self.counted)
        number = _weighted_counts(self.own, counted * probable).sum(1, keepdim=True)
        expected *= number / expected.sum(1, keepdim=True).clamp_min(1e-12)
        share = number / found.sum(1, keepdim=True).clamp_min(1e-12)
        weights = found + PRIOR
        shares, pooled = increasing((expected + PRIOR * share) / weights, weights)
        error = DEVIATIONS * (2 * shares / pooled).sqrt()  # the counts of entries and of draws are both random
        certain = torch.minimum(torch.maximum(share, shares - error), shares + error)
        evidence = certain.logit(MIN_FRACTION) - share.logit(MIN_FRACTION)
        result = torch.zeros_like(outlying)
        result[self.away] = evidence.flatten()[self.own] * counted
        return result


def increasing(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the weighted isotonic regression of each row with the pool-adjacent-violators algorithm.

    Source: [Ayer et al., 1955].

    Args:
        values: ``(rows, n)``.
        weights: ``(rows, n)``, positive.

    Returns:
        The nondecreasing fit, and the total weight of the pool of each value, both ``(rows, n)``.

    >>> increasing(torch.tensor([[1.0, 3.0, 1.0, 5.0]]), torch.ones(1, 4))
    (tensor([[1., 2., 2., 5.]]), tensor([[1., 2., 2., 1.]]))
    """
    rows, sizes = [], []
    for row, heavy in zip(values.tolist(), weights.tolist(), strict=True):
        pools: list[tuple[float, float, int]] = []  # mean, weight, length
        for value, weight in zip(row, heavy, strict=True):
            pools.append((value, weight, 1))
            while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
                (mean, heaviness, length), (other, more, longer) = pools.pop(-2), pools.pop()
                total = heaviness + more
                pools.append(((mean * heaviness + other * more) / total, total, length + longer))
        rows.append([mean for mean, _, length in pools for _ in range(length)])
        sizes.append([weight for _, weight, length in pools for _ in range(length)])
    return torch.tensor(rows, device="cpu").to(values), torch.tensor(sizes, device="cpu").to(weights)


def _bin_edges(chance: Tensor) -> Tensor:
    """Return the boundaries of the histogram bins of D."""
    if not len(chance):
        return chance
    ranks = torch.linspace(0, 1, CELLS + 1, dtype=torch.float64, device="cpu")[1:-1].square()
    return ascending(chance)[(ranks * (len(chance) - 1)).long().to(chance.device)]


def _weighted_counts(cells: Tensor, weights: Tensor) -> Tensor:
    """Return the total weight in each bin of each class, ``(classes, CELLS)``."""
    counts = torch.zeros(CELLS * (len(RANKS) + 1) * (len(STEPS) + 1), dtype=weights.dtype, device=weights.device)
    return counts.index_add_(0, cells, weights).view(-1, CELLS)


def _companion_distance(residual: Tensor, places: Tensor, values: Tensor, joint: bool) -> Tensor:
    """Return D of residuals placed at flat indices of the image."""
    channels = len(residual)
    rows = list(neighbours_at(bordered(residual), places))
    if not joint:
        channel, pixel = places // residual[0].numel(), places % residual[0].numel()
        flat = residual.flatten(1)
        rows += [flat[(channel + other) % channels, pixel] for other in range(1, min(channels, 4))]
    apart = (torch.stack(rows) - values).abs().sort(dim=0).values[:NUM_COMPANIONS]
    known = apart.isfinite()
    mean = torch.where(known, apart, 0).sum(0) / known.sum(0)
    return mean.nan_to_num(torch.inf)
