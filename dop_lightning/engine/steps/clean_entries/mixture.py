r"""Which entries are corrupted: a mixture of clean and outlying entries, fitted to entries that were held out.

Of an entry with the observed value y and the estimate x̂,

    clean:    ``p(y | x̂) = t_ν((y − x̂)/σ_b)/σ_b``, Student's t with ν = 3, σ_b the scale of its class b of activity,
    corrupted: ``q(y)``, whatever x̂ (see :mod:`dop_lightning.engine.steps.clean_entries.values`),

and a share π is corrupted. π and σ_b come from expectation maximisation. They must be fitted to entries that the
estimate has not been fitted to: those it was fitted to it explains too well, so that σ shrinks to nothing and each
clean entry at an edge is called an outlier.

The heavy tails are those of images: a network is wrong at a few edges by much.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

DEGREES = 3.0
"""ν."""

ROUNDS = 30
"""Of expectation maximisation."""

PRIOR = 5.0
"""A class is fitted as if so many entries with the common scale belonged to it besides."""

LEAST_SHARE = 1e-4
"""Neither clean nor corrupted entries are fewer."""

LEAST_SCALE = 1 / 256
"""σ is at least this share of the range: a grey level of 8 bits."""


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture.

    Attributes:
        corrupted: π, a tensor without dimensions.
        scales: σ_b of each class, ``(classes,)``.
    """

    corrupted: Tensor
    scales: Tensor

    def log_odds(self, residual: Tensor, classes: Tensor, density: Tensor) -> Tensor:
        """``log p(y | x̂) − log q(y)`` of each entry: above 0 where its value speaks for clean.

        Args:
            residual: ``x̂ − y``.
            classes: b of each entry.
            density: q(y) of each entry.
        """
        return _log_student(residual, self.scales[classes]) - density.log()

    def prior_log_odds(self) -> Tensor:
        """``log((1 − π)/π)``."""
        return (1 - self.corrupted).log() - self.corrupted.log()


def fit_mixture(
    residual: Tensor,
    classes: Tensor,
    density: Tensor,
    clean: Tensor,
    least_scale: float,
    groups: int = 1,
    seen: Tensor | None = None,
) -> Mixture:
    """Fit π and σ by expectation maximisation.

    Args:
        residual: ``x̂ − y`` of the held-out entries, one dimension; with groups, the entries of a group follow each
            other.
        classes: b of each.
        density: q(y) of each.
        clean: what is known of each, in [0, 1]: where it starts.
        least_scale: σ is at least this, above 0.
        groups: entries that are corrupted together (the channels of a pixel), at least 1.
        seen: bool, which entries of the groups were observed; ``None`` where all were. Others have no say.
    """
    number = int(classes.max()) + 1
    square, log_q = residual.square(), density.log()
    weights = clean if seen is None else clean * seen
    scale = _scale(square, weights).expand(number).clone()
    share = _share(weights, seen)
    for _ in range(ROUNDS):
        odds = _log_student(residual, scale[classes]) - log_q
        weights = torch.sigmoid(pooled(odds, groups, seen) + (1 - share).log() - share.log())
        weights = weights if seen is None else weights * seen
        share = _share(weights, seen)
        # a normal distribution of random scale: far entries count less in its fit
        counted = weights * (DEGREES + 1) / (DEGREES + square / scale[classes].square())
        sums = torch.zeros(2, number, dtype=residual.dtype, device=residual.device)
        sums[0].index_add_(0, classes, counted * square)
        sums[1].index_add_(0, classes, weights)
        common = sums[0].sum() / sums[1].sum().clamp_min(1e-12)
        scale = ((sums[0] + PRIOR * common) / (sums[1] + PRIOR)).sqrt().clamp_min(least_scale)
    return Mixture(share, scale)


def pooled(odds: Tensor, groups: int, seen: Tensor | None = None) -> Tensor:
    """The sum of the log odds of each group at all of its entries; see :func:`fit_mixture`.

    >>> pooled(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2, torch.tensor([True, True, True, False]))
    tensor([3., 3., 3., 3.])
    """
    odds = odds if seen is None else odds.masked_fill(~seen, 0)
    return odds.view(-1, groups).sum(dim=1, keepdim=True).expand(-1, groups).reshape(-1)


def _scale(square: Tensor, weights: Tensor) -> Tensor:
    return ((weights * square).sum() / weights.sum().clamp_min(1e-12)).sqrt().clamp_min(1e-6)


def _share(weights: Tensor, seen: Tensor | None) -> Tensor:
    corrupted = 1 - weights
    return (corrupted if seen is None else corrupted[seen]).mean().clamp(LEAST_SHARE, 1 - LEAST_SHARE)


def _log_student(residual: Tensor, scale: Tensor) -> Tensor:
    """Logarithm of the density of ``scale·t_ν``."""
    constant = math.lgamma((DEGREES + 1) / 2) - math.lgamma(DEGREES / 2) - 0.5 * math.log(DEGREES * math.pi)
    return constant - scale.log() - (DEGREES + 1) / 2 * torch.log1p((residual / scale).square() / DEGREES)
