"""The probability that an entry is clean, from an observation and an estimate of it.

Shapes: ``*m`` one observation, C×H×W for an image.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import activity, classes
from dop_lightning.engine.steps.clean_entries.mixture import LEAST_SCALE, fit_mixture, pooled
from dop_lightning.engine.steps.clean_entries.values import outlier_density

CLASSES = 8
"""Of activity."""

FAR = 0.25
"""At this distance, in scales of the observation, an entry is an outlier without asking."""


def clean_probability(
    y: Tensor,
    estimate: Tensor,
    held_out: Tensor,
    scale: float = 1.0,
    observed: Tensor | None = None,
    per_pixel: bool = False,
) -> Tensor:
    r"""``P(clean | y, x̂)`` of each entry, by the mixture of :mod:`dop_lightning.engine.steps.clean_entries.mixture`.

    Neither the share of the corruption nor the values of the outliers nor the error of the estimate are known: they
    are fitted, the error to the entries that were held out from the fit of the estimate.

    Args:
        y: the observation, ``(*m)``, finite.
        estimate: x̂, what it would be without corruption, ``(*m)``.
        held_out: bool ``(*m)``, entries that the estimate was not fitted to, whole pixels with ``per_pixel``; all where
            there are none.
        scale: of the observation: the width of the range of its values, above 0.
        observed: bool ``(*m)``; ``None`` where all are. Others have probability 0.
        per_pixel: whether the channels of a pixel are corrupted together, for images. Those that were observed decide.

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
    groups = y.shape[0] if per_pixel else 1

    def line(values: Tensor) -> Tensor:
        return values.movedim(0, -1).reshape(-1) if per_pixel else values.reshape(-1)

    known = line(observed)
    taken = known.view(-1, groups).any(dim=1, keepdim=True).expand(-1, groups).reshape(-1)
    if not bool(taken.any()):
        return torch.zeros_like(y)
    expected, seen = line(estimate)[taken], known[taken]
    values = torch.where(seen, line(y)[taken], expected)  # what was not observed is no outlier
    residual = expected - values
    kinds = classes(line(activity(estimate))[taken], CLASSES)
    density = torch.ones_like(residual)
    density[seen] = outlier_density(values[seen], expected[seen], FAR * scale)
    apart = line(held_out)[taken]
    if bool((apart.view(-1, groups) != apart.view(-1, groups)[:, :1]).any()):
        raise ValueError("held_out must be of whole pixels with per_pixel, got some whose channels differ")
    apart = apart if bool(apart.any()) else torch.ones_like(apart)
    near = (residual.abs() <= FAR * scale).to(y.dtype)
    known_apart = seen[apart] if gaps else None
    fitted = fit_mixture(
        residual[apart], kinds[apart], density[apart], near[apart], LEAST_SCALE * scale, groups, known_apart
    )
    odds = fitted.log_odds(residual, kinds.clamp_max(len(fitted.scales) - 1), density)
    odds = pooled(odds, groups, seen if gaps else None)
    result = torch.zeros_like(line(y))
    result[taken] = torch.sigmoid(odds + fitted.prior_log_odds()) * seen
    return result.view(*y.shape[1:], y.shape[0]).movedim(-1, 0) if per_pixel else result.view(y.shape)
