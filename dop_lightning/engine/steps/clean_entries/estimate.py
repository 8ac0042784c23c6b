"""Probability that an entry is clean, given an observation and an estimate of it.

Shapes: ``*m`` one observation, C×H×W for an image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import activity, activity_classes
from dop_lightning.engine.steps.clean_entries.calibration import corruption_probability
from dop_lightning.engine.steps.clean_entries.companions import Companions
from dop_lightning.engine.steps.clean_entries.decorrelation import Decorrelation
from dop_lightning.engine.steps.clean_entries.easy import are_few
from dop_lightning.engine.steps.clean_entries.isolation import isolation_evidence
from dop_lightning.engine.steps.clean_entries.mixture import MIN_LOG_DENSITY, MIN_SCALE, Entries, Mixture
from dop_lightning.engine.steps.clean_entries.places import place_evidence
from dop_lightning.engine.steps.clean_entries.sharp import Sign, of_sign
from dop_lightning.engine.steps.clean_entries.values import (
    BINS,
    FAR_DISTANCE,
    UNIFORM,
    Bins,
    Counts,
    Values,
    fit_values,
    other_values,
)

RANKS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
"""Boundaries of the activity classes, as quantile levels."""

MIN_OUTLIER_FRACTION = 1e-5
"""Lower bound on the fraction of corrupted entries. The upper bound is 98 %."""

MIN_COMPANION_DISTANCE = 0.08
"""Distance from the estimate, in scales of the observation, above which entries are compared with their companions."""

MAX_ISOLATED_FRACTION = 0.1
"""Maximum fraction of outliers of few values for which the evidence from isolation is computed. If they are frequent,
their values identify them."""

MIN_GROUP_EVIDENCE = 2.0
"""If places give no evidence, far entries count as outliers in the densities of the values, except those with evidence
from isolation of at least this amount against it. With less evidence, few errors would confirm themselves."""

DIVERSITY_RANGE = (0.1, 0.4)
"""Fractions of outliers with rare values between which the weight of companions increases from 0 to 1. Companions
identify outliers of arbitrary value, such as uniform random ones. Outliers of few values, such as dead and hot pixels,
are similar to each other if they are frequent, and are identified by their values instead."""

MIN_UNIFORM_FACTOR = 0.1
"""Lower bound on the factor that reduces the uniform component of q if outliers have few values."""

ROUNDS = 3
"""Number of estimates of the value densities. Each uses the far entries as classified by the previous fit."""

PSEUDOCOUNT = 20.0
"""Number of outliers with which the fraction of outliers among all entries is added to that of the held-out entries,
among which there may be none by chance."""


def clean_probability(
    y: Tensor,
    estimate: Tensor,
    held_out: Tensor,
    scale: float = 1.0,
    observed: Tensor | None = None,
    per_pixel: bool = False,
    sign: Sign = "auto",
    calibrated: bool = False,
    distance: float = FAR_DISTANCE,
) -> Tensor:
    r"""Return ``P(clean | y, x̂)`` under the mixture model of :mod:`dop_lightning.engine.steps.clean_entries.mixture`.

    The fraction of outliers, the distribution of their values and the error of the estimate are fitted. The error is
    fitted to the entries that were held out when the estimate was fitted. Entries far from their estimate need not be
    outliers; :mod:`~dop_lightning.engine.steps.clean_entries.places` estimates the fraction of outliers among them.

    Args:
        y: observation, ``(*m)``, finite.
        estimate: x̂, estimate of the uncorrupted observation, ``(*m)``.
        held_out: bool ``(*m)``, entries to which the estimate was not fitted. With ``per_pixel``, all channels of a
            pixel must be equal. If no entry is held out, all entries are used.
        scale: scale of the observation (width of the range of its values), positive.
        observed: bool ``(*m)``; ``None`` if all entries are observed. Unobserved entries have probability 0.
        per_pixel: whether the channels of a pixel are corrupted together (images only). The probability of a pixel is
            computed from its observed channels.
        sign: sign of the outliers. Entries on the other side of the estimate are clean. ``auto`` allows both signs.
        calibrated: whether to refine the probability for outliers of random values with
            :func:`~dop_lightning.engine.steps.clean_entries.calibration.corruption_probability`, which is more accurate
            but slower.
        distance: distance from the estimate beyond which entries are far, in scales of the observation, positive.

    Returns:
        ``(*m)``, in [0, 1].

    Raises:
        ValueError: ``per_pixel`` is set and ``held_out`` differs between the channels of a pixel.

    >>> truth = torch.linspace(0.2, 0.8, 64).expand(1, 64, 64)
    >>> noise = 0.02 * torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> y = truth.clone()
    >>> y[:, ::2, ::3] = 1.0
    >>> clean = clean_probability(y, truth + noise, held_out=torch.ones_like(y, dtype=torch.bool))
    >>> bool((clean[:, ::2, ::3] < 0.01).all()), bool((clean[:, 1::2] > 0.99).all())
    (True, True)
    """
    return clean_and_diversity(y, estimate, held_out, scale, observed, per_pixel, sign, calibrated, distance)[0]


def clean_and_diversity(
    y: Tensor,
    estimate: Tensor,
    held_out: Tensor,
    scale: float = 1.0,
    observed: Tensor | None = None,
    per_pixel: bool = False,
    sign: Sign = "auto",
    calibrated: bool = False,
    distance: float = FAR_DISTANCE,
) -> tuple[Tensor, float]:
    """Return the result of :func:`clean_probability` and the diversity of the values of outliers, in [0, 1].

    The diversity is 0 for outliers of few values and 1 for outliers of random values, see :data:`DIVERSITY_RANGE`.
    """
    gaps = per_pixel and observed is not None  # pixels may have unobserved channels
    observed = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    order = _Order.of(observed, y.shape[0] if per_pixel else 1)
    if not bool(observed.any()):
        return torch.zeros_like(y), 0.0
    apart = order.line(held_out)
    if bool((apart.view(-1, order.groups) != apart.view(-1, order.groups)[:, :1]).any()):
        raise ValueError("`held_out` must be equal in all channels of a pixel with `per_pixel`, but channels differ.")
    apart = apart if bool(apart.any()) else torch.ones_like(apart)
    lively = activity(estimate)
    possible = of_sign(y - estimate, sign)
    far = ((y - estimate).abs() > distance * scale) & possible & observed
    places = place_evidence(y, estimate, far, lively, observed, torch.Generator().manual_seed(0))
    outlying, place = torch.zeros_like(y), torch.zeros_like(y)
    outlying[far], place[far] = places.outlier, places.evidence

    @cache
    def companions() -> Companions:
        generator = torch.Generator().manual_seed(1)
        return Companions(y, estimate, MIN_COMPANION_DISTANCE * scale, lively, observed, per_pixel, generator)

    def company(outlying: Tensor, alone: Tensor) -> Tensor:
        return order.line(companions().evidence(order.back(outlying), order.back(alone)))

    @cache
    def isolation() -> Tensor:
        generator = torch.Generator().manual_seed(2)
        evidence = isolation_evidence(y, estimate, MIN_COMPANION_DISTANCE * scale, lively, observed, generator)
        return order.line(evidence) / order.groups

    seen = order.line(observed)
    clean, diverse = _fit_clean(
        torch.where(seen, order.line(y), order.line(estimate)),  # unobserved entries are not outliers
        order.line(estimate),
        order.line(activity_classes(lively, RANKS)),
        order.line(far),
        order.line(outlying),
        order.line(place) / order.groups,  # the channels of a pixel are not independent
        apart,
        seen if gaps else None,
        scale,
        distance,
        order.groups,
        places.doubt,
        company if y.dim() == 3 and places.doubt < 1 else None,
        isolation if y.dim() == 3 else None,
    )
    result = order.back(clean * seen)
    if calibrated and diverse > 0:
        posterior = corruption_probability(
            y,
            estimate,
            result,
            held_out,
            scale,
            observed,
            per_pixel,
            rounds=1,
            draws=1,
            doubted_only=are_few(result),
            distance=distance,
        )
        result = torch.lerp(result, (1 - posterior.to(result)) * observed, diverse)
    if sign in ("auto", "both"):
        return result, diverse
    above = possible.any(dim=0, keepdim=True) if per_pixel else possible
    return torch.where(above, result, observed.to(y.dtype)), diverse


@dataclass(frozen=True)
class _Order:
    """Flattening of an observation in which the entries of a group are consecutive.

    Attributes:
        shape: shape of the observation.
        groups: number of entries per group: 1, or the number of channels.
        taken: bool, 1-D, entries of groups with at least one observed entry; ``None`` if these are all entries.
    """

    shape: torch.Size
    groups: int
    taken: Tensor | None

    @classmethod
    def of(cls, observed: Tensor, groups: int) -> "_Order":
        everything = cls(observed.shape, groups, None)
        some = everything.line(observed).view(-1, groups).any(dim=1, keepdim=True)
        return everything if bool(some.all()) else cls(observed.shape, groups, some.expand(-1, groups).reshape(-1))

    def line(self, values: Tensor) -> Tensor:
        """Return the taken entries as a 1-D tensor."""
        ordered = (values.movedim(0, -1) if self.groups > 1 else values).reshape(-1)
        return ordered if self.taken is None else ordered[self.taken]

    def back(self, values: Tensor) -> Tensor:
        """Invert :meth:`line`: return 1-D values in the shape of the observation, 0 at entries not taken."""
        whole = values
        if self.taken is not None:
            whole = values.new_zeros(self.taken.shape)
            whole[self.taken] = values
        if self.groups == 1:
            return whole.view(self.shape)
        return whole.view(*self.shape[1:], self.shape[0]).movedim(-1, 0)


def _fit_clean(
    y: Tensor,
    estimate: Tensor,
    kinds: Tensor,
    far: Tensor,
    outlying: Tensor,
    place: Tensor,
    apart: Tensor,
    seen: Tensor | None,
    scale: float,
    distance: float,
    groups: int,
    doubt: float,
    company: Callable[[Tensor, Tensor], Tensor] | None,
    isolation: Callable[[], Tensor] | None,
) -> tuple[Tensor, float]:
    """Compute :func:`clean_and_diversity` on 1-D tensors, alternating between the value densities and the mixture."""
    residual, volume = estimate - y, torch.zeros_like(y)
    if groups > 1:
        residual, volume = _decorrelate(residual, 1 - outlying, far, seen, MIN_SCALE * scale, groups)
    counted = torch.ones_like(far) if seen is None else seen
    bins = Bins.of(y, estimate, distance * scale)
    number = len(RANKS) + 1
    sizes = torch.bincount(kinds, minlength=number).to(y.dtype)
    scales = _initial_scale(residual[apart], outlying[apart], MIN_SCALE * scale).expand(number).clone()
    uniform = UNIFORM
    if doubt == 0:  # evidence from places is not used
        others = other_values(bins, outlying)
        outlying = outlying * others
        uniform *= float(others.min().clamp_min(MIN_UNIFORM_FACTOR))
    clean, diverse, counts = 1 - outlying, 0.0, Counts.of(bins, counted)
    for _ in range(ROUNDS):
        values = fit_values(bins, outlying, far, counted, uniform, counts)
        alone = values.of((1 / (BINS * bins.width * values.outliers)).clamp_max(1))  # the uniform density is 1/range
        diverse = 0.0 if company is None else (1 - doubt) * _value_diversity(alone, outlying)
        entries = Entries(
            residual=residual,
            classes=kinds,
            outlying=values.of(values.outliers.log()) + place,
            missed=torch.where(far, values.of(values.missed.log()), MIN_LOG_DENSITY),
            pardon=values.of(torch.lerp(values.certain, values.pardon, doubt)) + volume,
            groups=groups,
            seen=seen,
        )
        if company is not None and diverse > 0:
            entries = replace(entries, outlying=entries.outlying + diverse / groups * company(1 - clean, alone))
        isolated = None
        if isolation is not None and (diverse > 0 or float((1 - clean).mean()) <= MAX_ISOLATED_FRACTION):
            isolated = isolation()
            entries = replace(entries, outlying=entries.outlying + isolated)
        missed = torch.zeros_like(sizes).index_add_(0, kinds, (1 - outlying) * far)
        initial = Mixture(_outlier_fraction(values, outlying, apart), (missed + 0.1) / (sizes + 1), scales)
        fitted = initial.refit(entries.of(apart), MIN_SCALE * scale, share_too=doubt == 0)
        scales = fitted.scales
        clean = fitted.clean(entries)
        if doubt > 0:
            outlying = (1 - clean) * far
        elif isolated is not None:
            outlying = torch.where(isolated < -MIN_GROUP_EVIDENCE / groups, (1 - clean) * far, outlying)
        else:  # far entries keep their classification, so another round changes nothing
            break
    return clean, diverse


def _decorrelate(
    residual: Tensor, clean: Tensor, far: Tensor, seen: Tensor | None, least: float, groups: int
) -> tuple[Tensor, Tensor]:
    """Return the decorrelated residuals, and the log-determinant divided evenly among the observed entries."""
    rows = residual.view(-1, groups)
    known = torch.ones_like(rows, dtype=torch.bool) if seen is None else seen.view(-1, groups)
    probable = (clean * ~far).view(-1, groups).prod(dim=1) * known.all(dim=1)
    turned, volume = Decorrelation.of(rows, probable, least).turned(rows, known)
    each = (volume / known.sum(dim=1).clamp_min(1))[:, None].expand(rows.shape)
    return turned.reshape(-1), each.reshape(-1)


def _value_diversity(alone: Tensor, outlying: Tensor) -> float:
    """Return the diversity of outlier values, in [0, 1], see :data:`DIVERSITY_RANGE`."""
    low, high = DIVERSITY_RANGE
    share = float((alone * outlying).sum() / outlying.sum().clamp_min(1e-12))
    return min(1.0, max(0.0, (share - low) / (high - low)))


def _initial_scale(residual: Tensor, outlying: Tensor, least: float) -> Tensor:
    weights = 1 - outlying
    return ((weights * residual.square()).sum() / weights.sum().clamp_min(1e-12)).sqrt().clamp_min(least)


def _outlier_fraction(values: Values, outlying: Tensor, apart: Tensor) -> Tensor:
    """Return the fraction of outliers, mainly from held-out entries. The estimate may have fitted other outliers."""
    everywhere = outlying.mean().clamp_min(1e-12)
    held_out = (outlying[apart].sum() + PSEUDOCOUNT) / (apart.sum() + PSEUDOCOUNT / everywhere)
    return (values.share * held_out / everywhere).clamp(MIN_OUTLIER_FRACTION, 0.98)
