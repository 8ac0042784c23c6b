"""Draws that several noises share, in float64 on the CPU.

Shapes: ``*m`` the shape of one signal, ``C H W`` that of an image.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import one_of

Per = Literal["entry", "pixel"]
"""Whether every array entry is drawn by itself, or the channels of a pixel share one draw."""


def check_per(per: Per) -> Per:
    """Return ``per`` if it is known."""
    one_of("per", per, ["entry", "pixel"])
    return per


def check_range(low: float, high: float) -> tuple[float, float]:
    """Return ``(low, high)`` if both are finite and in order."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low must be finite and below high, got low {low!r} and high {high!r}")
    return low, high


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1), float64, so that every floating type of a signal sees the same draw."""
    return torch.rand(tuple(shape), dtype=torch.float64, generator=generator)


def uniform_per(shape: Sequence[int], per: Per, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1): one draw an entry, ``(*m)``, or one a pixel, ``(1, H, W)``, which broadcasts over channels.

    Raises:
        ValueError: one draw a pixel is asked of what is no image.
    """
    if per == "entry":
        return uniform(shape, generator)
    if len(shape) != 3:
        raise ValueError(f"per='pixel' needs an image of shape (C, H, W), got shape {tuple(shape)}")
    return uniform((1, *shape[1:]), generator)
