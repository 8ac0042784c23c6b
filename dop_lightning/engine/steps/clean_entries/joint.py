"""Detect whether the channels of a pixel are corrupted together.

Shapes: C×H×W, an image.
"""

from typing import Literal

import torch
from torch import Tensor

Per = Literal["auto", "entry", "pixel"]
"""Unit of corruption: each channel of a pixel independently, or the whole pixel; ``auto`` estimates it."""

MIN_CHANNEL_CORRELATION = 0.3
"""Correlation of the outliers of two channels above which pixels count as corrupted as a whole. It is near 0 if
channels are corrupted independently, and decreases with the fraction of outliers if pixels are corrupted as a whole."""


def are_joint(clean: Tensor, observed: Tensor | None = None) -> bool:
    """Return whether the channels of a pixel are corrupted together.

    They are if the smallest correlation of ``1 − w`` between two channels is above :data:`MIN_CHANNEL_CORRELATION`.

    Args:
        clean: w, the probability that each entry is clean, estimated for each entry independently, ``(C, H, W)``.
        observed: bool, the same shape; ``None`` for all. Pixels with unobserved channels are ignored.

    >>> one, other = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)).round()
    >>> are_joint(one.repeat(3, 1, 1)), are_joint(torch.cat([one, other])), are_joint(one)
    (True, False, False)
    """
    if len(clean) < 2:
        return False
    whole = torch.ones_like(clean[0], dtype=torch.bool) if observed is None else observed.all(dim=0)
    outlying = (1 - clean)[:, whole].double()
    deviation = outlying - outlying.mean(dim=1, keepdim=True) if outlying.numel() else outlying
    covariance = deviation @ deviation.T
    scales = covariance.diagonal().sqrt()
    if not bool((scales > 0).all()):
        return False
    return bool((covariance / scales / scales[:, None]).min() > MIN_CHANNEL_CORRELATION)
