"""Low-rank matrices as products of factors, ``UUᵀ`` (Eq. 3) and ``UVᵀ``, with a fixed or growing rank bound.

Shapes: K problems, n rows, m columns, rank bound r; U ``(K, n, r)``, V ``(K, m, r)``, X ``(K, n, m)``.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from dop_lightning.foundation.checks import one_of
from dop_lightning.model.part import Rate
from dop_lightning.model.signals.growing import LowRank, matrix_shape
from dop_lightning.model.signals.symmetry import symmetry_hint
from dop_lightning.problems.problem import Problem, ProblemBatch


class SymmetricFactor(LowRank):
    """``X = UUᵀ`` (Eq. 3), positive semidefinite with rank at most r.

    With ``G = ∂f/∂X``, the gradient is ``∂f/∂U = (G + Gᵀ)U``. For the quarter squared loss it is ``½(R + Rᵀ)U``, which
    equals ``A*(r)U`` of Eq. 6 if ``A*(r)`` is symmetric. Observations need not be symmetric: the corruption in the
    paper is not.

    Args:
        problems: the batch, of square matrices.
        rank: bound r' on the rank, at least 1, or the initial bound if ``growing``; ``None`` is n, no bound.
        scale: scale of the initial values, above 0 (1e-4 in section 4.1).
        start: ``gaussian`` draws ``U ~ N(0, scale²)``; ``identity`` is ``U = scale·I`` (γI of Eq. 11), or its first r'
            columns if r' < n.
        growing: whether r' is initially small (8, or ``rank``) and doubles whenever most of the directions are in use.

    Raises:
        ValueError: the matrices are not square, or an argument is out of range.
    """

    symmetric = True

    def __init__(
        self,
        problems: ProblemBatch,
        rank: int | None = None,
        scale: float = 1e-4,
        start: Literal["gaussian", "identity"] = "gaussian",
        growing: bool = False,
    ) -> None:
        n, m = matrix_shape(problems, "SymmetricFactor")
        if n != m:
            raise ValueError(f"SymmetricFactor requires square matrices, got {n}×{m}; use Factor (UVᵀ) instead")
        super().__init__(problems, rank, scale, growing)
        rank = self.first_bound
        if growing and start == "identity":
            raise ValueError("start must be 'gaussian' if growing is True, got 'identity'")
        if one_of("start", start, ["gaussian", "identity"]) == "gaussian":
            U = problems.normal((n, rank), scale, "init")
        else:
            U = torch.eye(n, rank, dtype=problems.dtype, device=problems.device).mul_(scale)
            U = U.repeat(len(problems), 1, 1)  # K n r
        self.U = nn.Parameter(U)
        self.alias_parameters()

    def forward(self, iteration: int = 0) -> Tensor:
        """Return ``UUᵀ``."""
        return torch.bmm(self.U, self.U.mT)

    def add_to_(self, r: Tensor, iteration: int) -> None:
        """Add in place, ``r += UUᵀ``."""
        (U,) = self.arrays
        r.baddbmm_(U, U.mT)

    def hint(self, problem: Problem) -> str | None:
        """Recommend another signal for a matrix that is far from symmetric."""
        return symmetry_hint(problem)

    def _gradient(self, derivative: Tensor) -> Tensor:
        """Return ``(G + Gᵀ)U``."""
        (U,) = self.arrays
        return torch.bmm(derivative, U).baddbmm_(derivative.mT, U)

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """U and U, since ``X = U·Uᵀ``."""
        return self.arrays[0], self.arrays[0]

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set ``∂f/∂U = (G + Gᵀ)U``."""
        with torch.no_grad():
            self.U.grad = self._gradient(derivative).mul_(factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """Update ``U ← U − rate·(G + Gᵀ)U`` (Eq. 6)."""
        step = self._gradient(derivative)
        if isinstance(rate, Tensor):
            step, rate = step.mul_(rate), 1.0
        self.arrays[0].add_(step, alpha=-rate)


class Factor(LowRank):
    """``X = UVᵀ``, any n×m matrix with rank at most r.

    With ``G = ∂f/∂X``, the gradients are ``∂f/∂U = GV`` and ``∂f/∂V = GᵀU``. The learning rate of θ is 2τ: for balanced
    factors, X then changes as fast as ``UUᵀ`` with τ, so that λ = 1/α in Eq. 8 also holds here.

    Args:
        problems: the batch, of matrices.
        rank: bound r' on the rank, at least 1, or the initial bound if ``growing``; ``None`` is min(n, m), no bound.
        scale: standard deviation of the initial values, ``U, V ~ N(0, scale²)``, above 0.
        growing: whether r' is initially small (8, or ``rank``) and doubles whenever most of the directions are in use.

    Raises:
        ValueError: an argument is out of range, or the signals are not matrices.
    """

    rate_scale = 2.0
    symmetric = False

    def __init__(
        self, problems: ProblemBatch, rank: int | None = None, scale: float = 1e-4, growing: bool = False
    ) -> None:
        n, m = matrix_shape(problems, "Factor")
        super().__init__(problems, rank, scale, growing)
        self.U = nn.Parameter(problems.normal((n, self.first_bound), scale, "init"))
        self.V = nn.Parameter(problems.normal((m, self.first_bound), scale, "init", 3))
        self.alias_parameters()

    def forward(self, iteration: int = 0) -> Tensor:
        """Return ``UVᵀ``."""
        return torch.bmm(self.U, self.V.mT)

    def add_to_(self, r: Tensor, iteration: int) -> None:
        """Add in place, ``r += UVᵀ``."""
        U, V = self.arrays
        r.baddbmm_(U, V.mT)

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """U and V, since ``X = U·Vᵀ``."""
        return self.arrays[0], self.arrays[1]

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set ``∂f/∂U = GV`` and ``∂f/∂V = GᵀU``."""
        with torch.no_grad():
            self.U.grad = torch.bmm(derivative, self.V).mul_(factor)
            self.V.grad = torch.bmm(derivative.mT, self.U).mul_(factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """Update ``U ← U − rate·GV`` and ``V ← V − rate·GᵀU`` simultaneously."""
        if isinstance(rate, Tensor):
            derivative, rate = derivative * rate, 1.0
        U, V = self.arrays
        step = torch.bmm(derivative, V)
        V.baddbmm_(derivative.mT, U, alpha=-rate)
        U.add_(step, alpha=-rate)
