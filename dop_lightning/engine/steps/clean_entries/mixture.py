r"""Mixture of clean and outlying entries, fitted to held-out entries.

For an entry with the observed value y and the estimate x̂, in surroundings of activity class b, the components are

    clean:    ``k(y)·t_ν((y − x̂)/σ_b)/σ_b``, Student's t with ν = 3, times the pardon k of the value y,
    missed:   ``ε_b·m(y)``, if y is far from x̂: a clean entry with a large error of its estimate,
    outlying: ``q(y)``, independent of x̂,

with q, m, k of :mod:`dop_lightning.engine.steps.clean_entries.values`. σ_b is fitted by expectation maximisation to
entries that were held out when the estimate was fitted. The estimate overfits the other entries: with them, σ would
shrink toward 0, and every clean entry at an edge would count as an outlier.

Images need the heavy tails, because a network has large errors at a few edges. The frequency ε_b of such errors is
counted as the fraction of far entries that are clean according to their places.
"""

import math
from ctypes import CDLL, c_double, c_float, c_int, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.compiled import kernels_for
from dop_lightning.engine.steps.clean_entries.indices import indices

DEGREES = 3.0
"""ν."""

STUDENT_DENSITY = math.gamma((DEGREES + 1) / 2) / math.gamma(DEGREES / 2) / math.sqrt(DEGREES * math.pi)
"""Density of t_ν at 0. The compiled kernel, ``mixture.cpp``, supports only ν = 3."""

ROUNDS = 30
"""Maximum number of iterations of expectation maximisation."""

CONVERGENCE_TOLERANCE = 1e-4
"""Expectation maximisation stops when the relative change of every parameter is at most this."""

PRIOR = 5.0
"""Pseudocount that shrinks the scale of each class toward the common scale."""

MIN_SCALE = 1 / 256
"""Lower bound of σ as a fraction of the range: one grey level of 8 bits."""

MIN_COMPONENT_FRACTION = 1e-4
"""Lower bound of the fitted fractions of clean and of corrupted entries."""

MIN_LOG_DENSITY = -60.0
"""Log density that counts as negligible."""

CHUNK = 1 << 16
"""Number of entries that are classified at a time, so that they stay in the cache."""


