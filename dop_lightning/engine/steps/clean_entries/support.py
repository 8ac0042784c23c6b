"""Estimate which entries are clean, before any network is fitted.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.estimate import clean_probability
from dop_lightning.engine.steps.clean_entries.interpolation import interpolate
from dop_lightning.engine.steps.clean_entries.medians import window_median
from dop_lightning.engine.steps.clean_entries.sharp import Sign
from dop_lightning.engine.steps.clean_entries.structure import SIDE

ROUNDS = 2
"""Number of rounds, alternating between support and regression."""

SAMPLE = 2000
"""Approximate number of pixels from which the error of the estimates is measured."""


def first_support(
    y: Tensor, scale: float = 1.0, observed: Tensor | None = None, per_pixel: bool = False, sign: Sign = "auto"
) -> Tensor:
    """Return the probability that each entry is clean, ``(C, H, W)``, from medians and then by regression.

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
    >>> clean = first_support(y)[0]
    >>> bool((clean[::5, ::5] < 0.1).all()), bool((clean[1::5] > 0.9).all())
    (True, True)
    """
    known = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    drawn = torch.rand(y.shape[1:], generator=torch.Generator().manual_seed(0), device="cpu")
    sample = (drawn < SAMPLE / drawn.numel()).to(y.device).expand(y.shape)
    estimate = window_median(y, known, SIDE)
    clean = clean_probability(y, estimate, sample, scale, observed, per_pixel, sign)
    for _ in range(ROUNDS - 1):
        clean = clean_probability(y, interpolate(y, clean), sample, scale, observed, per_pixel, sign)
    return clean
