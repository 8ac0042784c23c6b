"""Interpolate an image from its clean entries with a local mean and kriging of the residuals.

Kriging around a mean over many pixels is the best linear prediction of an entry from the surrounding entries in all
channels. Values vary slowly along an edge and quickly across it. Pixels are therefore classified by the edges around
them in a first interpolation (:mod:`~dop_lightning.engine.steps.clean_entries.orientation`), and the covariances are
estimated per class.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.kernel_regression import SCALES, leave_one_out
from dop_lightning.engine.steps.clean_entries.kriging import kriged
from dop_lightning.engine.steps.clean_entries.orientation import orientation

MEAN = SCALES[4:]
"""Scales σ of the local mean in pixels. A narrower mean fits the entry that it leaves out less closely than other
entries, which biases the covariances."""

MIN_CLEAN_WEIGHTS = (0.01, 0.01)
"""Minimum clean weight to accept the first scale of the local mean, and a later scale. The values are small, so nearly
all pixels use the first scale: if the scale varied between neighbours, so would the residuals."""

MIN_CLASSIFIED_PIXELS = 64 * 64
"""Minimum number of pixels for the classification of pixels. It also requires at most three channels."""


def interpolate(y: Tensor, clean: Tensor, at: Tensor | None = None, first: Tensor | None = None) -> Tensor:
    """Predict each entry of an image from the clean entries around it, without using its own value.

    Args:
        y: observation, ``(C, H, W)``. Values with ``clean`` equal to 0 are ignored.
        clean: w, probability that each entry is clean, ``(C, H, W)``, in [0, 1].
        at: bool, ``(C, H, W)``, the entries to predict; all by default. Other entries are set to the local mean.
        first: estimate of the corrupted entries, used to classify the pixels, ``(C, H, W)``. By default, an
            interpolation without classes.

    Returns:
        The prediction, ``(C, H, W)``.

    >>> y = torch.linspace(0, 1, 64).expand(1, 32, 64).clone()
    >>> clean = torch.ones_like(y)
    >>> clean[0, ::2, ::3] = 0
    >>> y[clean == 0] = 1
    >>> error = interpolate(y, clean)[0, 3:-3, 3:-3] - torch.linspace(0, 1, 64)[3:-3]
    >>> float(error.abs().max()) < 0.01
    True
    """
    mean = leave_one_out(y, clean, MEAN, MIN_CLEAN_WEIGHTS)
    channels, height, width = y.shape
    if channels > 3 or height * width < MIN_CLASSIFIED_PIXELS:
        return kriged(y, mean, clean, at)
    if first is None:
        first = kriged(y, mean, clean, clean < 1)
    kinds = orientation(torch.where(clean > 0, clean * y + (1 - clean) * first, first))
    return kriged(y, mean, clean, at, kinds)
