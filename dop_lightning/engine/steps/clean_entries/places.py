r"""Evidence from places: an outlier is independent of its neighbours, a clean entry resembles some of them.

A line of ink, a star or an edge can be as far from its estimate as an outlier. But the place of an outlier is
independent of its value, so the neighbours of an outlier of value v look like those of any other place with the same
estimate. For an entry i of value v that is far from its estimate, the statistic

    ``d(i) = mean of the two smallest |y_j − v| over the 8 neighbours j / |x̂_i − v|``

is compared with the same statistic for v at a random place k with ``x̂_k ≈ x̂_i``, which is distributed as for outliers.
With ``n₀`` random places and ``n`` far entries in a cell of d and the local activity, the local false discovery rate
[Efron, 2004]

    ``P(outlier | far, cell) = π·n₀/n``

requires no model of the picture or of the outliers. The fraction π of outliers among the far entries is the minimum
ratio of n to n₀ over the upper tails of d, where clean entries are rare.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import activity_classes
from dop_lightning.engine.steps.clean_entries.indices import indices
from dop_lightning.engine.steps.clean_entries.neighbours import bordered, neighbours_at
from dop_lightning.engine.steps.clean_entries.sorting import cumulated, stable_order

EDGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Boundaries of the cells of d."""

RANKS = (0.5, 0.8, 0.95)
"""Boundaries of the cells of activity, as quantiles over the entries."""

TAIL = 0.05
"""Minimum fraction of the random places in a tail; with fewer places, the ratio is uncertain."""

SPREAD = 0.01
"""Maximum difference of the ranks of ``x̂_k`` and ``x̂_i``, as a fraction of the entries."""

EVIDENCE_RANGE = (0.7, 0.9)
"""The evidence has full weight if π is at most the first number, and none from the second number on. For large π most
far entries are outliers, and accepting an outlier costs more than rejecting a clean entry."""

MAX_COMPARED = 1 << 16
"""Maximum number of far entries that are compared, and of places to draw from; larger images are subsampled."""

MIN_PROBABILITY = 1e-3
"""Probabilities are clamped to at least this and at most 1 minus this."""


@dataclass(frozen=True)
class Places:
    """Evidence from the places of the entries that are far from their estimate.

    Attributes:
        share: π, the fraction of outliers among these entries, in (0, 1).
        find_raw: computes :attr:`raw`.
        nothing: zeros, one for each far entry.
    """

    share: float
    find_raw: Callable[[], Tensor]
    nothing: Tensor

    @cached_property
    def raw(self) -> Tensor:
        """Probability that each far entry is an outlier, with the full weight of the evidence, even for large π."""
        return self.find_raw()

    @property
    def doubt(self) -> float:
        """Weight of the evidence from places, in [0, 1]: 0 for large π."""
        low, high = EVIDENCE_RANGE
        return min(1.0, max(0.0, (high - self.share) / (high - low)))

    @property
    def outlier(self) -> Tensor:
        """Probability that each far entry is an outlier, one dimension, in (0, 1]."""
        return self.nothing + 1 if self.doubt == 0 else 1 - self.doubt * (1 - self.raw)

    @property
    def evidence(self) -> Tensor:
        """Contribution of the place of each entry to its log odds of being an outlier."""
        if self.doubt == 0:
            return self.nothing
        return self.doubt * (torch.logit(self.raw) - math.log(self.share / (1 - self.share)))


