"""Local bias of an estimate around an entry, and its correction.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from dop_lightning.engine.steps.clean_entries.medians import window_median_at

SIDE = 11
"""Side of the window, pixels: wide enough to average out the noise."""

DEVIATION = 2.0
"""Standard deviation of the Gaussian weights of neighbours in a flat region, pixels."""

PLAIN, UNEVEN = 1.5, 3.0
"""Variance of the surrounding entries over that of the noise: flat up to the first, not flat from the second on."""


def filled(y: Tensor, estimate: Tensor, clean: Tensor, noise: float) -> Tensor:
    """Return values for the entries that are not clean, in a frame limited by noise; the estimate at the others.

    If the clean entries around an entry differ only by their noise, the region is flat, and their mean is the best
    estimate: the network follows the noise of some of them. Otherwise it is the estimate plus its :func:`local_drift`.

    Args:
        y: the frame, ``(C, H, W)``.
        estimate: x̂.
        clean: bool, the same shape.
        noise: standard deviation of the noise in the darker part, above 0.
    """
    mean, variance = _around(y, clean)
    uneven = ((variance / noise**2 - PLAIN) / (UNEVEN - PLAIN)).clamp(0, 1)
    drawn = estimate + local_drift(y - estimate, clean)
    return torch.where(clean, estimate, uneven * drawn + (1 - uneven) * mean)


def _around(y: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted mean and variance of the clean entries around each; infinite variance without any."""
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
    """Return the median residual of the clean entries around each entry that is not clean; 0 at the others.

    A network that has fitted bright stars may have a small bias in all of the sky. The residuals of the clean
    neighbours give this bias. The median ignores a star that the network has not fitted yet.

    Args:
        residual: ``y − x̂``, ``(C, H, W)``.
        clean: bool, the same shape.

    >>> residual = torch.full((1, 32, 32), 0.25)
    >>> residual[..., 5, 5] = 9.0
    >>> local_drift(residual, residual < 1)[0, 5, 4:6]
    tensor([0.0000, 0.2500])
    """
    unknown = torch.zeros_like(residual)  # if no neighbour is clean
    found = window_median_at(torch.where(clean, residual, unknown), clean, SIDE, ~clean)
    return torch.where(clean, unknown, found)
