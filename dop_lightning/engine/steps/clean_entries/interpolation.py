"""Interpolate an image from its clean entries: a local mean, and kriging of what it misses.

Kriging around a mean over many pixels is the best linear prediction of an entry from those around it in its own channel
and in the others. Values are alike along an edge and not across it, so classes of pixels by the edges around them
(:mod:`~dop_lightning.engine.steps.clean_entries.orientation`), found in a first interpolation, have covariances of
their own.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.kernel_regression import SCALES, leave_one_out
from dop_lightning.engine.steps.clean_entries.kriging import kriged
from dop_lightning.engine.steps.clean_entries.orientation import orientation

MEAN = SCALES[4:]
"""σ of the local mean in pixels. A narrower mean follows the entries that it leaves out less than others, which spoils
the covariances."""

FEW = (0.01, 0.01)
"""Share of clean weight from which the local mean has its first scale: if it varied between neighbours, so would their
residuals."""

CLASSIFIED = 64 * 64
"""Least pixels of an image with classes, which has at most three channels."""


def interpolate(y: Tensor, clean: Tensor, at: Tensor | None = None, first: Tensor | None = None) -> Tensor:
    """Predict the entries of an image, each without itself, from the clean entries around it.

    Args:
        y: the observation, ``(C, H, W)``; ignored where nothing is clean.
        clean: w, in [0, 1], the same shape.
        at: bool, ``(C, H, W)``, the entries to predict; by default all. Others have the local mean.
        first: an estimate of the entries that are not clean, from which the classes of pixels are found; by default
            an interpolation without classes.

    >>> y = torch.linspace(0, 1, 64).expand(1, 32, 64).clone()
    >>> clean = torch.ones_like(y)
    >>> clean[0, ::2, ::3] = 0
    >>> y[clean == 0] = 1
    >>> error = interpolate(y, clean)[0, 3:-3, 3:-3] - torch.linspace(0, 1, 64)[3:-3]
    >>> float(error.abs().max()) < 0.01
    True
    """
    mean = leave_one_out(y, clean, MEAN, FEW)
    channels, height, width = y.shape
    if channels > 3 or height * width < CLASSIFIED:
        return kriged(y, mean, clean, at)
    if first is None:
        first = kriged(y, mean, clean, clean < 1)
    kinds = orientation(torch.where(clean > 0, clean * y + (1 - clean) * first, first))
    return kriged(y, mean, clean, at, kinds)
