"""An object in front of the scene: one block of an image, or of a matrix, is covered."""

import math

import torch
from torch import Tensor

from dop_lightning.foundation.checks import share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import uniform


class Occlusion(Noise):
    """One rectangle of the image's proportions at a random place is set to a value, in all channels.

    The rectangle is ``H·√ratio`` by ``W·√ratio``, each rounded, so that its share is ``ratio`` up to that rounding.
    A smaller rectangle lies inside a larger one for the same seed.

    Args:
        ratio: the share of the area, in [0, 1].
        value: what the block shows, 0 (black) by default.

    Raises:
        ValueError: an argument is out of its range; at use, the signal has fewer than two dimensions.

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
        """Two draws: where the rectangle starts, as shares of the room it has."""
        if clean.ndim < 2:
            raise ValueError(
                f"Occlusion needs at least two dimensions, rows and columns, got shape {tuple(clean.shape)}"
            )
        block = []
        for size, draw in zip(clean.shape[-2:], uniform((2,), generator).tolist(), strict=True):
            length = round(size * math.sqrt(self.ratio))
            start = int(draw * (size - length + 1))
            block.append(slice(start, start + length))
        hit = torch.zeros(clean.shape, dtype=torch.bool)
        hit[..., block[0], block[1]] = True
        return running.with_replaced(clean, hit, clean.new_tensor(self.value))
