"""The probability that an entry is clean, from an observation and an estimate of it.

Shapes: ``*m`` one observation, C×H×W for an image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import activity, classes
from dop_lightning.engine.steps.clean_entries.calibration import corruption_probability
from dop_lightning.engine.steps.clean_entries.companions import Companions
from dop_lightning.engine.steps.clean_entries.mixture import LEAST_SCALE, NEVER, Entries, Mixture
from dop_lightning.engine.steps.clean_entries.places import place_evidence
from dop_lightning.engine.steps.clean_entries.sharp import Sign, of_sign
from dop_lightning.engine.steps.clean_entries.values import BINS, FAR, Bins, Values, fit_values

RANKS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
"""Between the classes of activity: shares of the entries whose surroundings are calmer. The liveliest are few."""

LEAST_SHARE = 1e-5
"""Corrupted entries are no fewer, and clean ones no fewer than 2 %."""

APART = 0.08
"""At this distance, in scales of the observation, an entry is compared with its companions."""

DIVERSE = (0.1, 0.4)
"""Where outliers have values of their own, as random ones do, their companions tell them: not at the former share of
lone values and below, wholly from the latter on. Outliers of few values, as dead and hot pixels are, resemble each
other where they are many, and their values tell them anyway."""

ROUNDS = 3
"""Estimates of the densities of the values, each with what the one before says of the far entries."""

OF_ALL = 20.0
"""The share of the outliers is told by the held-out entries, and by so many that are not."""


def clean_probability(
    y: Tensor,
    estimate: Tensor,
    held_out: Tensor,
    scale: float = 1.0,
    observed: Tensor | None = None,
    per_pixel: bool = False,
    sign: Sign = "auto",
    calibrated: bool = False,
) -> Tensor:
    r"""``P(clean | y, x̂)`` of each entry, by the mixture of :mod:`dop_lightning.engine.steps.clean_entries.mixture`.

    Neither the share of the corruption nor the values of the outliers nor the error of the estimate are known: they
    are fitted, the error to the entries that were held out from the fit of the estimate. Entries that are far from
    their estimate need not be outliers: :mod:`~dop_lightning.engine.steps.clean_entries.places` tells how many are.

    Args:
        y: the observation, ``(*m)``, finite.
        estimate: x̂, what it would be without corruption, ``(*m)``.
        held_out: bool ``(*m)``, entries that the estimate was not fitted to, whole pixels with ``per_pixel``; all where
            there are none.
        scale: of the observation: the width of the range of its values, above 0.
        observed: bool ``(*m)``; ``None`` where all are. Others have probability 0.
        per_pixel: whether the channels of a pixel are corrupted together, for images. Those that were observed decide.
        sign: of the outliers: entries on the other side of the estimate are clean. ``auto`` is both.
        calibrated: whether to refine w for outliers of random values by
            :func:`~dop_lightning.engine.steps.clean_entries.calibration.corruption_probability`, which is more accurate
            and takes longer.

    Returns:
        ``(*m)``, in [0, 1].

    Raises:
        ValueError: parts of pixels are held out.

    >>> truth = torch.linspace(0.2, 0.8, 64).expand(1, 64, 64)
    >>> noise = 0.02 * torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> y = truth.clone()
    >>> y[:, ::2, ::3] = 1.0
    >>> clean = clean_probability(y, truth + noise, held_out=torch.ones_like(y, dtype=torch.bool))
    >>> bool((clean[:, ::2, ::3] < 0.01).all()), bool((clean[:, 1::2] > 0.99).all())
    (True, True)
    """
    gaps = per_pixel and observed is not None  # there may be pixels of which a part was observed
    observed = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    order = _Order.of(observed, y.shape[0] if per_pixel else 1)
    if not bool(order.taken.any()):
        return torch.zeros_like(y)
    apart = order.line(held_out)
    if bool((apart.view(-1, order.groups) != apart.view(-1, order.groups)[:, :1]).any()):
        raise ValueError("held_out must be of whole pixels with per_pixel, got some whose channels differ")
    apart = apart if bool(apart.any()) else torch.ones_like(apart)
    lively = activity(estimate)
    possible = of_sign(y - estimate, sign)
    far = ((y - estimate).abs() > FAR * scale) & possible & observed
    places = place_evidence(y, estimate, far, lively, observed, torch.Generator().manual_seed(0))
    outlying, place = torch.zeros_like(y), torch.zeros_like(y)
    outlying[far], place[far] = places.outlier, places.evidence

    @cache
    def companions() -> Companions:
        generator = torch.Generator().manual_seed(1)
        return Companions(y, estimate, APART * scale, lively, observed, per_pixel, generator)

    def company(outlying: Tensor, alone: Tensor) -> Tensor:
        return order.line(companions().evidence(order.back(outlying), order.back(alone)))

    seen = order.line(observed)
    clean, diverse = _clean(
        torch.where(seen, order.line(y), order.line(estimate)),  # what was not observed is no outlier
        order.line(estimate),
        classes(order.line(lively), RANKS),
        order.line(far),
        order.line(outlying),
        order.line(place) / order.groups,  # the channels of a pixel are not independent
        apart,
        seen if gaps else None,
        scale,
        order.groups,
        places.doubt,
        company if y.dim() == 3 and places.doubt < 1 else None,
    )
    result = order.back(clean * seen)
    if calibrated and diverse > 0:
        told = corruption_probability(y, estimate, result, held_out, scale, observed, per_pixel, rounds=1, draws=1)
        result = torch.lerp(result, (1 - told.to(result)) * observed, diverse)
    if sign in ("auto", "both"):
        return result
    above = possible.any(dim=0, keepdim=True) if per_pixel else possible
    return torch.where(above, result, observed.to(y.dtype))


@dataclass(frozen=True)
class _Order:
    """Entries of an observation in one dimension; with groups, those of a group follow each other.

    Attributes:
        shape: of the observation.
        groups: entries of a group: 1, or the channels.
        taken: bool, one dimension: the entries of groups of which at least one was observed.
    """

    shape: torch.Size
    groups: int
    taken: Tensor

    @classmethod
    def of(cls, observed: Tensor, groups: int) -> "_Order":
        everything = cls(observed.shape, groups, torch.ones(observed.numel(), dtype=torch.bool, device=observed.device))
        some = everything.line(observed).view(-1, groups).any(dim=1, keepdim=True)
        return cls(observed.shape, groups, some.expand(-1, groups).reshape(-1))

    def line(self, values: Tensor) -> Tensor:
        """Those that are taken, one dimension."""
        return (values.movedim(0, -1) if self.groups > 1 else values).reshape(-1)[self.taken]

    def back(self, values: Tensor) -> Tensor:
        """The same in the shape of the observation, 0 where none is taken."""
        whole = values.new_zeros(self.taken.shape)
        whole[self.taken] = values
        if self.groups == 1:
            return whole.view(self.shape)
        return whole.view(*self.shape[1:], self.shape[0]).movedim(-1, 0)


def _clean(
    y: Tensor,
    estimate: Tensor,
    kinds: Tensor,
    far: Tensor,
    outlying: Tensor,
    place: Tensor,
    apart: Tensor,
    seen: Tensor | None,
    scale: float,
    groups: int,
    doubt: float,
    company: Callable[[Tensor, Tensor], Tensor] | None,
) -> tuple[Tensor, float]:
    """The same of one dimension: values and the mixture, each estimated with what the other says.

    With it comes how far outliers have values of their own.
    """
    residual = estimate - y
    counted = torch.ones_like(far) if seen is None else seen
    bins = Bins.of(y, estimate, FAR * scale)
    number = len(RANKS) + 1
    sizes = torch.bincount(kinds, minlength=number).to(y.dtype)
    scales = _first_scale(residual[apart], outlying[apart], LEAST_SCALE * scale).expand(number).clone()
    clean, diverse = 1 - outlying, 0.0
    for _ in range(ROUNDS):
        values = fit_values(bins, outlying, far, counted)
        alone = (1 / (BINS * bins.width * values.outliers)).clamp_max(1)  # uniform ones have density 1/range
        diverse = 0.0 if company is None else (1 - doubt) * _diversity(alone, outlying)
        entries = Entries(
            residual=residual,
            classes=kinds,
            outlying=values.outliers.log() + place,
            missed=torch.where(far, values.missed.log(), NEVER),
            pardon=doubt * values.pardon,
            groups=groups,
            seen=seen,
        )
        if company is not None and diverse > 0:
            entries = replace(entries, outlying=entries.outlying + diverse / groups * company(1 - clean, alone))
        missed = torch.zeros_like(sizes).index_add_(0, kinds, (1 - outlying) * far)
        begun = Mixture(_share(values, outlying, apart), (missed + 0.1) / (sizes + 1), scales)
        fitted = begun.refit(entries.of(apart), LEAST_SCALE * scale, share_too=doubt == 0)
        scales = fitted.scales
        clean = fitted.clean(entries)
        if doubt == 0 and diverse == 0:  # all that is far is an outlier, whatever is fitted
            break
        if doubt > 0:
            outlying = (1 - clean) * far
    return clean, diverse


def _diversity(alone: Tensor, outlying: Tensor) -> float:
    """How far outliers have values of their own, see :data:`DIVERSE`."""
    low, high = DIVERSE
    share = float((alone * outlying).sum() / outlying.sum().clamp_min(1e-12))
    return min(1.0, max(0.0, (share - low) / (high - low)))


def _first_scale(residual: Tensor, outlying: Tensor, least: float) -> Tensor:
    weights = 1 - outlying
    return ((weights * residual.square()).sum() / weights.sum().clamp_min(1e-12)).sqrt().clamp_min(least)


def _share(values: Values, outlying: Tensor, apart: Tensor) -> Tensor:
    """The share of the outliers among all, told by those that were held out: others may have been followed."""
    everywhere = outlying.mean()
    held_out = (outlying[apart].sum() + OF_ALL * everywhere) / (apart.sum() + OF_ALL)
    return (values.share * held_out / everywhere.clamp_min(1e-12)).clamp(LEAST_SHARE, 0.98)
