"""Random draws shared by several noises, in float64 on the CPU.

Shapes: ``*m`` is the shape of one signal, ``C H W`` that of an image.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import one_of

Per = Literal["entry", "pixel"]
"""Whether array entries are drawn independently, or all channels of a pixel share one draw."""


def check_per(per: Per) -> Per:
    """Return ``per`` if it is valid."""
    one_of("per", per, ["entry", "pixel"])
    return per


def check_range(low: float, high: float) -> tuple[float, float]:
    """Return ``(low, high)`` if both are finite and in order."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low must be finite and below high, got low {low!r} and high {high!r}")
    return low, high


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw uniformly from [0, 1) in float64, so that the draw does not depend on the dtype of the signal."""
    return torch.rand(tuple(shape), dtype=torch.float64, generator=generator)


def uniform_per(shape: Sequence[int], per: Per, generator: torch.Generator) -> Tensor:
    """Draw uniformly from [0, 1): one per entry, ``(*m)``, or one per pixel, ``(1, H, W)``, to broadcast over channels.

    Raises:
        ValueError: ``per`` is ``pixel``, but the shape is not that of an image.
    """
    if per == "entry":
        return uniform(shape, generator)
    if len(shape) != 3:
        raise ValueError(f"per='pixel' requires an image of shape (C, H, W), got shape {tuple(shape)}")
    return uniform((1, *shape[1:]), generator)
