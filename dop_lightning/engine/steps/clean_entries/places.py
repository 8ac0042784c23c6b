r"""What the places of entries say: an outlier does not know its neighbours, a clean entry is like some of them.

A line of ink, a star and an edge may be as far from an estimate as an outlier is. But outliers fall on places that have
nothing to do with their values, so the neighbours of an outlier of value v are those of any other place of the same
estimate. For an entry i that is far from its estimate,

    ``d(i) = mean of the two smallest |y_j − v| over the 8 neighbours j / |x̂_i − v|``

is therefore compared with the same number at another place k with ``x̂_k ≈ x̂_i``, drawn at random: what is found there
is how outliers look. With ``n₀`` of the drawn places and ``n`` of the far entries in a cell (of d, and of the activity
around), the local false discovery rate [Efron, 2004]

    ``P(outlier | far, cell) = π·n₀/n``

needs neither a model of the picture nor of the outliers. The share π of outliers among the far entries is the least
ratio of n to n₀ over the upper tails of d, where clean entries are rare.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import classes
from dop_lightning.engine.steps.clean_entries.neighbours import bordered, neighbours_at

EDGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Between the cells of d."""

RANKS = (0.5, 0.8, 0.95)
"""Shares of the entries whose surroundings are calmer, between the cells of activity."""

TAIL = 0.05
"""Share of the drawn places that a tail holds at least: of fewer, the ratio is uncertain."""

SPREAD = 0.01
"""How far the ranks of ``x̂_k`` and ``x̂_i`` may be apart, as a share of the entries."""

DOUBTED = (0.7, 0.9)
"""Where π is the former or less, far entries are cleared as far as their places say; from the latter on, none is: there
most far entries are outliers, and one that is cleared by mistake costs more than a clean one that is not."""

LEAST = 1e-3
"""A probability is at least this, and at most 1 minus this."""


class Places(NamedTuple):
    """What places say of the entries that are far from their estimate.

    Attributes:
        share: π, the share of outliers among them, in (0, 1).
        outlier: the probability of each of them that it is one, one dimension, in (0, 1].
        raw: the probability as its place alone gives it, also where π is large.
    """

    share: float
    outlier: Tensor
    raw: Tensor

    @property
    def doubt(self) -> float:
        """How much of what places say counts, in [0, 1]: 0 where π is large."""
        return _doubt(self.share)

    @property
    def evidence(self) -> Tensor:
        """What the place of each adds to the log odds that it is an outlier."""
        return self.doubt * (torch.logit(self.raw) - math.log(self.share / (1 - self.share)))


def place_evidence(
    y: Tensor, estimate: Tensor, far: Tensor, activity: Tensor, observed: Tensor, generator: torch.Generator
) -> Places:
    """Compare the neighbours of far entries with those of places drawn at random.

    Args:
        y: ``(C, H, W)``; any other number of dimensions has no neighbours: then all far entries are outliers.
        estimate: x̂, ``(C, H, W)``.
        far: bool, entries that are far from their estimate.
        activity: of the estimate around each entry.
        observed: bool; other entries are no neighbours.
        generator: on the CPU, draws the places.
    """
    total = int(far.sum())
    if y.dim() != 3 or total == 0:
        nothing = torch.zeros(total, dtype=y.dtype, device=y.device)
        return Places(1 - LEAST, 1 - LEAST - nothing, 1 - LEAST - nothing)
    around = bordered(torch.where(observed, y, torch.inf))
    at = far.flatten().nonzero().squeeze(1)
    values, expected = y[far], estimate.flatten()
    drawn = places_like(expected, at, generator)
    cells = len(EDGES) + 1
    group = classes(activity, RANKS).flatten()
    edges = torch.tensor(EDGES, dtype=y.dtype, device=y.device)

    def cell(places: Tensor) -> Tensor:
        return torch.bucketize(_distance(around, places, values, expected[places]), edges) + cells * group[places]

    own = cell(at)
    groups = len(RANKS) + 1
    found, chance = (
        torch.bincount(which, minlength=cells * groups).view(groups, cells).to(y.dtype) for which in (own, cell(drawn))
    )
    share = _share(found, chance)
    outlier = (share * (chance + 1) / (found + 1)).cummax(dim=1).values.clamp(LEAST, 1 - LEAST).flatten()[own]
    return Places(share, 1 - _doubt(share) * (1 - outlier), outlier)


def _doubt(share: float) -> float:
    low, high = DOUBTED
    return min(1.0, max(0.0, (high - share) / (high - low)))


def _share(found: Tensor, chance: Tensor) -> float:
    """π: the least ratio over the tails of d, in the calmest surroundings and in ever livelier ones."""
    above, by_chance = (counts.flip(1).cumsum(1).flip(1).cumsum(0) for counts in (found, chance))
    ratio = (above + above.sqrt() + 1) / (by_chance + 1)  # the least of several is too small by about its deviation
    ratio[by_chance < TAIL * float(chance.sum())] = 1
    return float(ratio.min().clamp(LEAST, 1 - LEAST))


def places_like(expected: Tensor, at: Tensor, generator: torch.Generator) -> Tensor:
    """For each place another one whose estimate is about the same."""
    shuffled = torch.randperm(expected.numel(), generator=generator, device="cpu").to(at.device)
    order = shuffled[expected[shuffled].sort(stable=True).indices]  # equal estimates are anywhere, not side by side
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.numel(), device=order.device)
    spread = max(50, round(SPREAD * order.numel()))
    steps = torch.randint(-spread, spread + 1, (at.numel(),), generator=generator, device="cpu").to(at.device)
    return order[(rank[at] + steps).clamp_(0, order.numel() - 1)]


def _distance(around: Tensor, places: Tensor, values: Tensor, expected: Tensor) -> Tensor:
    """d of values as if they stood at places: indices into the flat image, which ``around`` holds with a border."""
    smallest = torch.full((2, values.numel()), torch.inf, dtype=values.dtype, device=values.device)
    for neighbour in neighbours_at(around, places):
        apart = (neighbour - values).abs()
        smallest[1] = torch.minimum(smallest[1], torch.maximum(smallest[0], apart))
        smallest[0] = torch.minimum(smallest[0], apart)
    known = smallest.isfinite()
    mean = torch.where(known, smallest, 0).sum(0) / known.sum(0)  # nan without neighbours: like nothing
    return (mean / (expected - values).abs().clamp_min(1e-12)).nan_to_num(torch.inf)
