r"""Probability that an entry is corrupted, calibrated on the observation itself.

Outliers can be simulated, because their positions are independent of their values. To simulate one, take a value v
from the distribution of outlier values and place it at a position k drawn uniformly. Its distance from ``x̂_k``, its
neighbours and the error of the estimate around it then have the distribution of outliers. The observation is a mixture
of outliers and clean entries. The fraction of outliers is estimated from the entries far from their estimate. A
logistic regression on the simulated outliers and the observation
(:mod:`~dop_lightning.engine.steps.clean_entries.unlabelled`) yields the probability of each entry. It needs no model of
clean entries.

*Number of outliers.* An outlier of value v is far from a fraction ``c(v) = #{k: |x̂_k − v| > t}/N`` of the estimates.
Let w be the probability that an entry is clean, as used to recover the image. Then

    ``π = 1/N·Σ{(1 − wᵢ)/c(yᵢ): |yᵢ − x̂ᵢ| > t}``,

The terms of this sum are the weights with which values are drawn. They are increased where c is unreliable
(:mod:`~dop_lightning.engine.steps.clean_entries.lift`).

*Outliers without effect.* An outlier that equals the true value, such as black on black, does not change the entry.
A draw of v at k therefore has weight ``u = 1 − w_k·[y_k = v] − (1 − w_k)·M(v, x̂_k)``, where M is the fraction of clean
entries with value v among those with this estimate.

*Fitted outliers.* The estimate fits an outlier close to it as if it were clean. This reduces the distance by a factor
f, the ratio of the error of held-out clean entries to that of fitted clean entries. At fitted entries, the distance of
a draw is therefore multiplied by ``(1 − p + p·f)/f``, with the probability p = σ(η₀).

*Initial value.* ``η₀ = logit π + log q(v) − log t_ν((v − x̂)/σ)/σ`` with the density q of the drawn values and the
local scale σ of :mod:`~dop_lightning.engine.steps.clean_entries.surroundings`. The regression corrects η₀ only as far
as the counts are significant. It is fitted a second time with its result instead of 1 − w.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.decorrelation import Decorrelation
from dop_lightning.engine.steps.clean_entries.lift import MIN_FAR_FRACTION, PARTS, SHIFT, lifted, share_far
from dop_lightning.engine.steps.clean_entries.mixture import MIN_SCALE
from dop_lightning.engine.steps.clean_entries.sorting import ascending
from dop_lightning.engine.steps.clean_entries.surroundings import Surroundings
from dop_lightning.engine.steps.clean_entries.unlabelled import Examples, fit_positive_unlabelled
from dop_lightning.engine.steps.clean_entries.values import FAR_DISTANCE

ROUNDS = 2
"""Number of fits, each initialised with the result of the previous fit."""

ROWS = 40_000
"""Maximum number of entries (pixels, if corruption is per pixel) to which the regression is fitted."""

SIMULATED_RATIO = 3
"""Number of simulated outliers, as a multiple of the number of fitted rows."""

RIDGE = 50.0
"""Ridge penalty λ. About this many entries with the same features must contradict η₀ to change it by 1."""

LEVELS = 256
"""Number of histogram levels for values, as in 8-bit images; more are used if values exceed the range."""

MAX_LEVELS = 1024
"""Maximum number of levels; larger values are counted in the last level."""

KNOWN = 64.0
"""Pseudocount of the uniform distribution in the density of outlier values."""

POINTS = 16
"""Number of values at which c is evaluated in each part of the range."""

COMPARED = 512
"""Number of pixels with which the values of a pixel are compared to compute c."""

MAX_OUTLIER_FRACTION = 0.98
"""Upper bound of π."""

MAX_NEAR_DISTANCE = 1.5
"""Distance from the estimate, in local scales, up to which a row counts as near."""

MIN_CERTAIN_PROBABILITY = 0.999
"""Probability of being clean above which the calibration of near rows may be skipped."""

AT_ONCE = 1 << 17
"""Chunk size, in rows, for the evaluation of the probabilities."""


def corruption_probability(
    y: Tensor,
    estimate: Tensor,
    clean: Tensor,
    held_out: Tensor | None = None,
    scale: float = 1.0,
    observed: Tensor | None = None,
    per_pixel: bool = False,
    rounds: int = ROUNDS,
    draws: int = SIMULATED_RATIO,
    doubted_only: bool = False,
    distance: float = FAR_DISTANCE,
) -> Tensor:
    """Return the calibrated probability that each entry is corrupted, that is, differs from its true value.

    Args:
        y: observation, ``(*m)``, finite.
        estimate: x̂, estimate of the uncorrupted observation, ``(*m)``.
        clean: w, current probability that each entry is clean, ``(*m)``, in [0, 1].
        held_out: bool ``(*m)``, entries to which the estimate was not fitted; ``None`` if all were fitted.
        scale: scale of the observation (width of the range of its values), positive.
        observed: bool ``(*m)``; ``None`` if all entries are observed.
        per_pixel: whether the channels of a pixel are corrupted together (images only). The channels then share one
            probability.
        rounds: number of fits, each initialised with the result of the previous fit, at least 1.
        draws: number of simulated outliers, as a multiple of the number of fitted rows, at least 1.
        doubted_only: whether to skip entries that are near their estimate and almost certainly clean; they keep 1 − w.
            With few outliers, this is much faster and does not change the result noticeably.
        distance: distance from the estimate beyond which entries are far, in scales of the observation, positive.

    Returns:
        ``(*m)``, float32 in [0, 1], on the CPU; 0 for unobserved entries. If no possible outlier is far from its
        estimate, the result is 1 − w without calibration.

    >>> generator = torch.Generator().manual_seed(0)
    >>> truth = torch.linspace(0.2, 0.8, 64).expand(1, 64, 64)
    >>> y = truth.clone()
    >>> y[:, ::2, ::3] = torch.rand(y[:, ::2, ::3].shape, generator=generator)
    >>> estimate = truth + 0.02 * torch.randn(y.shape, generator=generator)
    >>> probability = corruption_probability(y, estimate, clean=torch.ones_like(y))
    >>> bool((probability == 0).all())  # no entry can be an outlier
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
        calibrated = _calibrate(y, estimate, clean, scale, known, per_pixel, apart, draws, doubted_only, distance)
        if calibrated is None:
            break
        result = calibrated
        clean = (1 - result) * known
    return result


