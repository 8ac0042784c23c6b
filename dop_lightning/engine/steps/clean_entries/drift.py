"""Local bias of an estimate and its correction.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from dop_lightning.engine.steps.clean_entries.medians import window_median_at

SIDE = 11
"""Side length of the window in pixels, large enough to average out the noise."""

DEVIATION = 2.0
"""Standard deviation, in pixels, of the Gaussian weights of neighbours in flat regions."""

PLAIN, UNEVEN = 1.5, 3.0
"""Ratio of the local variance to the noise variance up to which a region is flat, and from which it is not flat."""


def filled(y: Tensor, estimate: Tensor, clean: Tensor, noise: float) -> Tensor:
    """Return the estimate with corrected values at the corrupted entries of a noise-limited frame.

    If the clean entries around an entry differ only by noise, the region is flat and their weighted mean is used. It is
    more accurate than the estimate there, because the network fits the noise of some entries. In other regions, the
    estimate plus its :func:`local_drift` is used. The two are blended between :data:`PLAIN` and :data:`UNEVEN`.

    Args:
        y: the frame, ``(C, H, W)``.
        estimate: x̂, ``(C, H, W)``.
        clean: bool, ``(C, H, W)``.
        noise: standard deviation of the noise in the darker part of the frame, positive.

    Returns:
        The corrected estimate, ``(C, H, W)``, equal to ``estimate`` at clean entries.
    """
    mean, variance = _local_moments(y, clean)
    uneven = ((variance / noise**2 - PLAIN) / (UNEVEN - PLAIN)).clamp(0, 1)
    drawn = estimate + local_drift(y - estimate, clean)
    return torch.where(clean, estimate, uneven * drawn + (1 - uneven) * mean)


def _local_moments(y: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Return the local mean and variance of clean entries; the variance is infinite if none are near."""
    reach = round(3 * DEVIATION)
    steps = torch.arange(-reach, reach + 1, dtype=y.dtype, device=y.device)
    line = torch.exp(-steps.square() / (2 * DEVIATION**2))
    weights = clean.to(y.dtype)
    middle = y[clean].median() if bool(clean.any()) else y.new_zeros(())

    def blurred(values: Tensor) -> Tensor:
        flat = pad(values[:, None], [reach] * 4)
        return conv2d(conv2d(flat, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))[:, 0]

    total = blurred(weights)
    centred = torch.where(clean, y - middle, 0)
    first, second = (blurred(each) / total.clamp_min(1e-6) for each in (centred, centred.square()))
    return first + middle, torch.where(total > 1e-3, (second - first.square()).clamp_min(0), torch.inf)


def local_drift(residual: Tensor, clean: Tensor) -> Tensor:
    """Return the median residual of the clean entries around each corrupted entry; 0 at clean entries.

    A network that has fitted bright stars may have a small bias everywhere in the sky. The residuals of clean
    neighbours estimate this bias. The median is robust to stars that the network has not fitted yet.

    Args:
        residual: ``y − x̂``, ``(C, H, W)``.
        clean: bool, ``(C, H, W)``.

    >>> residual = torch.full((1, 32, 32), 0.25)
    >>> residual[..., 5, 5] = 9.0
    >>> local_drift(residual, residual < 1)[0, 5, 4:6]
    tensor([0.0000, 0.2500])
    """
    unknown = torch.zeros_like(residual)  # value if no neighbour is clean
    found = window_median_at(torch.where(clean, residual, unknown), clean, SIDE, ~clean)
    return torch.where(clean, unknown, found)
