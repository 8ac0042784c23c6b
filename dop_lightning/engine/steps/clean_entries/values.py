r"""Which values outliers have: a density ``q(y)`` from one observation and an estimate of what it should have been.

Dead pixels are black, hot ones white, random ones anything. Nothing is assumed: entries far from their estimate are
outliers whatever their value, and the histogram of their values is the density, once it is corrected for the fact that
an outlier of value v is far only from those estimates that are far from v:

    ``q(v) ∝ #{i: yᵢ = v, |x̂ᵢ − yᵢ| > t} / #{j: |x̂ⱼ − v| > t}``.

A value that hardly an outlier has clears an entry, however wrong the estimate is there; a value that many have condemns
it, however close it is.
"""

import torch
from torch import Tensor

BINS = 512
"""Of the histogram over the range of the observation and the estimate: half a grey level each, of 8 bits."""

UNIFORM = 0.02
"""Share of the density that is spread over the whole range: an outlier may have a value that none has had yet."""

LEAST_FAR = 0.02
"""Share of the estimates that counts as far from a value at least."""


def outlier_density(y: Tensor, estimate: Tensor, far: float) -> Tensor:
    """``q(yᵢ)`` of each entry, an estimate of the density of the outliers' values.

    Args:
        y: observed values, one dimension.
        estimate: ``x̂``, what each of them should have been.
        far: t, the distance at which an entry is taken for an outlier without asking, above 0, in units of y.

    Returns:
        The shape of ``y``, above 0, in units of 1/y.

    >>> y = torch.tensor([0.5] * 8 + [1.0, 1.0])
    >>> q = outlier_density(y, torch.full_like(y, 0.5), far=0.25)
    >>> bool(q[8] > 100 * q[0])
    True
    """
    low = torch.minimum(y.min(), estimate.min())
    width = (torch.maximum(y.max(), estimate.max()) - low).clamp_min(2 * far) / BINS  # of one bin
    place = _places(y, low, width)
    outliers = torch.zeros(BINS, dtype=y.dtype, device=y.device)
    outliers.index_add_(0, place, ((estimate - y).abs() > far).to(y.dtype))
    chances = _share_far(_places(estimate, low, width), far / width, y.dtype)
    shape = outliers / chances.clamp_min(LEAST_FAR)
    total = shape.sum()
    uniform = torch.full_like(shape, 1 / BINS)
    shape = torch.where(total > 0, (1 - UNIFORM) * shape / total.clamp_min(1e-30) + UNIFORM * uniform, uniform)
    return (shape / width)[place]


def _places(values: Tensor, low: Tensor, width: Tensor) -> Tensor:
    """The bin of each value."""
    return ((values - low) / width).long().clamp_(0, BINS - 1)


def _share_far(places: Tensor, far: Tensor, dtype: torch.dtype) -> Tensor:
    """Of each bin, the share of the estimates that lie further than ``far`` bins from it, ``(BINS,)``."""
    counts = torch.zeros(BINS + 1, dtype=dtype, device=places.device)
    counts[1:].index_add_(0, places, torch.ones_like(places, dtype=dtype))
    up_to = counts.cumsum(0)  # estimates below bin i
    bins = torch.arange(BINS, device=places.device)
    reach = far.round().long()
    near = up_to[(bins + reach + 1).clamp_max(BINS)] - up_to[(bins - reach).clamp_min(0)]
    return 1 - near / up_to[-1]
