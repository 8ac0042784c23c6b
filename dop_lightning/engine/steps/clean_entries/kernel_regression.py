r"""Leave-one-out kernel regression.

The normalised convolution [Knutsson & Westin, 1993] without the centre of its kernel: at each place p,

    ``x̃_σ(p) = Σ_{q≠p} G_σ(p − q)·w(q)·y(q) / W_σ(p)``,  ``W_σ(p) = Σ_{q≠p} G_σ(p − q)·w(q)``,

a mean of the entries around p, weighted by their cleanness w and a Gaussian G_σ. It is fast and needs no fit. Since
x̃(p) does not use y(p), the error at clean entries is an unbiased estimate of the error at corrupted ones, and a network
with x̃ in its input cannot learn to copy.

At each place, σ is the smallest scale with enough clean entries nearby.

Shapes: C×H×W, an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.blur import blur, gaussian

SCALES = (0.6, 0.8, 1.2, 2.0, 4.0, 8.0, 16.0, 32.0)
"""σ in pixels; one of them is selected at each place."""

ENOUGH, ENOUGH_LATER = 0.3, 0.15
"""Default of ``enough``."""

FIRST_SCALES = (0, 2, 3)
"""Indices of the first scale to try: larger scales remove dense noise."""


def leave_one_out(
    y: Tensor, clean: Tensor, scales: Sequence[float] = SCALES, enough: tuple[float, float] = (ENOUGH, ENOUGH_LATER)
) -> Tensor:
    """Return x̃ at the smallest scale with enough clean entries nearby, or at the largest scale.

    Args:
        y: the observation, ``(C, H, W)``.
        clean: w, in [0, 1], the same shape.
        scales: σ in pixels, above 0, ascending.
        enough: fraction W of clean weight above which the first scale, and any later one, is accepted.

    >>> y = torch.full((1, 8, 8), 0.5)
    >>> y[0, 4, 4] = 1.0
    >>> round(float(leave_one_out(y, torch.ones_like(y))[0, 4, 4]), 4)
    0.5
    """
    known = clean > 0
    weighted = torch.cat([clean, torch.where(known, clean * y, 0)])  # unobserved values are arbitrary
    channels = y.shape[0]
    estimate, settled = torch.zeros_like(y), torch.zeros_like(known)
    for number, scale in enumerate(scales):
        line = gaussian(int(3 * scale + 1), scale, like=y)
        centre = float(line.max().square())
        around = (blur(weighted, line, "reflect") - centre * weighted) / (1 - centre)
        weight = around[:channels].clamp_min(0)
        here = around[channels:] / weight.clamp_min(1e-9)
        estimate = torch.where(settled | (weight < 1e-6), estimate, here)
        settled = settled | (weight > enough[min(number, 1)])
        if bool(settled.all()):
            break
    return estimate


def regression(y: Tensor, clean: Tensor) -> Tensor:
    """Return x̃ for the first scale in :data:`FIRST_SCALES` that minimizes the clean-entry error, ``Σ w|y − x̃|/Σ w``."""
    tried = [leave_one_out(y, clean, SCALES[begin:]) for begin in FIRST_SCALES]
    return min(tried, key=lambda estimate: float((clean * (y - estimate).abs()).sum()))
