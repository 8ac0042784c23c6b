"""Dense Gaussian noise on every entry, which a sparse corruption cannot explain."""

import torch
from torch import Tensor

from dop_lightning.foundation.checks import positive
from dop_lightning.problems.noise.base import Corrupted, Noise


class GaussianNoise(Noise):
    """Add N(0, std²) to every entry. It is not part of the corruption s*.

    Args:
        std: standard deviation in units of the signal, above 0.

    Raises:
        ValueError: ``std`` is not a finite number above 0.
    """

    name = "gaussian"

    def __init__(self, std: float) -> None:
        self.std = positive("std", std)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw one value per entry."""
        dense = self.std * torch.randn(clean.shape, dtype=torch.float64, generator=generator)
        return Corrupted(running.observation + dense.to(clean.dtype), running.corruption, running.mask)
