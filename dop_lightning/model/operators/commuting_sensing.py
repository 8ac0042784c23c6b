"""Measurements with symmetric matrices that commute, as required by Theorem 1.

Shapes: K problems, m measurements, X ``(K, n, n)``, Ω ``(K, n, n)``, B ``(K, m, n)``.
"""

import torch
from torch import Tensor

from dop_lightning.model.operators.base import Operator
from dop_lightning.model.operators.gaussian_sensing import count_measurements, square_side
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.randomness import stream


class CommutingSensing(Operator):
    """``A(X)ᵢ = ⟨Aᵢ, X⟩`` with ``Aᵢ = Ω diag(bᵢ) Ωᵀ``: symmetric matrices that commute with each other (Theorem 1).

    ``A(X) = B·diag(ΩᵀXΩ)`` and ``A*(r) = Ω diag(Bᵀr) Ωᵀ``; the matrices Aᵢ are not formed. Each problem has its own Ω,
    distributed uniformly over the orthogonal matrices (Haar measure), and its own B with entries from N(0, 1/m). Both
    are drawn from the stream (seed, sensing). ``E A*A`` is the projection onto the matrices that commute with all Aᵢ.

    A depends on X only through the n numbers ``diag(ΩᵀXΩ)``. It therefore identifies X only if X is known to commute
    with all Aᵢ, or with an additional bias such as that of Theorem 1.

    Args:
        problems: the batch, of square matrices and observations ``(m,)``.

    Attributes:
        basis: Ω ``(K, n, n)``, whose columns are the eigenvectors of all Aᵢ.
        weights: B ``(K, m, n)``, whose rows are the eigenvalues of the Aᵢ.

    Raises:
        ValueError: an observation is not a vector, or a signal is not a square matrix.
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
        """Return ``B·diag(ΩᵀXΩ)``, ``(K, m)``."""
        diagonal = torch.bmm(signal, self.basis).mul_(self.basis).sum(dim=1)  # K n
        return torch.bmm(self.weights, diagonal.unsqueeze(2)).squeeze(2)

    def adjoint(self, residual: Tensor) -> Tensor:
        """Return ``Ω diag(Bᵀr) Ωᵀ``, ``(K, n, n)``."""
        eigenvalues = torch.bmm(residual.unsqueeze(1), self.weights)  # K 1 n
        return torch.bmm(self.basis * eigenvalues, self.basis.mT)


def _orthogonal(n: int, generator: torch.Generator) -> Tensor:
    """Return a uniform orthogonal matrix: Q of a Gaussian matrix, with signs that make the diagonal of R positive."""
    Q, R = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64, device="cpu"))
    diagonal = R.diagonal()
    return Q * torch.where(diagonal < 0, -torch.ones_like(diagonal), torch.ones_like(diagonal))
