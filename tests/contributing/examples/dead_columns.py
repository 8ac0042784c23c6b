import torch
from torch import Tensor

from dop_lightning.foundation.checks import share
from dop_lightning.problems.noise import Corrupted, Noise


class DeadColumns(Noise):
    """Set whole columns of an image to 0.

    Args:
        ratio: expected fraction of dead columns, in [0, 1].
    """

    name = "dead_columns"

    def __init__(self, ratio: float) -> None:
        self.ratio = share("ratio", ratio)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        draws = torch.rand(clean.shape[-1], dtype=torch.float64, generator=generator)  # one per column
        hit = (draws < self.ratio).expand(clean.shape)
        return running.with_replaced(clean, hit, torch.zeros_like(clean))
