r"""The probability that an entry is corrupted, calibrated on the one observation.

Outliers can be simulated. They fall on places that have nothing to do with their values. So a value v that outliers
have, put at a place k drawn uniformly, is an example of an outlier: its distance from ``x̂_k``, its neighbours and the
error of the estimate around it are those of outliers. The observation is a mixture of outliers and clean entries, and
those far from their estimate tell how many are outliers. A logistic regression from these two
(:mod:`~dop_lightning.engine.steps.clean_entries.unlabelled`) gives the probability of each entry. It needs no model of
clean entries, which are what is left over.

*How many.* An outlier of value v is far from a share ``c(v) = #{k: |x̂_k − v| > t}/N`` of the estimates. With w the
probability of being clean by which the image was recovered,

    ``π = 1/N·Σ{(1 − wᵢ)/c(yᵢ): |yᵢ − x̂ᵢ| > t}``,

and the addends are the weights by which values are drawn; larger where c says little
(:mod:`~dop_lightning.engine.steps.clean_entries.lift`).

*Nothing changed.* An outlier that falls on an entry of its own value, as black on black, has corrupted nothing. A draw
of v at k counts with ``u = 1 − w_k·[y_k = v] − (1 − w_k)·M(v, x̂_k)``, where M is the share of the clean entries with
that estimate whose value is v.

*What the estimate has followed.* An outlier near its estimate is fitted like a clean entry, which comes closer by a
factor f: that of the error of clean entries that were held out to the error of those that were not. Where entries were
fitted, the distance of a draw is shortened to ``(1 − p + p·f)/f`` times itself, with the probability p = σ(η₀).

*Where it starts.* ``η₀ = logit π + log q(v) − log t_ν((v − x̂)/σ)/σ`` with the density q of the drawn values, and the
local scale σ of :mod:`~dop_lightning.engine.steps.clean_entries.surroundings`. The regression corrects η₀ as far as the
counts are beyond chance. With the result in the place of 1 − w it is fitted once more.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.lift import LEAST_FAR, PARTS, SHIFT, lifted, share_far
from dop_lightning.engine.steps.clean_entries.surroundings import Surroundings
from dop_lightning.engine.steps.clean_entries.unlabelled import Examples, fit_positive_unlabelled
from dop_lightning.engine.steps.clean_entries.values import FAR

ROUNDS = 2
"""Fits, each with what the one before says of the entries."""

ROWS = 40_000
"""Entries, or pixels, that the regression is fitted to, at most."""

DRAWS = 3
"""Simulated outliers, in multiples of those rows."""

RIDGE = 50.0
"""λ: so many entries of a kind have to speak against η₀ until it changes by about 1."""

LEVELS = 256
"""Values are counted in levels of 8 bits, more of them where the values reach beyond the range."""

MOST_LEVELS = 1024
"""Values further apart are counted as if they were not."""

KNOWN = 64.0
"""The density of the values of outliers is estimated as if so many uniform ones had been seen besides."""

POINTS = 16
"""Number of values per part of the range at which c is evaluated."""

COMPARED = 512
"""Places that the values of a pixel are compared with, to know from how many it is far."""

MOST_SHARE = 0.98
"""π is at most this."""

AT_ONCE = 1 << 17
"""Rows whose probability is computed at once."""


def corruption_probability(
    y: Tensor,
    estimate: Tensor,
    clean: Tensor,
    held_out: Tensor | None = None,
    scale: float = 1.0,
    observed: Tensor | None = None,
    per_pixel: bool = False,
    rounds: int = ROUNDS,
    draws: int = DRAWS,
) -> Tensor:
    """The calibrated probability of each entry that it is corrupted: that its value is not the true one.

    Args:
        y: the observation, ``(*m)``, finite.
        estimate: x̂, what it would be without corruption, ``(*m)``.
        clean: w, the probability of each entry that it is clean, as far as it is known.
        held_out: bool ``(*m)``, entries that the estimate was not fitted to; ``None`` where none was held out.
        scale: of the observation: the width of the range of its values, above 0.
        observed: bool ``(*m)``; ``None`` where all are.
        per_pixel: whether the channels of a pixel are corrupted together, for images: then they have one probability.
        rounds: fits, each with what the one before says of the entries, at least 1.
        draws: simulated outliers, in multiples of the entries that a fit is made to, at least 1.

    Returns:
        ``(*m)``, float32 in [0, 1], on the CPU; 0 where nothing was observed. Without an entry that is far from its
        estimate and not known to be clean there is nothing to calibrate by, and it is 1 − w.

    >>> generator = torch.Generator().manual_seed(0)
    >>> truth = torch.linspace(0.2, 0.8, 64).expand(1, 64, 64)
    >>> y = truth.clone()
    >>> y[:, ::2, ::3] = torch.rand(y[:, ::2, ::3].shape, generator=generator)
    >>> estimate = truth + 0.02 * torch.randn(y.shape, generator=generator)
    >>> probability = corruption_probability(y, estimate, clean=torch.ones_like(y))
    >>> bool((probability == 0).all())  # nothing is known to be an outlier
    True
    >>> probability = corruption_probability(y, estimate, clean=((y - estimate).abs() < 0.1).float())
    >>> corrupted = y != truth
    >>> abs(float(probability.mean() - corrupted.float().mean())) < 0.02
    True
    """
    y, estimate, clean = (tensor.detach().cpu().float() for tensor in (y, estimate, clean))
    known = torch.ones_like(y, dtype=torch.bool) if observed is None else observed.cpu()
    apart = torch.zeros_like(known) if held_out is None else held_out.cpu()
    clean = clean * known
    result = (1 - clean) * known
    for _ in range(rounds):
        calibrated = _calibrate(y, estimate, clean, scale, known, per_pixel, apart, draws)
        if calibrated is None:
            break
        result = calibrated
        clean = (1 - result) * known
    return result


class _Outliers(NamedTuple):
    """Outliers as they are estimated.

    Attributes:
        share: π, of the rows.
        rows: some rows, which values are drawn from.
        weights: of these rows in a draw; their sum is positive.
        density: of the values, by level, in units of 1/level.
    """

    share: float
    rows: Tensor
    weights: Tensor
    density: Tensor


def _calibrate(
    y: Tensor,
    estimate: Tensor,
    clean: Tensor,
    scale: float,
    known: Tensor,
    per_pixel: bool,
    held_out: Tensor,
    draws: int,
) -> Tensor | None:
    """One fit; ``None`` where there is no outlier to learn from."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    table = _rows(y.shape, per_pixel)
    table = table[known.flatten()[table].any(dim=1)]
    if not len(table):
        return None
    values, expected, seen = (tensor.flatten()[table] for tensor in (y, estimate, known))
    weights = clean.flatten()[table].masked_fill(~seen, 1).amin(dim=1)  # w of a row
    levels = _Levels.of(values[seen], expected, scale)
    some = torch.randperm(len(table), generator=generator, device="cpu")[:ROWS]
    outliers = _outliers(values, expected, seen, weights, some, FAR * scale, levels)
    if outliers is None:
        return None
    around = Surroundings.of(y, estimate, clean, known, scale, per_pixel, held_out)

    def examples(shown: Tensor, at: Tensor, simulated: bool = False) -> Examples:
        """Rows of values at rows of places."""
        places, there = table[at], seen[at]
        density = outliers.density[levels.of_values(shown)].log() - levels.width.log()

        def base(residual: Tensor) -> Tensor:
            """η₀."""
            return ((density - around.log_clean(residual, places)) * there).sum(dim=1) + _logit(outliers.share)

        residual = shown - around.estimate[places]
        if simulated:
            residual = residual * (1 - around.pull[places] * torch.sigmoid(-base(residual))[:, None])
        return Examples(around.features(shown, residual, places), base(residual), there)

    number = draws * len(some)
    drawn = outliers.rows[_systematic(outliers.weights, number, generator)]
    at = torch.cat(
        [torch.randperm(len(table), generator=generator, device="cpu") for _ in range(-(-number // len(table)))]
    )
    at = at[:number]
    counted = 1 - _unchanged(values, expected, seen, weights, levels, drawn, at)
    fitted = fit_positive_unlabelled(
        examples(values[some], some),
        examples(values[drawn], at, simulated=True),
        counted * (outliers.share * len(some) / number),
        RIDGE / table.shape[1] ** 2,  # η₀ is wrong by so many times as much where channels err together
    )
    probability = torch.cat(
        [
            fitted.probability(examples(values[part], part))
            for part in torch.arange(len(table), device="cpu").split(AT_ONCE)
        ]
    )
    result = torch.zeros(y.numel(), dtype=torch.float32, device="cpu")
    result[table] = probability.float()[:, None] * seen
    return result.view(y.shape)


def _rows(shape: torch.Size, per_pixel: bool) -> Tensor:
    """Indices of the entries that are corrupted together, a row each."""
    entries = torch.arange(shape.numel(), device="cpu")
    return entries.view(shape[0], -1).T.contiguous() if per_pixel else entries[:, None]


class _Levels(NamedTuple):
    """The histogram of values."""

    low: Tensor
    width: Tensor
    number: int

    @classmethod
    def of(cls, values: Tensor, expected: Tensor, scale: float) -> "_Levels":
        """Levels as they are in 8 bits, over the range of what was observed and expected."""
        low = values.min()
        width = torch.tensor(scale / (LEVELS - 1), device="cpu")
        reach = torch.maximum(values.max(), expected.max()) - low
        return cls(low, width, min(MOST_LEVELS, max(LEVELS, int(reach / width) + 1)))

    def of_values(self, values: Tensor) -> Tensor:
        """The level of each."""
        return ((values - self.low) / self.width).round().long().clamp_(0, self.number - 1)


def _outliers(
    values: Tensor, expected: Tensor, seen: Tensor, clean: Tensor, some: Tensor, far: float, levels: _Levels
) -> _Outliers | None:
    """Estimate how many there are, and which values they have; ``None`` where there are none."""
    apart = (((values - expected).abs() > far) & seen)[some].any(dim=1) & seen[some].all(dim=1)
    rows = some[apart & (clean[some] < 1)]
    if not len(rows):
        return None
    weights = (1 - clean[rows]).double() / _rows_share_far(values[rows], expected, far)
    if values.shape[1] == 1:
        weights = _lifted(weights, values[rows, 0], expected, far, levels)
    whole = int(seen[some].all(dim=1).sum())
    share = min(float(weights.sum()) / whole, MOST_SHARE)
    counts = torch.zeros(levels.number, dtype=torch.float64, device="cpu")
    at = levels.of_values(values[rows])
    counts.index_add_(0, at.flatten(), weights[:, None].expand(at.shape).flatten())
    density = (counts + KNOWN / levels.number) / (counts.sum() + KNOWN)
    return _Outliers(share, rows, weights, density.float())


def _lifted(weights: Tensor, values: Tensor, expected: Tensor, far: float, levels: _Levels) -> Tensor:
    """Weights of outliers, one value each, that are larger where their c says little."""
    width = levels.width * levels.number / PARTS
    points = levels.low + width * (torch.arange(PARTS * POINTS, dtype=values.dtype, device="cpu") + 0.5) / POINTS
    ordered = expected.flatten().sort().values
    shares, further = (
        share_far(ordered, points, t, torch.float64).clamp_min(LEAST_FAR).view(PARTS, POINTS)
        for t in (far, (1 + SHIFT) * far)
    )
    at = ((values - levels.low) / width).long().clamp_(0, PARTS - 1)
    sums = torch.zeros(PARTS, dtype=weights.dtype, device="cpu").index_add_(0, at, weights)
    return weights * (lifted(sums, shares, further) / sums.clamp_min(1e-12))[at]


def _rows_share_far(values: Tensor, expected: Tensor, far: float) -> Tensor:
    """c of rows of values ``(r, g)``, float64: the share of the rows of estimates with one that is far."""
    if values.shape[1] == 1:
        return share_far(expected.flatten().sort().values, values[:, 0], far, torch.float64).clamp_min(LEAST_FAR)
    compared = expected[:: max(1, len(expected) // COMPARED)]
    parts = [((part[:, None] - compared).abs() > far).any(dim=2).double().mean(dim=1) for part in values.split(4096)]
    return torch.cat(parts).clamp_min(LEAST_FAR)


def _unchanged(
    values: Tensor, expected: Tensor, seen: Tensor, clean: Tensor, levels: _Levels, drawn: Tensor, at: Tensor
) -> Tensor:
    """The probability that the true values at the rows ``at`` are those of the rows ``drawn``."""
    own, estimates = levels.of_values(values), levels.of_values(expected)
    pairs = (own * levels.number + estimates)[seen]
    joint = torch.zeros(levels.number**2, dtype=torch.float32, device="cpu")
    joint.index_add_(0, pairs, clean[:, None].expand(seen.shape)[seen])
    joint = joint.view(levels.number, levels.number)
    share = joint / (joint.sum(dim=0, keepdim=True) + 1)  # M
    there, shown = seen[at], own[drawn]
    is_same = ((own[at] == shown) | ~there).all(dim=1)
    may_be = torch.where(there, share[shown, estimates[at]], 1).prod(dim=1)
    return torch.where(is_same, clean[at], 0) + (1 - clean[at]) * may_be


def _systematic(weights: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Draw ``number`` positions, each as often as its weight says but for one."""
    order = torch.randperm(len(weights), generator=generator, device="cpu")
    up_to = weights[order].cumsum(0)
    steps = (torch.arange(number, dtype=torch.float64, device="cpu") + 0.5) / number * up_to[-1]
    return order[torch.searchsorted(up_to, steps).clamp_max(len(weights) - 1)]


def _logit(share: float) -> float:
    return float(torch.logit(torch.tensor(share, dtype=torch.float64, device="cpu")))
