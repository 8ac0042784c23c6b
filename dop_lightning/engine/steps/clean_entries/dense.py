"""Dense noise: what every clean entry of an observation carries, beside the outliers.

Shapes: ``*m`` one observation, C×H×W for an image.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.activity import activity

CALM = 0.25
"""Share of the entries that counts as calm, where an estimate errs least."""

NORMAL = 1.4826
"""The standard deviation of normal noise over the median of its absolute value."""


def dense_noise(y: Tensor, estimate: Tensor, clean: Tensor, held_out: Tensor) -> float:
    """An estimate of the standard deviation of the dense noise.

    It is 1.48 times the median of ``|y − x̂|`` over the clean entries that were held out, in the calm parts of the
    image. The error of the estimate there is in it as well, so that it is rather too large.

    Args:
        y: the observation, ``(*m)``.
        estimate: x̂.
        clean: the probability of each entry that it is clean.
        held_out: bool, entries that the estimate was not fitted to.

    Returns:
        In units of y; 0 where no clean entry was held out.
    """
    known = held_out & (clean > 0.5)
    if not bool(known.any()):
        return 0.0
    around = activity(estimate)[known]
    calm = around <= torch.kthvalue(around, max(1, round(CALM * around.numel()))).values
    return NORMAL * float((y - estimate)[known][calm].abs().median())
