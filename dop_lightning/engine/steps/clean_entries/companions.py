r"""Evidence from companions: errors of the estimate are similar at neighbouring entries, outliers are not.

An edge that the estimate has blurred or shifted leaves residuals ``r = y − x̂`` that its neighbours along the edge
share, and so do the channels of a pixel. An outlier shares its residual with no other entry. The rank-ordered
difference [Garnett et al., 2005], here of residuals,

    ``D(i) = mean of the four smallest |r_j − r_i|``

over the companions j, the 8 neighbours and the same place in other channels, is small for errors of the estimate. Its
distribution for outliers depends on the picture and on the corruption, and is estimated from the observation. The value
y_i is put at another place k of about the same estimate, ``x̂_k ≈ x̂_i``, drawn at random, where it is an example of an
outlier. Let P be the current probability that an entry is an outlier. The histogram of ``D`` at the drawn places,
weighted by P, is ``n₀ = N₀·f₀``. With the histogram n of the entries themselves, ``n − n₀ = N₁·f₁`` remains for clean
entries, and

    ``log f₀(D)/f₁(D)``

is added to the log odds that an entry is an outlier.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import classes
from dop_lightning.engine.steps.clean_entries.neighbours import bordered, neighbours_at
from dop_lightning.engine.steps.clean_entries.places import places_like
from dop_lightning.engine.steps.clean_entries.sorting import ascending

NEAREST = 4
"""Number of nearest companions that count."""

CELLS = 12
"""Number of cells of D, finer for small D."""

RANKS = (0.5, 0.8, 0.95)
"""Boundaries of the classes of activity, as shares of the entries with less activity."""

STEPS = (2.0, 4.0)
"""Boundaries of the classes of ``|r|``, in distances. Larger residuals differ more from most companions, which is no
additional evidence."""

PRIOR = 5.0
"""Pseudocount of each cell, with the overall share of outliers, so that few entries give no evidence."""

DEVIATIONS = 1.0
"""A share counts only beyond this many of its standard deviations from the overall share."""

LEAST = 0.01
"""Shares are at least this and at most 1 minus this."""


class Companions:
    """D of the entries that are away from their estimate, and D at random places.

    Args:
        y: the observation, ``(C, H, W)``.
        estimate: x̂, the same shape.
        distance: entries further from their estimate are compared, above 0.
        activity: of the estimate around each entry.
        observed: bool; other entries are not companions.
        joint: whether the channels of a pixel are corrupted together; they are not companions then.
        generator: on the CPU; draws the places.
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
        at = self.away.flatten().nonzero().squeeze(1)
        expected, values = estimate.flatten(), y.flatten()[at]
        drawn = places_like(expected, at, generator)
        moved = values - expected[drawn]
        self.counted = moved.abs() > distance  # near its estimate it would not be compared
        own, chance = _nearest(residual, at, values - expected[at], joint), _nearest(residual, drawn, moved, joint)
        edges = _edges(chance[self.counted])
        lively = classes(activity, RANKS).flatten()
        steps = distance * torch.tensor(STEPS, dtype=y.dtype, device=y.device)

        def cell(apart: Tensor, places: Tensor, moved: Tensor) -> Tensor:
            group = lively[places] * (len(STEPS) + 1) + torch.bucketize(moved.abs(), steps)
            return torch.bucketize(apart, edges) + CELLS * group

        self.own, self.chance = cell(own, at, values - expected[at]), cell(chance, drawn, moved)

    def evidence(self, outlying: Tensor, alone: Tensor) -> Tensor:
        """Return ``log f₀/f₁`` of each entry, ``(C, H, W)``; 0 for entries near their estimate.

        Args:
            outlying: P of each, ``(C, H, W)``.
            alone: in [0, 1], ``(C, H, W)``, 1 for values that few outliers have. Outliers of one value share their
                residuals.
        """
        probable, counted = outlying[self.away], alone[self.away]
        found = _counts(self.own, counted)
        expected = _counts(self.chance, counted * probable * self.counted)
        number = _counts(self.own, counted * probable).sum(1, keepdim=True)
        expected *= number / expected.sum(1, keepdim=True).clamp_min(1e-12)
        share = number / found.sum(1, keepdim=True).clamp_min(1e-12)
        weights = found + PRIOR
        shares, pooled = increasing((expected + PRIOR * share) / weights, weights)
        error = DEVIATIONS * (2 * shares / pooled).sqrt()  # of the counts, both of them
        certain = torch.minimum(torch.maximum(share, shares - error), shares + error)
        said = certain.logit(LEAST) - share.logit(LEAST)
        result = torch.zeros_like(outlying)
        result[self.away] = said.flatten()[self.own] * counted
        return result


def increasing(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nondecreasing rows nearest in weighted squares, by pooling [Ayer et al., 1955].

    The second result is the weights of the pools.

    Args:
        values: ``(rows, n)``.
        weights: above 0, ``(rows, n)``.

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


def _edges(chance: Tensor) -> Tensor:
    """Return the boundaries of the cells of D."""
    if not len(chance):
        return chance
    ranks = torch.linspace(0, 1, CELLS + 1, dtype=torch.float64, device="cpu")[1:-1].square()
    return ascending(chance)[(ranks * (len(chance) - 1)).long().to(chance.device)]


def _counts(cells: Tensor, weights: Tensor) -> Tensor:
    """Return the total weight in each cell of each class, ``(classes, CELLS)``."""
    counts = torch.zeros(CELLS * (len(RANKS) + 1) * (len(STEPS) + 1), dtype=weights.dtype, device=weights.device)
    return counts.index_add_(0, cells, weights).view(-1, CELLS)


def _nearest(residual: Tensor, places: Tensor, values: Tensor, joint: bool) -> Tensor:
    """Return D of residuals put at places, which are indices into the flat image."""
    channels = len(residual)
    rows = list(neighbours_at(bordered(residual), places))
    if not joint:
        channel, pixel = places // residual[0].numel(), places % residual[0].numel()
        flat = residual.flatten(1)
        rows += [flat[(channel + other) % channels, pixel] for other in range(1, min(channels, 4))]
    apart = (torch.stack(rows) - values).abs().sort(dim=0).values[:NEAREST]
    known = apart.isfinite()
    mean = torch.where(known, apart, 0).sum(0) / known.sum(0)
    return mean.nan_to_num(torch.inf)
