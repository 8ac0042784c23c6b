import torch
from torch import Tensor, nn

from dop_lightning.model.corruption import Corruption
from dop_lightning.model.part import Rate
from dop_lightning.problems.problem import ProblemBatch


class CubicCorruption(Corruption):
    """``s = g³ − h³``, starting at 0 with all entries of g and h equal.

    Args:
        problems: the batch.
        scale: g and h at the start, above 0.
    """

    def __init__(self, problems: ProblemBatch, scale: float = 1e-2) -> None:
        super().__init__(problems)
        self.g = nn.Parameter(torch.full_like(problems.observation, scale))
        self.h = nn.Parameter(torch.full_like(problems.observation, scale))
        self.alias_parameters()  # self.arrays are the parameters as plain tensors

    def value(self) -> Tensor:
        return self.g**3 - self.h**3

    def add_to_(self, r: Tensor) -> None:
        g, h = self.arrays
        r.add_(g**3 - h**3)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        g, h = self.arrays
        self.g.grad = derivative * g.square() * (3 * factor)
        self.h.grad = derivative * h.square() * (-3 * factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        g, h = self.arrays
        g.sub_(derivative * g.square() * (3 * rate))
        h.add_(derivative * h.square() * (3 * rate))
