"""Measurements of which some are missing: ``M∘A``.

Shapes: K problems, X ``(K, *n)``, observations ``(K, *m)``.
"""

import torch
from torch import Tensor

from dop_lightning.model.operators.base import Operator
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch


class Masked(Operator):
    """``M∘A(X)`` with M the masks of the problems, 1 where a measurement is known; the adjoint is ``A*(M∘r)``.

    Args:
        problems: the batch.
        operator: A of the same batch.

    Raises:
        ValueError: the problems have no mask.
    """

    mask: Tensor

    def __init__(self, problems: ProblemBatch, operator: Operator) -> None:
        super().__init__(problems)
        if problems.mask is None:
            raise ValueError(f"Masked needs problems with a mask, {problems.names[0]!r} has none")
        self.operator = operator
        self.capturable = operator.capturable
        self.register_buffer("mask", problems.mask.to(problems.dtype), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """``M∘A(X)``."""
        return torch.mul(self.operator(signal), self.mask)

    def adjoint(self, residual: Tensor) -> Tensor:
        """``A*(M∘r)``."""
        return self.operator.adjoint(torch.mul(residual, self.mask))

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """``r += M∘A(φ(θ))``, where r is 0 at what is not known."""
        self.operator.add_forward_(r, signal, iteration)
        r.mul_(self.mask)
