"""Commuting measurements to verify Theorem 1 with."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.operators import Operator
from dop_lightning.model.signals import SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.part import draw


class Commuting(Operator):
    """``A(X)ᵢ = ⟨Ω·diag(bᵢ)·Ωᵀ, X⟩``, the same for every problem."""

    def __init__(self, problems: ProblemBatch, B: Tensor, basis: Tensor) -> None:
        super().__init__(problems)
        self.B, self.basis = B, basis

    def forward(self, signal: Tensor) -> Tensor:
        return torch.einsum("ji,kjl,li->ki", self.basis, signal, self.basis) @ self.B.mT

    def adjoint(self, residual: Tensor) -> Tensor:
        return (self.basis * (residual @ self.B).unsqueeze(1)) @ self.basis.mT


@dataclass
class Case:
    """One problem ``y = Bx + s`` in the eigenvalues."""

    B: Tensor
    basis: Tensor
    y: Tensor
    x: Tensor
    s: Tensor

    def operator(self, problems: ProblemBatch) -> Operator:
        return Commuting(problems, self.B, self.basis)

    @property
    def problems(self) -> ProblemBatch:
        n = self.B.shape[1]
        return ProblemBatch([Problem("case", self.y, signal_shape=(n, n))])

    def state(self, gamma: float, alpha: float, tau: float) -> BatchState:
        """Gradient descent from the start of Eq. 11."""
        method = Method(
            partial(SymmetricFactor, scale=gamma, start="identity"),
            partial(HadamardCorruption, scale=gamma, start="constant"),
            self.operator,
        )
        return BatchState(method, self.problems, tau, alpha)


def case(n: int = 10, m: int = 30, rank: int = 3, outliers: int = 3, seed: int = 0) -> Case:
    """Few eigenvalues between 0.5 and 1.5, few outliers ±N(2, 0.3²), and bᵢ ~ N(0, ½²)."""
    basis = torch.linalg.qr(draw(1000 + seed, (n, n))).Q
    B = 0.5 * draw(2000 + seed, (m, n))
    x, s = torch.zeros(n, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    x[:rank] = 0.5 + draw(3000 + seed, (rank,)).sigmoid()
    s[:outliers] = draw(4000 + seed, (outliers,)).sign() * (2 + 0.3 * draw(5000 + seed, (outliers,)))
    return Case(B, basis, B @ x + s, x, s)
