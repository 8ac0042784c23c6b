r"""Which entries are corrupted: a mixture of clean and outlying entries, fitted to entries that were held out.

Of an entry with the observed value y and the estimate x̂, whose surroundings are of the class b of activity,

    clean:    ``k(y)·t_ν((y − x̂)/σ_b)/σ_b``, Student's t with ν = 3, times the pardon k of the value y,
    missed:   ``ε_b·m(y)``, where y is far from x̂: a clean entry whose estimate is wrong by much,
    outlying: ``q(y)``, whatever x̂,

with q, m, k of :mod:`dop_lightning.engine.steps.clean_entries.values`. σ_b comes from expectation maximisation. It must
be fitted to entries that the estimate has not been fitted to: those it was fitted to it explains too well, so that σ
shrinks to nothing and each clean entry at an edge is called an outlier.

The heavy tails are those of images: a network is wrong at a few edges by much. How often it is, ε_b, is counted: it is
the share of the far entries that their places say to be clean.
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

LEAST_SCALE = 1 / 256
"""σ is at least this share of the range: a grey level of 8 bits."""

LEAST_SHARE = 1e-4
"""Neither clean nor corrupted entries are fewer, where their share is fitted."""

NEVER = -60.0
"""Logarithm of a density that is next to none."""


@dataclass(frozen=True)
class Entries:
    """What the mixture knows of entries, each of one dimension; with groups, those of a group follow each other.

    Attributes:
        residual: ``x̂ − y``.
        classes: b.
        outlying: log q(y) of each, with what its place says: the logarithm of what speaks for an outlier.
        missed: log m(y) where it is far, :data:`NEVER` where it is not.
        pardon: log k(y).
        groups: entries that are corrupted together (the channels of a pixel), at least 1.
        seen: bool, which entries of the groups were observed; ``None`` where all were. Others have no say.
    """

    residual: Tensor
    classes: Tensor
    outlying: Tensor
    missed: Tensor
    pardon: Tensor
    groups: int = 1
    seen: Tensor | None = None

    def of(self, which: Tensor) -> "Entries":
        """Those of a boolean mask, of whole groups."""
        return Entries(
            self.residual[which],
            self.classes[which],
            self.outlying[which],
            self.missed[which],
            self.pardon[which],
            self.groups,
            None if self.seen is None else self.seen[which],
        )


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture.

    Attributes:
        share: of the corrupted entries, a tensor without dimensions, in (0, 1).
        missed: ε_b of each class, ``(classes,)``.
        scales: σ_b of each class, ``(classes,)``.
    """

    share: Tensor
    missed: Tensor
    scales: Tensor

    def _near(self, entries: Entries) -> Tensor:
        return log_student(entries.residual, self.scales[entries.classes]) + entries.pardon

    def _clean(self, entries: Entries, near: Tensor) -> Tensor:
        return torch.logaddexp(near, self.missed.log()[entries.classes] + entries.missed)

    def clean(self, entries: Entries) -> Tensor:
        """The probability of each entry that it is clean; 0 where it was not observed."""
        return self._clean_share(entries, self._clean(entries, self._near(entries)))

    def _clean_share(self, entries: Entries, clean: Tensor) -> Tensor:
        odds = pooled(clean - entries.outlying, entries.groups, entries.seen)
        probability = torch.sigmoid(odds + (1 - self.share).log() - self.share.log())
        return probability if entries.seen is None else probability * entries.seen

    def refit(self, entries: Entries, least_scale: float, share_too: bool) -> "Mixture":
        """σ_b by expectation maximisation; the other parts stay.

        Args:
            entries: held-out ones.
            least_scale: σ is at least this, above 0.
            share_too: whether the share of the outliers is fitted as well: not where clean entries have values and
                distances that outliers have, which leaves it open.
        """
        fitted, square = self, entries.residual.square()
        for _ in range(ROUNDS):
            near = fitted._near(entries)
            clean = fitted._clean(entries, near)
            probable = fitted._clean_share(entries, clean)
            share = (1 - probable if entries.seen is None else (1 - probable)[entries.seen]).mean()
            weights = probable * torch.exp(near - clean)
            scale = fitted.scales[entries.classes]
            # a normal distribution of random scale: far entries count less in its fit
            counted = weights * (DEGREES + 1) / (DEGREES + square / scale.square())
            sums = torch.zeros(2, len(fitted.scales), dtype=square.dtype, device=square.device)
            sums[0].index_add_(0, entries.classes, counted * square)
            sums[1].index_add_(0, entries.classes, weights)
            common = sums[0].sum() / sums[1].sum().clamp_min(1e-12)
            scales = ((sums[0] + PRIOR * common) / (sums[1] + PRIOR)).sqrt().clamp_min(least_scale)
            fitted = Mixture(
                share.clamp(LEAST_SHARE, 1 - LEAST_SHARE) if share_too else self.share, self.missed, scales
            )
        return fitted


def fit_mixture(
    residual: Tensor,
    classes: Tensor,
    density: Tensor,
    clean: Tensor,
    least_scale: float,
    groups: int = 1,
    seen: Tensor | None = None,
) -> Mixture:
    """Fit the share of the outliers and σ_b, where all entries that are far from their estimate are outliers.

    Args:
        residual: ``x̂ − y`` of the held-out entries, one dimension; with groups, the entries of a group follow each
            other.
        classes: b of each.
        density: q(y) of each.
        clean: what is known of each, in [0, 1]: where the fit starts.
        least_scale: σ is at least this, above 0.
        groups: entries that are corrupted together (the channels of a pixel), at least 1.
        seen: bool, which entries of the groups were observed; ``None`` where all were. Others have no say.
    """
    nothing = torch.zeros_like(residual)
    entries = Entries(residual, classes, density.log(), nothing + NEVER, nothing, groups, seen)
    known = clean if seen is None else clean * seen
    scale = ((known * residual.square()).sum() / known.sum().clamp_min(1e-12)).sqrt().clamp_min(1e-6)
    share = (1 - known if seen is None else (1 - known)[seen]).mean().clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    number = int(classes.max()) + 1
    begun = Mixture(share, torch.full_like(scale.expand(number), LEAST_SHARE), scale.expand(number))
    return begun.refit(entries, least_scale, share_too=True)


def pooled(odds: Tensor, groups: int, seen: Tensor | None = None) -> Tensor:
    """The sum of the log odds of each group at all of its entries; see :class:`Entries`.

    >>> pooled(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2, torch.tensor([True, True, True, False]))
    tensor([3., 3., 3., 3.])
    """
    odds = odds if seen is None else odds.masked_fill(~seen, 0)
    return odds.view(-1, groups).sum(dim=1, keepdim=True).expand(-1, groups).reshape(-1)


def log_student(residual: Tensor, scale: Tensor) -> Tensor:
    """Logarithm of the density of ``scale·t_ν``."""
    constant = math.lgamma((DEGREES + 1) / 2) - math.lgamma(DEGREES / 2) - 0.5 * math.log(DEGREES * math.pi)
    return constant - scale.log() - (DEGREES + 1) / 2 * torch.log1p((residual / scale).square() / DEGREES)