@dataclass(frozen=True)
class Entries:
    """Data of the mixture, one-dimensional tensors in which the entries of a group are consecutive.

    Attributes:
        residual: ``x̂ − y``.
        classes: b.
        outlying: log q(y) of each entry, plus the evidence of its place.
        missed: log m(y) for far entries, :data:`MIN_LOG_DENSITY` for others.
        pardon: log k(y).
        groups: number of entries that are corrupted together (the channels of a pixel), at least 1.
        seen: bool, the observed entries; ``None`` if all are observed. Other entries are ignored.
    """

    residual: Tensor
    classes: Tensor
    outlying: Tensor
    missed: Tensor
    pardon: Tensor
    groups: int = 1
    seen: Tensor | None = None

    def of(self, which: Tensor) -> "Entries":
        """Select whole groups by a boolean mask."""
        return self.part(indices(which))  # indices, once for all tensors

    def part(self, at: Tensor | slice) -> "Entries":
        """Select whole groups by indices or a slice."""
        return Entries(
            self.residual[at],
            self.classes[at],
            self.outlying[at],
            self.missed[at],
            self.pardon[at],
            self.groups,
            None if self.seen is None else self.seen[at],
        )


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture.

    Attributes:
        share: fraction of corrupted entries, a scalar tensor in (0, 1).
        missed: ε_b of each class, ``(classes,)``.
        scales: σ_b of each class, ``(classes,)``.
    """

    share: Tensor
    missed: Tensor
    scales: Tensor

    def _near_log_density(self, entries: Entries) -> Tensor:
        return log_student(entries.residual, self.scales.index_select(0, entries.classes)) + entries.pardon

    def _clean_log_density(self, entries: Entries, near: Tensor) -> Tensor:
        return torch.logaddexp(near, self.missed.log().index_select(0, entries.classes) + entries.missed)

    def clean(self, entries: Entries) -> Tensor:
        """Return the probability that each entry is clean; 0 if it was not observed."""
        found = torch.empty_like(entries.residual)
        step = max(1, CHUNK // entries.groups) * entries.groups
        for begin in range(0, len(found), step):
            part = entries.part(slice(begin, begin + step))
            density = self._clean_log_density(part, self._near_log_density(part))
            found[begin : begin + step] = self._clean_probability(part, density)
        return found

    def _clean_probability(self, entries: Entries, clean: Tensor) -> Tensor:
        odds = pooled(clean - entries.outlying, entries.groups, entries.seen)
        probability = torch.sigmoid(odds + (1 - self.share).log() - self.share.log())
        return probability if entries.seen is None else probability * entries.seen

    def refit(self, entries: Entries, least_scale: float, share_too: bool) -> "Mixture":
        """Fit σ_b, and optionally the fraction of outliers, by expectation maximisation.

        Args:
            entries: held-out entries.
            least_scale: lower bound of σ, above 0.
            share_too: whether to fit the fraction of outliers as well. It is not identifiable if clean entries have the
                values and distances of outliers.
        """
        floats = (entries.residual, entries.outlying, entries.missed, entries.pardon, self.share, self.scales)
        if (kernels := kernels_for(*floats, self.missed)) is not None:
            return self._refit_compiled(kernels, entries, least_scale, share_too)
        return self._refit_plain(entries, least_scale, share_too)

    def _refit_compiled(self, kernels: CDLL, entries: Entries, least_scale: float, share_too: bool) -> "Mixture":
        """Fit with one call instead of dozens of operations per iteration; the result is the same up to rounding."""
        fitted = Mixture(self.share.clone(), self.missed, self.scales.contiguous().clone())
        seen = None if entries.seen is None else entries.seen.contiguous()
        classes, missed = entries.classes.to(torch.int64).contiguous(), self.missed.contiguous()
        floats = [each.contiguous() for each in (entries.residual, entries.outlying, entries.missed, entries.pardon)]
        kernels.refit_mixture(
            c_void_p(floats[0].data_ptr()),
            c_void_p(classes.data_ptr()),
            *(c_void_p(each.data_ptr()) for each in floats[1:]),
            c_void_p(None if seen is None else seen.data_ptr()),
            c_int64(len(classes)),
            c_int64(entries.groups),
            c_void_p(missed.data_ptr()),
            c_void_p(fitted.scales.data_ptr()),
            c_int64(len(missed)),
            c_void_p(fitted.share.data_ptr()),
            c_int(share_too),
            c_float(least_scale),
            *(c_double(each) for each in (STUDENT_DENSITY, PRIOR, MIN_COMPONENT_FRACTION, CONVERGENCE_TOLERANCE)),
            c_int(ROUNDS),
        )
        return fitted

    def _refit_plain(self, entries: Entries, least_scale: float, share_too: bool) -> "Mixture":
        fitted, square = self, entries.residual.square()
        for _ in range(ROUNDS):
            near = fitted._near_log_density(entries)
            clean = fitted._clean_log_density(entries, near)
            probable = fitted._clean_probability(entries, clean)
            share = (1 - probable if entries.seen is None else (1 - probable)[entries.seen]).mean()
            weights = probable * torch.exp(near - clean)
            scale = fitted.scales.index_select(0, entries.classes)
            # Student's t is a scale mixture of normal distributions, so large residuals have smaller weights
            counted = weights * (DEGREES + 1) / (DEGREES + square / scale.square())
            sums = torch.zeros(2, len(fitted.scales), dtype=square.dtype, device=square.device)
            sums[0].index_add_(0, entries.classes, counted * square)
            sums[1].index_add_(0, entries.classes, weights)
            common = sums[0].sum() / sums[1].sum().clamp_min(1e-12)
            scales = ((sums[0] + PRIOR * common) / (sums[1] + PRIOR)).sqrt().clamp_min(least_scale)
            before, fitted = (
                fitted,
                Mixture(
                    share.clamp(MIN_COMPONENT_FRACTION, 1 - MIN_COMPONENT_FRACTION) if share_too else self.share,
                    self.missed,
                    scales,
                ),
            )
            pairs = ((before.scales, fitted.scales), (before.share, fitted.share))
            if all(bool(((new - old).abs() <= CONVERGENCE_TOLERANCE * old).all()) for old, new in pairs):
                break
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
    """Fit the outlier fraction and σ_b, assuming that all entries far from their estimate are outliers.

    Args:
        residual: ``x̂ − y`` of the held-out entries, one dimension; the entries of a group are consecutive.
        classes: b of each entry.
        density: q(y) of each entry.
        clean: initial probability that each entry is clean, in [0, 1].
        least_scale: lower bound of σ, above 0.
        groups: number of entries that are corrupted together (the channels of a pixel), at least 1.
        seen: bool, the observed entries; ``None`` if all are observed. Other entries are ignored.
    """
    nothing = torch.zeros_like(residual)
    entries = Entries(residual, classes, density.log(), nothing + MIN_LOG_DENSITY, nothing, groups, seen)
    known = clean if seen is None else clean * seen
    scale = ((known * residual.square()).sum() / known.sum().clamp_min(1e-12)).sqrt().clamp_min(1e-6)
    share = (
        (1 - known if seen is None else (1 - known)[seen])
        .mean()
        .clamp(MIN_COMPONENT_FRACTION, 1 - MIN_COMPONENT_FRACTION)
    )
    number = int(classes.max()) + 1
    initial = Mixture(share, torch.full_like(scale.expand(number), MIN_COMPONENT_FRACTION), scale.expand(number))
    return initial.refit(entries, least_scale, share_too=True)


def pooled(odds: Tensor, groups: int, seen: Tensor | None = None) -> Tensor:
    """Return the sum of the log odds over the group of each entry; see :class:`Entries`.

    >>> pooled(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2, torch.tensor([True, True, True, False]))
    tensor([3., 3., 3., 3.])
    """
    odds = odds if seen is None else odds.masked_fill(~seen, 0)
    return odds.view(-1, groups).sum(dim=1, keepdim=True).expand(-1, groups).reshape(-1)


def log_student(residual: Tensor, scale: Tensor) -> Tensor:
    """Return the log density of ``scale·t_ν``."""
    tail = torch.log1p((residual / scale).square() / DEGREES)
    return math.log(STUDENT_DENSITY) - scale.log() - (DEGREES + 1) / 2 * tail