class _Outliers(NamedTuple):
    """Estimated distribution of outliers.

    Attributes:
        share: π, the fraction of rows that are outliers.
        rows: indices of the rows from which values are drawn.
        weights: sampling weights of these rows, with a positive sum.
        density: density of the values per level, with sum 1.
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
    doubted_only: bool,
    distance: float,
) -> Tensor | None:
    """Run one calibration fit. Return ``None`` if there are no outliers to fit."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    table = _group_indices(y.shape, per_pixel)
    table = table[known.flatten()[table].any(dim=1)]
    if not len(table):
        return None
    values, expected, seen = (tensor.flatten()[table] for tensor in (y, estimate, known))
    weights = clean.flatten()[table].masked_fill(~seen, 1).amin(dim=1)  # w of a row
    levels = _Levels.of(values[seen], expected, scale)
    some = torch.randperm(len(table), generator=generator, device="cpu")[:ROWS]
    outliers = _estimate_outliers(values, expected, seen, weights, some, distance * scale, levels)
    if outliers is None:
        return None
    turn = None
    if per_pixel:
        complete = weights * seen.all(dim=1)
        turn = Decorrelation.of(values - expected, complete, MIN_SCALE * scale)
        y, estimate = (turn.turned_image(image, known) for image in (y, estimate))
    around = Surroundings.of(y, estimate, clean, known, scale, per_pixel, held_out)

    def examples(shown: Tensor, at: Tensor, simulated: bool = False) -> Examples:
        """Return the features of rows of values placed at rows of positions."""
        places, known = table[at], seen[at]
        density = outliers.density[levels.of_values(shown)].log() - levels.width.log()
        volume = torch.zeros(len(shown), device="cpu")
        if turn is not None:
            shown, volume = turn.turned(shown, known)

        def base(residual: Tensor) -> Tensor:
            """Return η₀."""
            odds = ((density - around.log_clean(residual, places)) * known).sum(dim=1)
            return odds - volume + _logit(outliers.share)

        residual = shown - around.estimate[places]
        if simulated:
            residual = residual * (1 - around.pull[places] * torch.sigmoid(-base(residual))[:, None])
        return Examples(around.features(shown, residual, places), base(residual), known)

    number = draws * len(some)
    drawn = outliers.rows[_systematic_sample(outliers.weights, number, generator)]
    at = torch.cat(
        [torch.randperm(len(table), generator=generator, device="cpu") for _ in range(-(-number // len(table)))]
    )
    at = at[:number]
    counted = 1 - _probability_unchanged(values, expected, seen, weights, levels, drawn, at)
    fitted = fit_positive_unlabelled(
        examples(values[some], some),
        examples(values[drawn], at, simulated=True),
        counted * (outliers.share * len(some) / number),
        RIDGE / table.shape[1] ** 2,  # errors of η₀ add up over channels with correlated errors
    )
    rows = torch.arange(len(table), device="cpu")
    if doubted_only:
        distant = (values - expected).abs() > MAX_NEAR_DISTANCE * around.scale[table]
        rows = rows[(distant & seen).any(dim=1) | (weights < MIN_CERTAIN_PROBABILITY)]
    result = ((1 - clean) * known).flatten()
    for part in rows.split(AT_ONCE):
        probability = fitted.probability(examples(values[part], part))
        result[table[part]] = probability.float()[:, None] * seen[part]
    return result.view(y.shape)


def _group_indices(shape: torch.Size, per_pixel: bool) -> Tensor:
    """Return the indices of entries, one row per group of entries that are corrupted together."""
    entries = torch.arange(shape.numel(), device="cpu")
    return entries.view(shape[0], -1).T.contiguous() if per_pixel else entries[:, None]


class _Levels(NamedTuple):
    """Levels of the histogram of values: lowest value, level width and number of levels."""

    low: Tensor
    width: Tensor
    number: int

    @classmethod
    def of(cls, values: Tensor, expected: Tensor, scale: float) -> "_Levels":
        """Return levels of the width of 8-bit levels that cover the range of the values and estimates."""
        low = values.min()
        width = torch.tensor(scale / (LEVELS - 1), device="cpu")
        reach = torch.maximum(values.max(), expected.max()) - low
        return cls(low, width, min(MAX_LEVELS, max(LEVELS, int(reach / width) + 1)))

    def of_values(self, values: Tensor) -> Tensor:
        """Return the level of each value."""
        return ((values - self.low) / self.width).round().long().clamp_(0, self.number - 1)


def _estimate_outliers(
    values: Tensor, expected: Tensor, seen: Tensor, clean: Tensor, some: Tensor, far: float, levels: _Levels
) -> _Outliers | None:
    """Estimate the fraction and the values of outliers. Return ``None`` if there are none."""
    apart = (((values - expected).abs() > far) & seen)[some].any(dim=1) & seen[some].all(dim=1)
    rows = some[apart & (clean[some] < 1)]
    if not len(rows):
        return None
    weights = (1 - clean[rows]).double()
    if values.shape[1] == 1:
        ordered = ascending(expected)
        weights /= share_far(ordered, values[rows, 0], far, torch.float64).clamp_min(MIN_FAR_FRACTION)
        weights = _raise_weights(weights, values[rows, 0], ordered, far, levels)
    else:
        weights /= _row_fractions_far(values[rows], expected, far)
    whole = int(seen[some].all(dim=1).sum())
    share = min(float(weights.sum()) / whole, MAX_OUTLIER_FRACTION)
    counts = torch.zeros(levels.number, dtype=torch.float64, device="cpu")
    at = levels.of_values(values[rows])
    counts.index_add_(0, at.flatten(), weights[:, None].expand(at.shape).flatten())
    density = (counts + KNOWN / levels.number) / (counts.sum() + KNOWN)
    return _Outliers(share, rows, weights, density.float())


def _raise_weights(weights: Tensor, values: Tensor, ordered: Tensor, far: float, levels: _Levels) -> Tensor:
    """Increase the weights of single-value outliers where c is unreliable; ``ordered`` are the sorted estimates."""
    width = levels.width * levels.number / PARTS
    points = levels.low + width * (torch.arange(PARTS * POINTS, dtype=values.dtype, device="cpu") + 0.5) / POINTS
    shares, further = (
        share_far(ordered, points, t, torch.float64).clamp_min(MIN_FAR_FRACTION).view(PARTS, POINTS)
        for t in (far, (1 + SHIFT) * far)
    )
    at = ((values - levels.low) / width).long().clamp_(0, PARTS - 1)
    sums = torch.zeros(PARTS, dtype=weights.dtype, device="cpu").index_add_(0, at, weights)
    return weights * (lifted(sums, shares, further) / sums.clamp_min(1e-12))[at]


def _row_fractions_far(values: Tensor, expected: Tensor, far: float) -> Tensor:
    """Return c of rows of values ``(r, g)``, float64.

    A row of estimates is far from a row of values if it differs by more than ``far`` in at least one channel.
    """
    compared = expected[:: max(1, len(expected) // COMPARED)]
    parts = [((part[:, None] - compared).abs() > far).any(dim=2).double().mean(dim=1) for part in values.split(4096)]
    return torch.cat(parts).clamp_min(MIN_FAR_FRACTION)


def _probability_unchanged(
    values: Tensor, expected: Tensor, seen: Tensor, clean: Tensor, levels: _Levels, drawn: Tensor, at: Tensor
) -> Tensor:
    """Return the probability that the true values of the rows ``at`` equal the values of the rows ``drawn``."""
    own, estimates = levels.of_values(values), levels.of_values(expected)
    pairs = (own * levels.number + estimates)[seen]
    joint = torch.zeros(levels.number**2, dtype=torch.float32, device="cpu")
    joint.index_add_(0, pairs, clean[:, None].expand(seen.shape)[seen])
    joint = joint.view(levels.number, levels.number)
    share = joint / (joint.sum(dim=0, keepdim=True) + 1)  # M
    known, shown = seen[at], own[drawn]
    is_same = ((own[at] == shown) | ~known).all(dim=1)
    may_be = torch.where(known, share[shown, estimates[at]], 1).prod(dim=1)
    return torch.where(is_same, clean[at], 0) + (1 - clean[at]) * may_be


def _systematic_sample(weights: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Draw ``number`` indices by systematic sampling: each count differs from its expectation by less than one."""
    order = torch.randperm(len(weights), generator=generator, device="cpu")
    up_to = weights[order].cumsum(0)
    steps = (torch.arange(number, dtype=torch.float64, device="cpu") + 0.5) / number * up_to[-1]
    return order[torch.searchsorted(up_to, steps).clamp_max(len(weights) - 1)]


def _logit(share: float) -> float:
    return float(torch.logit(torch.tensor(share, dtype=torch.float64, device="cpu")))
