"""Low-rank matrices as products of factors: ``UUᵀ`` (Eq. 3) and ``UVᵀ``.

Shapes: K problems, n rows, m columns, r the rank bound; U ``(K, n, r)``, V ``(K, m, r)``, X ``(K, n, m)``.
"""

import torch
from torch import Tensor, nn

from dop_lightning.checks import at_least, positive
from dop_lightning.parts import Rate
from dop_lightning.problems import ProblemBatch
from dop_lightning.signals.base import Signal


def _matrix_shape(problems: ProblemBatch, signal: str) -> tuple[int, int]:
    shape = problems.signal_shape
    if len(shape) != 2:
        raise ValueError(f"{signal} needs a matrix, n×m, got a signal of shape {shape}")
    return shape[0], shape[1]


class SymmetricFactor(Signal):
    """``X = UUᵀ`` (Eq. 3), positive semidefinite of rank at most r.

    With ``G = ∂f/∂X`` the gradient is ``∂f/∂U = (G + Gᵀ)U``; for the quarter squared loss ``½(R + Rᵀ)U``, which is
    ``A*(r)U`` of Eq. 6 where ``A*(r)`` is symmetric. An observation that is not symmetric is allowed: the paper's own
    corruption is not.

    Args:
        problems: the batch, of square matrices.
        rank: the bound r' on the rank, at least 1; ``None`` is n: nothing is known.
        scale: standard deviation of the start, ``U ~ N(0, scale²)``, above 0 (1e-4 in section 4.1).

    Raises:
        ValueError: the matrices are not square, or an argument is out of range.
    """

    closed_form = True

    def __init__(self, problems: ProblemBatch, rank: int | None = None, scale: float = 1e-4) -> None:
        super().__init__(problems)
        n, m = _matrix_shape(problems, "SymmetricFactor")
        if n != m:
            raise ValueError(f"SymmetricFactor needs square matrices, got {n}×{m}; use Factor, UVᵀ, for those")
        rank = n if rank is None else at_least("rank", rank, 1)
        self.U = nn.Parameter(problems.normal((n, rank), positive("scale", scale), "init"))
        self.tie_arrays()

    def forward(self, iteration: int = 0) -> Tensor:
        """``UUᵀ``."""
        return torch.bmm(self.U, self.U.mT)

    def add_to_(self, r: Tensor, iteration: int) -> None:
        """``r += UUᵀ`` in place."""
        (U,) = self._arrays
        r.baddbmm_(U, U.mT)

    def _gradient(self, derivative: Tensor) -> Tensor:
        """``(G + Gᵀ)U``."""
        (U,) = self._arrays
        return torch.bmm(derivative, U).baddbmm_(derivative.mT, U)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """``∂f/∂U = (G + Gᵀ)U``."""
        with torch.no_grad():
            self.U.grad = self._gradient(derivative).mul_(factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """``U ← U − rate·(G + Gᵀ)U`` (Eq. 6)."""
        step = self._gradient(derivative)
        if isinstance(rate, Tensor):
            step, rate = step.mul_(rate), 1.0
        self._arrays[0].add_(step, alpha=-rate)


class Factor(Signal):
    """``X = UVᵀ``, any n×m matrix of rank at most r.

    With ``G = ∂f/∂X`` the gradients are ``∂f/∂U = GV`` and ``∂f/∂V = GᵀU``. θ descends at 2τ: near balance X then moves
    as fast as that of ``UUᵀ`` at τ, so that λ = 1/α in Eq. 8 holds here too.

    Args:
        problems: the batch, of matrices.
        rank: the bound r' on the rank, at least 1; ``None`` is min(n, m): nothing is known.
        scale: standard deviation of the start, ``U, V ~ N(0, scale²)``, above 0.

    Raises:
        ValueError: an argument is out of range or the signals are not matrices.
    """

    closed_form = True
    rate_scale = 2.0

    def __init__(self, problems: ProblemBatch, rank: int | None = None, scale: float = 1e-4) -> None:
        super().__init__(problems)
        n, m = _matrix_shape(problems, "Factor")
        rank = min(n, m) if rank is None else at_least("rank", rank, 1)
        self.U = nn.Parameter(problems.normal((n, rank), positive("scale", scale), "init"))
        self.V = nn.Parameter(problems.normal((m, rank), scale, "init", 3))
        self.tie_arrays()

    def forward(self, iteration: int = 0) -> Tensor:
        """``UVᵀ``."""
        return torch.bmm(self.U, self.V.mT)

    def add_to_(self, r: Tensor, iteration: int) -> None:
        """``r += UVᵀ`` in place."""
        U, V = self._arrays
        r.baddbmm_(U, V.mT)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """``∂f/∂U = GV``, ``∂f/∂V = GᵀU``."""
        with torch.no_grad():
            self.U.grad = torch.bmm(derivative, self.V).mul_(factor)
            self.V.grad = torch.bmm(derivative.mT, self.U).mul_(factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """``U ← U − rate·GV``, ``V ← V − rate·GᵀU``, both from the old values."""
        if isinstance(rate, Tensor):
            derivative, rate = derivative * rate, 1.0
        U, V = self._arrays
        step = torch.bmm(derivative, V)
        V.baddbmm_(derivative.mT, U, alpha=-rate)
        U.add_(step, alpha=-rate)