def place_evidence(
    y: Tensor, estimate: Tensor, far: Tensor, activity: Tensor, observed: Tensor, generator: torch.Generator
) -> Places:
    """Compare the neighbours of far entries with those of places drawn at random.

    Args:
        y: ``(C, H, W)``. With another number of dimensions, entries have no neighbours, and all far entries count as
            outliers.
        estimate: x̂, ``(C, H, W)``.
        far: bool, true for entries far from their estimate.
        activity: activity of the estimate around each entry.
        observed: bool; unobserved entries do not count as neighbours.
        generator: random number generator on the CPU that draws the places.
    """
    at = indices(far)
    total = len(at)
    nothing = y.new_zeros(total)
    if y.dim() != 3 or total == 0:
        return Places(1 - MIN_PROBABILITY, lambda: nothing + (1 - MIN_PROBABILITY), nothing)
    around = bordered(torch.where(observed, y, torch.inf))
    values, expected = y.flatten(), estimate.flatten()
    compared = at[:: -(-total // MAX_COMPARED)]
    drawn = places_like(expected, compared, generator)
    cells, groups = len(EDGES) + 1, len(RANKS) + 1
    group = activity_classes(activity, RANKS).flatten()
    edges = torch.tensor(EDGES, dtype=y.dtype, device=y.device)

    def cell(places: Tensor, values: Tensor) -> Tensor:
        distance = _neighbour_distance(around, places, values, expected.index_select(0, places))
        return torch.bucketize(distance, edges) + cells * group.index_select(0, places)

    found, chance = (
        torch.bincount(cell(places, values.index_select(0, compared)), minlength=cells * groups)
        .view(groups, cells)
        .to(y.dtype)
        for places in (compared, drawn)
    )
    share = _outlier_fraction(found, chance)
    table = (share * (chance + 1) / (found + 1)).cummax(dim=1).values.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return Places(share, lambda: table.flatten().index_select(0, cell(at, values.index_select(0, at))), nothing)


def _outlier_fraction(found: Tensor, chance: Tensor) -> float:
    """Return π, the minimum ratio over the upper tails of d, accumulated in order of increasing activity."""
    above, by_chance = (cumulated(cumulated(counts.flip(1), 1).flip(1)) for counts in (found, chance))
    ratio = tail_ratios(above, by_chance, TAIL * float(chance.sum()))
    return float(ratio.min().clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY))


def tail_ratios(found: Tensor, by_chance: Tensor, enough: float | Tensor) -> Tensor:
    """Return ratios of counts in tails, whose minimum estimates the fraction of outliers.

    Args:
        found: number of entries in each tail.
        by_chance: number of random places in each tail, the same shape.
        enough: number of random places below which the ratio is uncertain, and 1; broadcast to the shape.
    """
    ratio = (found + found.sqrt() + 1) / (by_chance + 1)  # the minimum is biased by about one deviation
    return ratio.masked_fill(by_chance < enough, 1)


def places_like(expected: Tensor, at: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a random place with about the same estimate for each place ``at``."""
    number = expected.numel()
    if number > MAX_COMPARED:
        shuffled = torch.randint(number, (MAX_COMPARED,), generator=generator, device="cpu").to(at.device)
    else:
        shuffled = torch.randperm(number, generator=generator, device="cpu").to(at.device)
    order = shuffled[stable_order(expected[shuffled])]  # equal estimates in random order
    if number > MAX_COMPARED:
        rank = torch.searchsorted(expected[order], expected[at], right=False)
        last = torch.searchsorted(expected[order], expected[at], right=True)
        within = torch.rand(at.numel(), generator=generator, device="cpu").to(at.device)  # among equal estimates
        rank = rank + (within * (last - rank)).long()
    else:
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(number, device=order.device)
        rank = ranks[at]
    spread = max(50, round(SPREAD * order.numel()))
    steps = torch.randint(-spread, spread + 1, (at.numel(),), generator=generator, device="cpu").to(at.device)
    return order[(rank + steps).clamp_(0, order.numel() - 1)]


def _neighbour_distance(around: Tensor, places: Tensor, values: Tensor, expected: Tensor) -> Tensor:
    """Return d of values at some places.

    Args:
        around: image padded by :func:`~dop_lightning.engine.steps.clean_entries.neighbours.bordered`.
        places: indices into the flat image.
        values: v of each place.
        expected: x̂ of each place.
    """
    smallest = torch.full((2, values.numel()), torch.inf, dtype=values.dtype, device=values.device)
    for neighbour in neighbours_at(around, places):
        apart = (neighbour - values).abs()
        smallest[1] = torch.minimum(smallest[1], torch.maximum(smallest[0], apart))
        smallest[0] = torch.minimum(smallest[0], apart)
    known = smallest.isfinite()
    mean = torch.where(known, smallest, 0).sum(0) / known.sum(0)  # nan without neighbours, which counts as infinite
    return (mean / (expected - values).abs().clamp_min(1e-12)).nan_to_num(torch.inf)
