"""Dense noise: noise on all clean entries, in addition to the outliers.

Shapes: ``*m`` one observation, C×H×W for an image.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import activity

FLAT_FRACTION = 0.25
"""Fraction of held-out entries in flat regions, where the error of the estimate is smallest."""

NORMAL = 1.4826
"""Ratio of the standard deviation of normal noise to its median absolute value."""


def dense_noise(y: Tensor, estimate: Tensor, clean: Tensor, held_out: Tensor) -> float:
    """Estimate the standard deviation of the dense noise.

    The result is 1.48 times the median of ``|y − x̂|`` over the held-out clean entries in flat regions. It includes the
    error of the estimate in these regions and is therefore slightly too large.

    Args:
        y: observation, ``(*m)``.
        estimate: x̂, ``(*m)``.
        clean: probability that each entry is clean, ``(*m)``, in [0, 1].
        held_out: bool, entries to which the estimate was not fitted, ``(*m)``.

    Returns:
        Standard deviation in units of y; 0 if no clean entry was held out.
    """
    known = held_out & (clean > 0.5)
    if not bool(known.any()):
        return 0.0
    around = activity(estimate)[known]
    calm = around <= torch.kthvalue(around, max(1, round(FLAT_FRACTION * around.numel()))).values
    return NORMAL * float((y - estimate)[known][calm].abs().median())
