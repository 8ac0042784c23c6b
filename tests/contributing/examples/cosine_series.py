import math

import torch
from torch import Tensor, nn

from dop_lightning.model.signals import Signal
from dop_lightning.problems.problem import ProblemBatch


class CosineSeries(Signal):
    """Smooth images ``X = B·θ·Dᵀ`` with the lowest frequencies of the cosine transform.

    Args:
        problems: K images, C×H×W.
        terms: number of frequencies along each side, at least 1.
        scale: standard deviation of θ at the start.
    """

    def __init__(self, problems: ProblemBatch, terms: int = 8, scale: float = 1e-3) -> None:
        super().__init__(problems)
        channels, height, width = problems.signal_shape
        for name, size in (("rows", height), ("columns", width)):
            angles = math.pi / size * torch.outer(torch.arange(size) + 0.5, torch.arange(terms))
            self.register_buffer(name, angles.cos().to(problems.observation), persistent=False)  # size×terms
        self.theta = nn.Parameter(problems.normal((channels, terms, terms), scale, "init"))  # K C terms terms

    def forward(self, iteration: int = 0) -> Tensor:
        return self.rows @ self.theta @ self.columns.T
