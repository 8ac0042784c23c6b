"""Measurements with missing entries: ``M∘A``.

Shapes: K problems, X ``(K, *n)``, observations ``(K, *m)``.
"""

import torch
from torch import Tensor

from dop_lightning.model.operators.base import Operator
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch


class Masked(Operator):
    """``M∘A(X)``, where M is the mask of a problem, 1 where a measurement is known. The adjoint is ``A*(M∘r)``.

    Args:
        problems: the batch.
        operator: operator A of the same batch.

    Raises:
        ValueError: the problems have no mask.
    """

    mask: Tensor

    def __init__(self, problems: ProblemBatch, operator: Operator) -> None:
        super().__init__(problems)
        if problems.mask is None:
            raise ValueError(f"Masked requires problems with a mask, {problems.names[0]!r} has none")
        self.operator = operator
        self.capturable = operator.capturable
        self.register_buffer("mask", problems.mask.to(problems.dtype), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Return ``M∘A(X)``."""
        return torch.mul(self.operator(signal), self.mask)

    def adjoint(self, residual: Tensor) -> Tensor:
        """Return ``A*(M∘r)``."""
        return self.operator.adjoint(torch.mul(residual, self.mask))

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """Add in place, ``r += M∘A(φ(θ))``. r must be 0 at missing measurements."""
        self.operator.add_forward_(r, signal, iteration)
        r.mul_(self.mask)
