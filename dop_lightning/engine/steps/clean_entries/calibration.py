r"""Probability that an entry is corrupted, calibrated on the observation itself.

Outliers can be simulated, because their places are independent of their values. A value v that outliers have, put at a
place k drawn uniformly, is an example of an outlier: its distance from ``x̂_k``, its neighbours and the error of the
estimate around it have the distribution of outliers. The observation is a mixture of outliers and clean entries, and
the entries far from their estimate determine the share of outliers. A logistic regression from these two
(:mod:`~dop_lightning.engine.steps.clean_entries.unlabelled`) gives the probability of each entry. It needs no model of
clean entries.

*Number.* An outlier of value v is far from a share ``c(v) = #{k: |x̂_k − v| > t}/N`` of the estimates. With w, the
probability of being clean with which the image was recovered,

    ``π = 1/N·Σ{(1 − wᵢ)/c(yᵢ): |yᵢ − x̂ᵢ| > t}``,

and values are drawn with the terms of this sum as weights, increased where c is unreliable
(:mod:`~dop_lightning.engine.steps.clean_entries.lift`).

*No change.* An outlier that falls on an entry of the same value, as black on black, corrupts nothing. A draw of v at k
counts with ``u = 1 − w_k·[y_k = v] − (1 − w_k)·M(v, x̂_k)``, where M is the share of the clean entries with
that estimate whose value is v.

*Followed outliers.* An outlier near its estimate is fitted like a clean entry, and its distance is reduced by a factor
f: the ratio of the error of held-out clean entries to that of fitted clean entries. At fitted entries, the distance of
a draw is therefore multiplied by ``(1 − p + p·f)/f``, with the probability p = σ(η₀).

*Initial value.* ``η₀ = logit π + log q(v) − log t_ν((v − x̂)/σ)/σ`` with the density q of the drawn values, and the
local scale σ of :mod:`~dop_lightning.engine.steps.clean_entries.surroundings`. The regression corrects η₀ as far as the
counts are significant. It is fitted once more with the result instead of 1 − w.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.decorrelation import Decorrelation
from dop_lightning.engine.steps.clean_entries.lift import LEAST_FAR, PARTS, SHIFT, lifted, share_far
from dop_lightning.engine.steps.clean_entries.mixture import LEAST_SCALE
from dop_lightning.engine.steps.clean_entries.sorting import ascending
from dop_lightning.engine.steps.clean_entries.surroundings import Surroundings
from dop_lightning.engine.steps.clean_entries.unlabelled import Examples, fit_positive_unlabelled
from dop_lightning.engine.steps.clean_entries.values import FAR

ROUNDS = 2
"""Number of fits, each starting from the result of the one before."""

ROWS = 40_000
"""Maximum number of entries, or pixels, that the regression is fitted to."""

DRAWS = 3
"""Number of simulated outliers, in multiples of those rows."""

RIDGE = 50.0
"""λ: about this many entries of a kind must contradict η₀ to change it by 1."""

LEVELS = 256
"""Levels in which values are counted, as in 8 bits; more if the values exceed the range."""

MOST_LEVELS = 1024
"""Maximum number of levels; values beyond are counted in the last."""

KNOWN = 64.0
"""Pseudocount of uniform values in the density of the values of outliers."""

POINTS = 16
"""Number of values per part of the range at which c is evaluated."""

COMPARED = 512
"""Number of places that the values of a pixel are compared with to compute c."""

MOST_SHARE = 0.98
"""Upper bound of π."""

NEAR = 1.5
"""Distance from the estimate, in local scales, up to which a row counts as near."""

NEARLY_CERTAIN = 0.999
"""Probability of being clean above which near rows may be left as they are."""

AT_ONCE = 1 << 17
"""Number of rows whose probability is computed at once."""


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
    doubted_only: bool = False,
) -> Tensor:
    """Return the calibrated probability that each entry is corrupted, that is, that its value is not the true one.

    Args:
        y: the observation, ``(*m)``, finite.
        estimate: x̂, the observation without corruption, ``(*m)``.
        clean: w, the current probability that each entry is clean.
        held_out: bool ``(*m)``, entries that the estimate was not fitted to; ``None`` for none.
        scale: of the observation: the width of the range of its values, above 0.
        observed: bool ``(*m)``; ``None`` for all.
        per_pixel: whether the channels of a pixel are corrupted together, for images; they share one probability then.
        rounds: number of fits, each starting from the result of the one before, at least 1.
        draws: number of simulated outliers, in multiples of the fitted entries, at least 1.
        doubted_only: whether entries near their estimate that are almost certainly clean keep 1 − w. Where outliers are
            few this changes nothing noticeable, and takes a fraction of the time.

    Returns:
        ``(*m)``, float32 in [0, 1], on the CPU; 0 for unobserved entries. If no entry is far from its estimate and
        possibly an outlier, it is 1 − w without calibration.

    >>> generator = torch.Generator().manual_seed(0)
    >>> truth = torch.linspace(0.2, 0.8, 64).expand(1, 64, 64)
    >>> y = truth.clone()
    >>> y[:, ::2, ::3] = torch.rand(y[:, ::2, ::3].shape, generator=generator)
    >>> estimate = truth + 0.02 * torch.randn(y.shape, generator=generator)
    >>> probability = corruption_probability(y, estimate, clean=torch.ones_like(y))
    >>> bool((probability == 0).all())  # no entry is known to be an outlier
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
        calibrated = _calibrate(y, estimate, clean, scale, known, per_pixel, apart, draws, doubted_only)
        if calibrated is None:
            break
        result = calibrated
        clean = (1 - result) * known
    return result


