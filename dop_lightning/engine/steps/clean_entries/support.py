"""Estimate which entries are clean, before any network is fitted.

Shapes: C×H×W, an image.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.estimate import clean_and_diversity
from dop_lightning.engine.steps.clean_entries.interpolation import interpolate
from dop_lightning.engine.steps.clean_entries.medians import window_median
from dop_lightning.engine.steps.clean_entries.sharp import Sign
from dop_lightning.engine.steps.clean_entries.structure import SIDE

ROUNDS, ROUNDS_OF_RANDOM = 4, 2
"""Most rounds of support and interpolation, and those for outliers of random values: with more of these, a support that
is too small is confirmed by what it leaves out."""

SETTLED = 3e-4
"""Mean change of w in a round below which there is no further one."""

SAMPLE = 2000
"""Approximate number of pixels from which the error of the estimates is measured."""


class FirstSupport(NamedTuple):
    """What is known of the corruption before any fit.

    Attributes:
        clean: probability that each entry is clean, ``(C, H, W)``.
        diversity: of the values of outliers: 0 if they are few, such as those of dead and hot pixels, 1 if random.
    """

    clean: Tensor
    diversity: float


def first_support(
    y: Tensor, scale: float = 1.0, observed: Tensor | None = None, per_pixel: bool = False, sign: Sign = "auto"
) -> FirstSupport:
    """Estimate which entries are clean, from medians and then by interpolation.

    The mixture is that of :func:`~dop_lightning.engine.steps.clean_entries.estimate.clean_probability`. No estimate
    uses the entry that it predicts, so any entries can serve as held-out ones: a sample, drawn with a fixed seed.

    Args:
        y: the observation, ``(C, H, W)``.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` for all.
        per_pixel: whether the channels of a pixel are corrupted together.
        sign: of the outliers.

    >>> y = torch.full((1, 32, 32), 0.5)
    >>> y[0, ::5, ::5] = 1.0
    >>> clean = first_support(y).clean[0]
    >>> bool((clean[::5, ::5] < 0.1).all()), bool((clean[1::5] > 0.9).all())
    (True, True)
    """
    known = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    drawn = torch.rand(y.shape[1:], generator=torch.Generator().manual_seed(0), device="cpu")
    sample = (drawn < SAMPLE / drawn.numel()).to(y.device).expand(y.shape)
    estimate = window_median(y, known, SIDE)
    found = FirstSupport(known.to(y.dtype), 0.0)
    for number in range(ROUNDS):
        before = found.clean
        found = FirstSupport(
            *clean_and_diversity(y, estimate, sample, scale, observed, per_pixel, sign, calibrated=True)
        )
        last = (ROUNDS_OF_RANDOM if found.diversity > 0 else ROUNDS) - 1
        if number >= last or float((found.clean - before).abs().mean()) < SETTLED:
            break
        estimate = interpolate(y, found.clean)
    return found
