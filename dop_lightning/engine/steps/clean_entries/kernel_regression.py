r"""A kernel regression that never sees the entry that it predicts.

The normalised convolution [Knutsson & Westin, 1993] without the centre of its kernel: at each place p,

    ``x̃_σ(p) = Σ_{q≠p} G_σ(p − q)·w(q)·y(q) / W_σ(p)``,  ``W_σ(p) = Σ_{q≠p} G_σ(p − q)·w(q)``,

a mean of the entries around p, as far as they are clean (w), with a normal distribution G_σ. It needs no fit and takes
a moment. Since y(p) has no part in x̃(p), the error at clean entries is that at corrupted ones: it is honest, and a
network that is given x̃ cannot learn to copy.

σ grows from place to place until enough clean entries are near.

Shapes: C×H×W, an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.blur import blur, gaussian

SCALES = (0.6, 0.8, 1.2, 2.0, 4.0, 8.0, 16.0, 32.0)
"""σ, in pixels, from which one is taken at each place."""

ENOUGH, ENOUGH_LATER = 0.3, 0.15
"""The share W of clean weight at which the first scale, and a later one, is taken."""

SMOOTHER = (0, 2, 3)
"""The scales at which a regression may begin: larger ones take out dense noise."""


def leave_one_out(y: Tensor, clean: Tensor, scales: Sequence[float] = SCALES) -> Tensor:
    """x̃ at the smallest scale at which enough clean entries are near; the largest where there never are.

    Args:
        y: the observation, ``(C, H, W)``.
        clean: w, in [0, 1], the same shape.
        scales: σ in pixels, above 0, ascending.

    >>> y = torch.full((1, 8, 8), 0.5)
    >>> y[0, 4, 4] = 1.0
    >>> round(float(leave_one_out(y, torch.ones_like(y))[0, 4, 4]), 4)
    0.5
    """
    known = clean > 0
    weighted = torch.cat([clean, torch.where(known, clean * y, 0)])  # what was not observed may be anything
    channels = y.shape[0]
    estimate, settled = torch.zeros_like(y), torch.zeros_like(known)
    for number, scale in enumerate(scales):
        line = gaussian(int(3 * scale + 1), scale, like=y)
        centre = float(line.max().square())
        around = (blur(weighted, line, "reflect") - centre * weighted) / (1 - centre)
        weight = around[:channels].clamp_min(0)
        here = around[channels:] / weight.clamp_min(1e-9)
        estimate = torch.where(settled | (weight < 1e-6), estimate, here)
        settled = settled | (weight > (ENOUGH if number == 0 else ENOUGH_LATER))
        if bool(settled.all()):
            break
    return estimate


def regression(y: Tensor, clean: Tensor) -> Tensor:
    """x̃ from the scale of :data:`SMOOTHER` on at which its error at clean entries, ``Σ w|y − x̃| / Σ w``, is least."""
    tried = [leave_one_out(y, clean, SCALES[begin:]) for begin in SMOOTHER]
    return min(tried, key=lambda estimate: float((clean * (y - estimate).abs()).sum()))