class _Outliers(NamedTuple):
    """Estimated distribution of outliers.

    Attributes:
        share: π, of the rows.
        rows: rows from which values are drawn.
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
    doubted_only: bool,
) -> Tensor | None:
    """Fit once; ``None`` without outliers to learn from."""
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
    turn = None
    if per_pixel:
        complete = weights * seen.all(dim=1)
        turn = Decorrelation.of(values - expected, complete, LEAST_SCALE * scale)
        y, estimate = (turn.turned_image(image, known) for image in (y, estimate))
    around = Surroundings.of(y, estimate, clean, known, scale, per_pixel, held_out)

    def examples(shown: Tensor, at: Tensor, simulated: bool = False) -> Examples:
        """Put rows of values at rows of places."""
        places, there = table[at], seen[at]
        density = outliers.density[levels.of_values(shown)].log() - levels.width.log()
        volume = torch.zeros(len(shown), device="cpu")
        if turn is not None:
            shown, volume = turn.turned(shown, there)

        def base(residual: Tensor) -> Tensor:
            """Return η₀."""
            odds = ((density - around.log_clean(residual, places)) * there).sum(dim=1)
            return odds - volume + _logit(outliers.share)

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
        RIDGE / table.shape[1] ** 2,  # the errors of η₀ add up over channels that err together
    )
    rows = torch.arange(len(table), device="cpu")
    if doubted_only:
        distant = (values - expected).abs() > NEAR * around.scale[table]
        rows = rows[(distant & seen).any(dim=1) | (weights < NEARLY_CERTAIN)]
    result = ((1 - clean) * known).flatten()
    for part in rows.split(AT_ONCE):
        probability = fitted.probability(examples(values[part], part))
        result[table[part]] = probability.float()[:, None] * seen[part]
    return result.view(y.shape)


def _rows(shape: torch.Size, per_pixel: bool) -> Tensor:
    """Return the indices of the entries that are corrupted together, one row each."""
    entries = torch.arange(shape.numel(), device="cpu")
    return entries.view(shape[0], -1).T.contiguous() if per_pixel else entries[:, None]


class _Levels(NamedTuple):
    """Levels of the histogram of values."""

    low: Tensor
    width: Tensor
    number: int

    @classmethod
    def of(cls, values: Tensor, expected: Tensor, scale: float) -> "_Levels":
        """Return levels as wide as those of 8 bits, over the range of the values and estimates."""
        low = values.min()
        width = torch.tensor(scale / (LEVELS - 1), device="cpu")
        reach = torch.maximum(values.max(), expected.max()) - low
        return cls(low, width, min(MOST_LEVELS, max(LEVELS, int(reach / width) + 1)))

    def of_values(self, values: Tensor) -> Tensor:
        """Return the level of each value."""
        return ((values - self.low) / self.width).round().long().clamp_(0, self.number - 1)


def _outliers(
    values: Tensor, expected: Tensor, seen: Tensor, clean: Tensor, some: Tensor, far: float, levels: _Levels
) -> _Outliers | None:
    """Estimate the share and the values of outliers; ``None`` without any."""
    apart = (((values - expected).abs() > far) & seen)[some].any(dim=1) & seen[some].all(dim=1)
    rows = some[apart & (clean[some] < 1)]
    if not len(rows):
        return None
    weights = (1 - clean[rows]).double()
    if values.shape[1] == 1:
        ordered = ascending(expected)
        weights /= share_far(ordered, values[rows, 0], far, torch.float64).clamp_min(LEAST_FAR)
        weights = _lifted(weights, values[rows, 0], ordered, far, levels)
    else:
        weights /= _rows_share_far(values[rows], expected, far)
    whole = int(seen[some].all(dim=1).sum())
    share = min(float(weights.sum()) / whole, MOST_SHARE)
    counts = torch.zeros(levels.number, dtype=torch.float64, device="cpu")
    at = levels.of_values(values[rows])
    counts.index_add_(0, at.flatten(), weights[:, None].expand(at.shape).flatten())
    density = (counts + KNOWN / levels.number) / (counts.sum() + KNOWN)
    return _Outliers(share, rows, weights, density.float())


def _lifted(weights: Tensor, values: Tensor, ordered: Tensor, far: float, levels: _Levels) -> Tensor:
    """Increase the weights of outliers, one value each, where c is unreliable; ``ordered`` are the estimates."""
    width = levels.width * levels.number / PARTS
    points = levels.low + width * (torch.arange(PARTS * POINTS, dtype=values.dtype, device="cpu") + 0.5) / POINTS
    shares, further = (
        share_far(ordered, points, t, torch.float64).clamp_min(LEAST_FAR).view(PARTS, POINTS)
        for t in (far, (1 + SHIFT) * far)
    )
    at = ((values - levels.low) / width).long().clamp_(0, PARTS - 1)
    sums = torch.zeros(PARTS, dtype=weights.dtype, device="cpu").index_add_(0, at, weights)
    return weights * (lifted(sums, shares, further) / sums.clamp_min(1e-12))[at]


def _rows_share_far(values: Tensor, expected: Tensor, far: float) -> Tensor:
    """Return c of rows of values ``(r, g)``, float64: the share of the rows of estimates with one far from them."""
    compared = expected[:: max(1, len(expected) // COMPARED)]
    parts = [((part[:, None] - compared).abs() > far).any(dim=2).double().mean(dim=1) for part in values.split(4096)]
    return torch.cat(parts).clamp_min(LEAST_FAR)


def _unchanged(
    values: Tensor, expected: Tensor, seen: Tensor, clean: Tensor, levels: _Levels, drawn: Tensor, at: Tensor
) -> Tensor:
    """Return the probability that the true values at the rows ``at`` are those of the rows ``drawn``."""
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
    """Draw ``number`` positions by systematic sampling: each in proportion to its weight, to within one."""
    order = torch.randperm(len(weights), generator=generator, device="cpu")
    up_to = weights[order].cumsum(0)
    steps = (torch.arange(number, dtype=torch.float64, device="cpu") + 0.5) / number * up_to[-1]
    return order[torch.searchsorted(up_to, steps).clamp_max(len(weights) - 1)]


def _logit(share: float) -> float:
    return float(torch.logit(torch.tensor(share, dtype=torch.float64, device="cpu")))
