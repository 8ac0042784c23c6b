"""Measurements by symmetric matrices that commute, as Theorem 1 asks for.

Shapes: K problems, m measurements, X ``(K, n, n)``, Ω ``(K, n, n)``, B ``(K, m, n)``.
"""

import torch
from torch import Tensor

from dop_lightning.model.operators.base import Operator
from dop_lightning.model.operators.gaussian_sensing import count_measurements, square_side
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.randomness import stream


class CommutingSensing(Operator):
    """``A(X)ᵢ = ⟨Aᵢ, X⟩`` with ``Aᵢ = Ω diag(bᵢ) Ωᵀ``: symmetric matrices, any two of which commute (Theorem 1).

    ``A(X) = B·diag(ΩᵀXΩ)`` and ``A*(r) = Ω diag(Bᵀr) Ωᵀ``; no Aᵢ is formed. Each problem has its own Ω, uniform among
    the orthogonal matrices (Haar), and its own B with entries from N(0, 1/m), both from the stream (seed, sensing):
    ``E A*A`` is the projection to the matrices that commute with all Aᵢ.

    A sees no more of X than the n numbers ``diag(ΩᵀXΩ)``: it identifies X where X is known to commute with Ω, or by a
    bias such as that of Theorem 1.

    Args:
        problems: the batch, of square matrices and observations ``(m,)``.

    Attributes:
        basis: Ω ``(K, n, n)``, its columns the eigenvectors of all Aᵢ.
        weights: B ``(K, m, n)``, its rows the eigenvalues of the Aᵢ.

    Raises:
        ValueError: an observation is no vector, or a signal is not a square matrix.
    """

    basis: Tensor
    weights: Tensor

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__(problems)
        m = count_measurements(problems, "CommutingSensing")
        n = square_side(problems.signal_shape, "commuting measurements")
        bases, weights = [], []
        for problem in problems:
            bases.append(_orthogonal(n, stream(problem.seed, "sensing", 0)))
            generator = stream(problem.seed, "sensing", 1)
            weights.append(torch.randn(m, n, generator=generator, dtype=torch.float64, device="cpu") * m**-0.5)
        self.register_buffer("basis", torch.stack(bases).to(problems.dtype), persistent=False)
        self.register_buffer("weights", torch.stack(weights).to(problems.dtype), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """``B·diag(ΩᵀXΩ)``, ``(K, m)``."""
        diagonal = torch.bmm(signal, self.basis).mul_(self.basis).sum(dim=1)  # K n
        return torch.bmm(self.weights, diagonal.unsqueeze(2)).squeeze(2)

    def adjoint(self, residual: Tensor) -> Tensor:
        """``Ω diag(Bᵀr) Ωᵀ``, ``(K, n, n)``."""
        eigenvalues = torch.bmm(residual.unsqueeze(1), self.weights)  # K 1 n
        return torch.bmm(self.basis * eigenvalues, self.basis.mT)


def _orthogonal(n: int, generator: torch.Generator) -> Tensor:
    """A uniform orthogonal matrix: Q of a Gaussian one, with the signs for which R has a positive diagonal."""
    Q, R = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64, device="cpu"))
    diagonal = R.diagonal()
    return Q * torch.where(diagonal < 0, -torch.ones_like(diagonal), torch.ones_like(diagonal))
