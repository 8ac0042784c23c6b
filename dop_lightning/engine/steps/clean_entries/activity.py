"""Local activity of an image. Networks are accurate in flat regions and make larger errors at edges.

Shapes: C×H×W images, ``*m`` any observation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from dop_lightning.engine.steps.clean_entries.sorting import ascending

SIDE = 3
"""Side length of the window, in pixels."""

MAX_SAMPLES = 100_000
"""Approximate size of the subsample from which the class boundaries are computed."""


def activity(estimate: Tensor) -> Tensor:
    """Return the local standard deviation of an estimate in a 3×3 window, averaged over the channels.

    Args:
        estimate: image, ``(C, H, W)``. Entries of tensors with another number of dimensions have no neighbours.

    Returns:
        Nonnegative tensor of the shape of ``estimate``; zeros if ``estimate`` is not an image. The channels share
        memory.

    >>> step = torch.tensor([[[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]])
    >>> activity(step).flatten().round(decimals=2)
    tensor([0.0000, 0.0000, 0.4700, 0.4700, 0.0000, 0.0000])
    """
    if estimate.dim() != 3:
        return torch.zeros_like(estimate)
    around = pad(estimate[None], [SIDE // 2] * 4, mode="replicate")[0]
    variance = _box_mean(around.square()) - _box_mean(around).square()
    return variance.clamp_min_(0).sqrt_().mean(dim=0).expand_as(estimate)


def _box_mean(around: Tensor) -> Tensor:
    """Return the means of all windows inside ``(C, H, W)``; on a CPU, many times faster than ``avg_pool2d``."""
    for axis in (1, 2):
        length = around.shape[axis] - SIDE + 1
        around = sum((around.narrow(axis, step, length) for step in range(1, SIDE)), around.narrow(axis, 0, length))
    return around / SIDE**2


def activity_classes(values: Tensor, ranks: Sequence[float]) -> Tensor:
    """Assign entries to classes by activity, which is the same in all channels; see :func:`classes`."""
    if values.dim() != 3:
        return classes(values, ranks)
    return classes(values[:1], ranks).expand_as(values)


def classes(values: Tensor, ranks: Sequence[float]) -> Tensor:
    """Assign entries to classes by value; int64, the shape of ``values``.

    Args:
        values: tensor of any shape.
        ranks: quantile levels of the class boundaries, ascending, in [0, 1).

    >>> classes(torch.tensor([0.1, 0.9, 0.2, 0.8]), [0.5]).tolist()
    [0, 1, 0, 1]
    """
    flat = values.flatten()
    ordered = ascending(flat[:: max(1, flat.numel() // MAX_SAMPLES)])  # quantile() supports at most 2^24 entries
    edges = ordered[[int(rank * ordered.numel()) for rank in ranks]]
    found = torch.zeros_like(values, dtype=torch.uint8)
    for edge in edges:  # for few classes, faster than bucketize()
        found += values >= edge
    return found.long()
