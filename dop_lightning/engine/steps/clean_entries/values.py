r"""Densities of the values of outliers and of clean entries, from one observation and its estimate.

Dead pixels are black, hot pixels are white, and random ones can have any value. No values are assumed. Entries far from
their estimate are outliers with the probability P given by their places. The histogram of their values is corrected for
the fact that an outlier of value v is far only from those estimates that are far from v:

    ``ρ(v) = Σ{Pᵢ: yᵢ = v, |x̂ᵢ − yᵢ| > t} / #{j: |x̂ⱼ − v| > t}``

is the probability that an arbitrary entry is an outlier of value v. Its sum is the fraction of outliers, and
``q = ρ/Σρ`` is the density of their values. If few outliers have the value of an entry, this is evidence that the entry
is clean, even if its estimate is poor. If many outliers have it, this is evidence that the entry is an outlier, even if
it is close to its estimate.

Clean entries can have such a value as well, for example in black ink, white paper or a night sky. The rest of the
histogram h of all values is that of clean entries, ``c = h − ρ`` (slightly less, since ρ is not exact). If c(v) exceeds
the average c̄(v) around v, the log odds of an entry of value v are raised by the *pardon* ``log c(v)/c̄(v)``, which is at
most what q contributed to them.

If nearly all far entries are outliers, outliers may be half of the image, and ρ is not accurate enough for this. Then
there is a pardon, ``log (h(v) − 2ρ(v))/c̄(v)``, only for a value that at least 5 % of the entries have, and more than
twice as many entries as outliers.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from dop_lightning.engine.steps.clean_entries.indices import indices
from dop_lightning.engine.steps.clean_entries.lift import MIN_FAR_FRACTION, PARTS, SHIFT, lifted
from dop_lightning.engine.steps.clean_entries.sorting import cumulated

FAR_DISTANCE = 0.25
"""t, the distance beyond which an entry is far from its estimate, in scales of the observation."""

BINS = 512
"""Number of bins of the histogram over the range of observation and estimate: half a grey level of 8 bits each."""

UNIFORM = 0.02
"""Weight of a uniform density over the range, which allows for unseen values of outliers."""

SMOOTHING_DEVIATION = 16
"""Standard deviation, in bins, of the smoothing that gives c̄."""

REACH = 3 * SMOOTHING_DEVIATION
"""Distance, in bins, up to which it averages."""

FEW_VALUES = 4
"""Maximum number of values of dead and hot pixels, in bins."""

OTHER_VALUE_RANGE = (0.02, 0.04)
"""Far entries with values other than the most frequent ones are clean if they are at most the first fraction of the far
entries, and may be outliers from the second fraction on."""

OUTLIER_DENSITY_FACTOR = 2.0
"""Factor of the density of the values of outliers, because a missed outlier costs more than a rejected clean entry. It
is reduced for data of 8 bits: their levels lie in every other bin, where the density is already twice as large."""

MAX_COUNTED = 1 << 19
"""Number of entries above which the histograms of all values and estimates are those of a sample of this size. Far
entries are all counted, since outliers may be few."""

MAX_FREQUENCY_RATIO = 4.0
"""The frequency of a value is clipped at this many times the usual frequency in its part of the range."""

INEXACT = 0.1
"""Relative error by which ρ may be too small."""


PARDON_ERROR = 1.0
"""Relative error of ρ that is assumed for the pardon if most far entries are outliers."""


MIN_PARDON_FRACTION = 0.05
"""Minimum fraction of entries with a value that is pardoned in this case: an area, not a few entries by chance."""


class Bins(NamedTuple):
    """Bins of the values and of the estimates in the histogram.

    Attributes:
        values: bin of each value.
        estimates: bin of each estimate.
        width: width of a bin.
        far: t in bins.
    """

    values: Tensor
    estimates: Tensor
    width: Tensor
    far: Tensor

    @classmethod
    def of(cls, y: Tensor, estimate: Tensor, far: float) -> "Bins":
        """Compute the bins of values and estimates, one dimension each; ``far`` is t in their units."""
        low = torch.minimum(y.min(), estimate.min())
        width = (torch.maximum(y.max(), estimate.max()) - low).clamp_min(2 * far) / BINS
        return cls(_bin_numbers(y, low, width), _bin_numbers(estimate, low, width), width, (far / width).round().long())


class Values(NamedTuple):
    """Densities of the values of outliers and of clean entries, by bin. :meth:`of` looks up the bin of each entry.

    Attributes:
        bins: bin of the value of each entry.
        share: Σρ, the fraction of outliers, a scalar tensor.
        outliers: q times the factor :data:`OUTLIER_DENSITY_FACTOR`, above 0, in units of 1/y.
        missed: density of the values of clean entries that are far from their estimate, in the same units.
        pardon: log c/c̄, between 0 and the contribution of q.
        certain: pardon to use if nearly all far entries are outliers.
    """

    bins: Tensor
    share: Tensor
    outliers: Tensor
    missed: Tensor
    pardon: Tensor
    certain: Tensor

    def of(self, table: Tensor) -> Tensor:
        """Look up the bin of each entry in a table over all bins."""
        return table.index_select(0, self.bins)


def other_values(bins: Bins, outlying: Tensor) -> Tensor:
    """Return the probability that the value of each entry is a value of outliers.

    It is 1 at the most frequent values of far entries. If nearly all far entries have one of them, as with salt and
    pepper, it is 0 at other values: those are clean entries with a poor estimate, such as thin lines and edges.

    Args:
        bins: bins of the values and estimates.
        outlying: probability that each entry is an outlier, 0 for entries near their estimate.

    Returns:
        In [0, 1], the shape of ``outlying``.
    """
    counts = _histogram(bins.values, outlying)
    frequent = counts.topk(FEW_VALUES)
    others = 1 - frequent.values.sum() / counts.sum().clamp_min(1e-30)
    low, high = OTHER_VALUE_RANGE
    probability = ((others - low) / (high - low)).clamp(0, 1).expand(BINS).clone()
    probability[frequent.indices] = 1
    return probability.index_select(0, bins.values)


class Counts(NamedTuple):
    """What does not depend on which entries are outliers, by bin.

    Attributes:
        values: histogram of the values.
        number: number of values.
        shares: fraction of the estimates that are farther than t, ``#{j: |x̂ⱼ − v| > t}/N``.
        further: the same for the distance ``(1 + SHIFT)·t``.
    """

    values: Tensor
    number: Tensor
    shares: Tensor
    further: Tensor

    @classmethod
    def of(cls, bins: Bins, seen: Tensor) -> "Counts":
        """Count the observed entries, or a sample of them."""
        values, expected, number = _sampled_histograms(bins, seen)
        distances = (bins.far, ((1 + SHIFT) * bins.far).long())
        return cls(values, number, *(_fraction_far(expected, int(t), bins.width.dtype) for t in distances))


def fit_values(
    bins: Bins,
    outlying: Tensor,
    far: Tensor,
    seen: Tensor,
    uniform: float = UNIFORM,
    counts: Counts | None = None,
) -> Values:
    """Estimate the densities of the values.

    Args:
        bins: bins of the values and estimates.
        outlying: probability P that each entry is an outlier, 0 for entries near their estimate.
        far: bool, true for entries far from their estimate.
        seen: bool, true for observed entries; others are ignored.
        uniform: weight of a uniform density in q, above 0.
        counts: counts of the observed entries; computed by default.
    """
    counted = far & seen
    outliers, far_clean = _far_histograms(bins.values, outlying, counted)
    all_counts, number, shares, further = Counts.of(bins, seen) if counts is None else counts
    rate = outliers / shares.clamp_min(MIN_FAR_FRACTION) / number  # ρ
    parts = rate.view(PARTS, -1)
    sums = parts.sum(dim=1)
    more = (lifted(_part_sums(parts), shares.view(PARTS, -1), further.view(PARTS, -1)) - sums).clamp_min(0)
    rate = (parts + more[:, None] / parts.shape[1]).flatten()
    share = rate.sum()
    even = torch.full_like(rate, 1 / BINS)
    q = torch.where(share > 0, (1 - uniform) * rate / share.clamp_min(1e-30) + uniform * even, even)
    left, surely = (
        _average_levels((all_counts / number - (1 + margin) * rate).clamp_min(0)) for margin in (INEXACT, PARDON_ERROR)
    )
    caution = (OUTLIER_DENSITY_FACTOR * (all_counts > 0).to(q.dtype).mean()).clamp(1, OUTLIER_DENSITY_FACTOR)
    smooth = _blur(left) + 1e-3 / BINS
    condemned = (_average_levels(q) * BINS).log().clamp_min(0)
    missed = _average_levels(far_clean) + 1 / BINS
    pardon, certain = (torch.minimum((c / smooth).clamp_min(1).log(), condemned) for c in (left, surely))
    surplus = all_counts > (1 + PARDON_ERROR) * rate * number
    certain = torch.where(surplus & (all_counts >= MIN_PARDON_FRACTION * number), certain, 0)
    return Values(bins.values, share, caution * q / bins.width, missed / missed.sum() / bins.width, pardon, certain)


def outlier_density(y: Tensor, estimate: Tensor, far: float) -> Tensor:
    """Return ``q(yᵢ)`` of each entry, assuming that all entries far from their estimate are outliers.

    Args:
        y: observed values, one dimension.
        estimate: ``x̂``, the estimated value of each entry without corruption.
        far: t, the distance beyond which an entry counts as an outlier, above 0, in units of y.

    Returns:
        The shape of ``y``, above 0, in units of 1/y.

    >>> y = torch.tensor([0.5] * 8 + [1.0, 1.0])
    >>> q = outlier_density(y, torch.full_like(y, 0.5), far=0.25)
    >>> bool(q[8] > 100 * q[0])
    True
    """
    beyond = (estimate - y).abs() > far
    values = fit_values(Bins.of(y, estimate, far), beyond.to(y.dtype), beyond, torch.ones_like(beyond))
    return values.of(values.outliers)


def _part_sums(parts: Tensor) -> Tensor:
    """Return the sum of each part, ``(PARTS,)``, without the excess of its most frequent value (dead pixels)."""
    sums, largest = parts.sum(dim=1), parts.max(dim=1).values
    usual = (sums - largest) / ((parts > 0).sum(dim=1) - 1).clamp_min(1)
    return sums - (largest - MAX_FREQUENCY_RATIO * usual).clamp_min(0)


def _bin_numbers(values: Tensor, low: Tensor, width: Tensor) -> Tensor:
    """Return the bin of each value."""
    return ((values - low) / width).int().clamp_(0, BINS - 1)


def _far_histograms(numbers: Tensor, outlying: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the histograms of outliers and of clean entries among far entries; ``outlying`` is 0 at others."""
    at = indices(counted)
    numbers, outlying = numbers.index_select(0, at), outlying.index_select(0, at)
    return _histogram(numbers, outlying), _histogram(numbers, 1 - outlying)


