"""What an estimate is off by on the whole, around an entry.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from dop_lightning.engine.steps.clean_entries.medians import window_median_at

SIDE = 11
"""Side of the window, pixels: so wide that the noise in it hardly matters."""

DEVIATION = 2.0
"""Of the normal distribution by which the neighbours of a plain count, pixels."""

PLAIN, UNEVEN = 1.5, 3.0
"""Variance of the entries around, over that of the noise: up to the first they are a plain, from the second on not."""


def filled(y: Tensor, estimate: Tensor, clean: Tensor, noise: float) -> Tensor:
    """Values for the entries that are not clean, of a frame that noise limits; the estimate at the others.

    Where the clean entries around differ by no more than their noise, they are a plain, and their mean is the best that
    can be said: a network follows the noise of some. Elsewhere it is the estimate and its :func:`local_drift`.

    Args:
        y: the frame, ``(C, H, W)``.
        estimate: x̂.
        clean: bool, the same shape.
        noise: the standard deviation of the noise in the darker part, above 0.
    """
    mean, variance = _around(y, clean)
    uneven = ((variance / noise**2 - PLAIN) / (UNEVEN - PLAIN)).clamp(0, 1)
    drawn = estimate + local_drift(y - estimate, clean)
    return torch.where(clean, estimate, uneven * drawn + (1 - uneven) * mean)


def _around(y: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean and variance of the clean entries around each; of none a variance that is infinite."""
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
    """The median of the residuals of the clean entries around each entry that is not clean; 0 at the others.

    A network that has fitted bright stars may be off by a little in all of the sky. What it has left over of the clean
    neighbours tells by how much. The median is not misled by a star that it has not fitted yet.

    Args:
        residual: ``y − x̂``, ``(C, H, W)``.
        clean: bool, the same shape.

    >>> residual = torch.full((1, 32, 32), 0.25)
    >>> residual[..., 5, 5] = 9.0
    >>> local_drift(residual, residual < 1)[0, 5, 4:6]
    tensor([0.0000, 0.2500])
    """
    unknown = torch.zeros_like(residual)  # where no neighbour is clean
    found = window_median_at(torch.where(clean, residual, unknown), clean, SIDE, ~clean)
    return torch.where(clean, unknown, found)
