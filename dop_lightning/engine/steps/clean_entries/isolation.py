r"""Evidence from isolation: an outlier is independent of its neighbours, errors of the estimate come in groups.

Where the estimate misses a highlight, a thin line or a corner, the residuals ``r = y − x̂`` of several neighbouring
entries and of all channels are large. The residual of an outlier is large alone, unless another outlier is close.
For an entry i, the mean over the entries j around it,

    ``S(i) = mean_j min(|r_j|, |r_i|) / |r_i|``,

is 0 for an isolated residual and 1 for one among residuals as large. The entries j are the 8 neighbours in the same
and in the other channels. The other channels of the pixel itself do not count, since pixels may be corrupted as a
whole.

The distribution f₀ of S for outliers depends on the picture and on the corruption, and is estimated from the
observation: the value ``y_i`` is moved to a random place k with ``x̂_k ≈ x̂_i``, as in
:mod:`~dop_lightning.engine.steps.clean_entries.places`. With N entries that are away from their estimate, n of them in
a cell of S, and ``n₀`` of N random places, the fraction π of outliers is the minimum ratio of n to ``n₀`` over the
lower tails of S, where clean entries are rare. ``m = n − π·n₀`` clean entries are in the cell, up to chance, and their
total number ``(1 − π)·N`` is known up to about ``√N``. With ``f₀ = n₀/N`` and

    ``f₁ = (m + √N·f₀) / ((1 − π)·N + √N)``,

``log f₀/f₁`` is added to the log odds that an entry is an outlier. It is 0 if there are no clean entries. The channels
of a pixel are not independent: with D entries per pixel that has any, counts vary as if they were D times smaller.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import activity_classes
from dop_lightning.engine.steps.clean_entries.companions import increasing
from dop_lightning.engine.steps.clean_entries.indices import indices
from dop_lightning.engine.steps.clean_entries.neighbours import bordered, neighbours_at
from dop_lightning.engine.steps.clean_entries.places import MAX_COMPARED, places_like, tail_ratios
from dop_lightning.engine.steps.clean_entries.sorting import ascending, cumulated

CELLS = 12
"""Number of cells of S, narrower for large S."""

RANKS = (0.8,)
"""Boundaries of the activity classes, as quantile levels."""

STEPS = (2.0, 4.0)
"""Boundaries of the classes of ``|r|``, in multiples of ``distance``. S decreases with ``|r|`` for clean entries and
outliers alike, so the two are compared within a class."""

MAX_CHANNELS = 4
"""Maximum number of channels in which the neighbours of an entry are compared."""

TAIL = 0.2
"""Minimum fraction of the random places in a tail; with fewer places, the ratio is uncertain."""

PSEUDOCOUNT = 1.0
"""Pseudocount of each cell, for entries and for random places."""

DEVIATIONS = 1.0
"""Numbers of clean entries within this many standard deviations of ``N·(1 − π)·f₀`` give no evidence."""

MIN_FRACTION = 1e-3
"""Fractions are clamped to between this value and 1 minus this value."""


def isolation_evidence(
    y: Tensor,
    estimate: Tensor,
    distance: float,
    activity: Tensor,
    observed: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Return ``log f₀/f₁`` of each entry, ``(C, H, W)``; 0 for entries near their estimate.

    Args:
        y: observation, ``(C, H, W)``.
        estimate: x̂, ``(C, H, W)``, which does not use the entry that it predicts.
        distance: minimum ``|r|`` of the entries to compare, positive.
        activity: activity of the estimate around each entry, ``(C, H, W)``.
        observed: bool, ``(C, H, W)``; unobserved entries are no neighbours.
        generator: CPU generator that draws the places.

    >>> y = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)) / 50
    >>> y[0, 10:13, 10:13] += 0.5  # a highlight
    >>> y[0, ::8, 3::8] += 0.5  # isolated
    >>> nothing = torch.zeros_like(y)
    >>> seen = torch.ones_like(y, dtype=torch.bool)
    >>> found = isolation_evidence(y, nothing, 0.1, nothing, seen, torch.Generator().manual_seed(0))[0]
    >>> bool((found[10:13, 10:13] < 0).all()), bool((found[::8, 3::8] >= 0).all())
    (True, True)
    """
    result = torch.zeros_like(y)
    residual = torch.where(observed, (y - estimate).abs(), torch.inf)
    away = (residual > distance) & observed
    at = indices(away)
    if not len(at):
        return result
    around, flat = bordered(residual), residual.flatten()
    every = -(-len(at) // MAX_COMPARED)
    expected = estimate.flatten()
    drawn = places_like(expected, at[::every], generator)
    moved = (y.flatten().index_select(0, at[::every]) - expected.index_select(0, drawn)).abs()
    is_away = indices(moved > distance)  # entries near their estimate are not compared
    drawn, moved = drawn[is_away], moved[is_away]
    if not len(drawn):
        return result
    own = flat.index_select(0, at)
    alone = _isolation(around, at, own)
    chance = _isolation(around, drawn, moved)
    edges = _cell_edges(chance)
    lively = activity_classes(activity, RANKS).flatten()
    steps = distance * torch.tensor(STEPS, dtype=y.dtype, device=y.device)
    classes = (len(RANKS) + 1) * (len(STEPS) + 1)

    def cell(similar: Tensor, places: Tensor, size: Tensor) -> Tensor:
        group = lively.index_select(0, places) * (len(STEPS) + 1) + torch.bucketize(size, steps)
        return torch.bucketize(similar, edges) + CELLS * group

    cells = cell(alone, at, own)
    found, by_chance = (
        torch.bincount(which, minlength=CELLS * classes).view(classes, CELLS).to(y.dtype)
        for which in (cells[::every], cell(chance, drawn, moved))
    )
    dependent = len(at) / int(away.any(dim=0).sum())
    result.view(-1)[at] = _log_ratio(found, by_chance, dependent).flatten().index_select(0, cells)
    return result


def _log_ratio(found: Tensor, by_chance: Tensor, dependent: float) -> Tensor:
    """Return ``log f₀/f₁`` of each cell of each class, ``(classes, CELLS)``.

    Args:
        found: counts n, ``(classes, CELLS)``.
        by_chance: counts of random places, the same shape.
        dependent: D, at least 1.
    """
    total = found.sum(1, keepdim=True)
    by_chance = by_chance * total / by_chance.sum(1, keepdim=True).clamp_min(1)
    below, chance_below = cumulated(found, 1), cumulated(by_chance, 1)
    ratios = tail_ratios(below, chance_below, TAIL * total)
    share = ratios.amin(1, keepdim=True).clamp(MIN_FRACTION, 1 - MIN_FRACTION)
    weights = (found + PSEUDOCOUNT).flip(1)
    relative, number = increasing((by_chance + PSEUDOCOUNT).flip(1) / weights, weights)
    outlying = relative * number  # n₀ of the pool of each cell
    excess, usual = number - share * outlying, (1 - share) * outlying
    error = DEVIATIONS * (dependent * (number + outlying)).sqrt()
    clean = torch.minimum(torch.maximum(usual, excess - error), excess + error).clamp_min(0)
    unsure = (dependent * total).sqrt()
    ratio = outlying * ((1 - share) * total + unsure) / (clean * total + unsure * outlying)
    return ratio.log().flip(1)


def _cell_edges(chance: Tensor) -> Tensor:
    """Return the boundaries of the cells of S: quantiles of its distribution at random places."""
    ranks = 1 - torch.linspace(1, 0, CELLS + 1, dtype=torch.float64, device="cpu")[1:-1].square()
    return ascending(chance)[(ranks * (len(chance) - 1)).long().to(chance.device)]


def _isolation(around: Tensor, places: Tensor, size: Tensor) -> Tensor:
    """Return S of residuals of some sizes at flat indices of the image, in [0, 1].

    Args:
        around: sizes of the residuals, infinite for unobserved entries, padded by
            :func:`~dop_lightning.engine.steps.clean_entries.neighbours.bordered`.
        places: flat indices.
        size: ``|r|`` of each place.
    """
    channels, height, width = around.shape
    pixels = (height - 2) * (width - 2)
    total, number = torch.zeros_like(size), torch.zeros_like(size)
    for other in range(min(channels, MAX_CHANNELS)):
        here = places if other == 0 else (places + other * pixels) % (channels * pixels)
        for value in neighbours_at(around, here):
            known = value.isfinite()
            total += torch.where(known, torch.minimum(value, size), 0)
            number += known
    return total / (number.clamp_min(1) * size)