def _sampled_histograms(bins: Bins, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the histograms of the observed values and of the estimates, and the number of values.

    Those of a sample are scaled to all entries. It is random: with even spacing, it might have one channel of each
    pixel, or one column of a colour filter array.
    """
    total = seen.sum().clamp_min(1)
    values, estimates = bins.values, bins.estimates
    if len(seen) > MAX_COUNTED:
        generator = torch.Generator().manual_seed(0)
        at = torch.randint(len(seen), (MAX_COUNTED,), generator=generator, device="cpu").to(seen.device)
        values, estimates, seen = (each.index_select(0, at) for each in (values, estimates, seen))
    all_counts = _histogram(values, seen.to(bins.width.dtype))
    return all_counts * (total / seen.sum().clamp_min(1)), _histogram(estimates, seen.to(torch.int64)), total


def _histogram(places: Tensor, weights: Tensor) -> Tensor:
    counts = torch.zeros(BINS, dtype=weights.dtype, device=places.device)
    return counts.index_add_(0, places, weights)


def _fraction_far(counts: Tensor, far: int, dtype: torch.dtype) -> Tensor:
    """Return :func:`~dop_lightning.engine.steps.clean_entries.lift.share_far` of each bin, from a histogram."""
    up_to = torch.cat([counts.new_zeros(1), cumulated(counts)])
    bins = torch.arange(BINS, device=counts.device)
    near = up_to[(bins + far + 1).clamp_max(BINS)] - up_to[(bins - far).clamp_min(0)]
    return 1 - near.to(dtype) / up_to[-1]


def _average_levels(density: Tensor) -> Tensor:
    """Average over two grey levels of 8 bits, because every other bin is empty in data of 8 bits."""
    return conv1d(pad(density[None, None], (1, 2)), _level_kernel(density.dtype, density.device))[0, 0]


def _blur(density: Tensor) -> Tensor:
    """Blur a density with a Gaussian; mass outside the range is lost."""
    return conv1d(pad(density[None, None], [REACH] * 2), _gaussian_kernel(density.dtype, density.device))[0, 0]


@cache
def _level_kernel(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((1, 1, 4), 0.25, dtype=dtype, device=device)


@cache
def _gaussian_kernel(dtype: torch.dtype, device: torch.device) -> Tensor:
    steps = torch.arange(-REACH, REACH + 1, dtype=dtype, device=device)
    kernel = torch.exp(-steps.square() / (2 * SMOOTHING_DEVIATION**2))
    return (kernel / kernel.sum())[None, None]
