"""Occlusion: one block of an image or matrix is covered, as by an object in front of the scene."""

import math

import torch
from torch import Tensor

from dop_lightning.foundation.checks import share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import uniform


class Occlusion(Noise):
    """Set a rectangle at a random position, with the aspect ratio of the image, to a value in all channels.

    The rectangle is ``H·√ratio`` by ``W·√ratio``, each rounded, so that it covers a fraction ``ratio`` of the area, up
    to rounding. For the same seed, smaller rectangles are inside larger ones.

    Args:
        ratio: fraction of the area, in [0, 1].
        value: value of the block, by default 0 (black).

    Raises:
        ValueError: an argument is out of range, or the signal has fewer than two dimensions.

    >>> from dop_lightning.problems.randomness import stream
    >>> image = torch.ones(3, 16, 16)
    >>> int(Occlusion(0.25).corrupt(image, stream(0, "corruption")).corruption[0].count_nonzero())
    64
    """

    name = "occlusion"

    def __init__(self, ratio: float, value: float = 0.0) -> None:
        self.ratio = share("ratio", ratio)
        if not math.isfinite(value):
            raise ValueError(f"value must be finite, got {value!r}")
        self.value = value

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw two values: the position of the rectangle, relative to the free space in each direction."""
        if clean.ndim < 2:
            raise ValueError(
                f"Occlusion requires at least two dimensions, rows and columns, got shape {tuple(clean.shape)}"
            )
        block = []
        for size, draw in zip(clean.shape[-2:], uniform((2,), generator).tolist(), strict=True):
            length = round(size * math.sqrt(self.ratio))
            start = int(draw * (size - length + 1))
            block.append(slice(start, start + length))
        hit = torch.zeros(clean.shape, dtype=torch.bool)
        hit[..., block[0], block[1]] = True
        return running.with_replaced(clean, hit, clean.new_tensor(self.value))
