"""Dense noise: the noise on every clean entry, besides the outliers.

Shapes: ``*m`` one observation, C×H×W for an image.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import activity

CALM = 0.25
"""Share of the entries that count as calm, where an estimate errs least."""

NORMAL = 1.4826
"""Ratio of the standard deviation of normal noise to the median of its absolute value."""


def dense_noise(y: Tensor, estimate: Tensor, clean: Tensor, held_out: Tensor) -> float:
    """Estimate the standard deviation of the dense noise.

    It is 1.48 times the median of ``|y − x̂|`` over the held-out clean entries in the calm parts of the image. It
    includes the error of the estimate there, and is therefore slightly too large.

    Args:
        y: the observation, ``(*m)``.
        estimate: x̂.
        clean: probability that each entry is clean.
        held_out: bool, entries that the estimate was not fitted to.

    Returns:
        In units of y; 0 if no clean entry was held out.
    """
    known = held_out & (clean > 0.5)
    if not bool(known.any()):
        return 0.0
    around = activity(estimate)[known]
    calm = around <= torch.kthvalue(around, max(1, round(CALM * around.numel()))).values
    return NORMAL * float((y - estimate)[known][calm].abs().median())
