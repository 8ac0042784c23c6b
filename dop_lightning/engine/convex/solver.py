"""The interface of a solver of Eq. 8, ``min ‖X‖_* + λ‖s‖₁`` subject to ``A(X) + s = y`` [, X ⪰ 0].

Shapes: K problems, X ``(K, n, m)``, observations ``(K, *o)``.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.engine.convex.partial import partial_eigenvalue_threshold, partial_singular_value_threshold
from dop_lightning.engine.convex.program import ConvexProgram, matrix_shape, norms
from dop_lightning.engine.convex.proximal import eigenvalue_threshold, singular_value_threshold
from dop_lightning.foundation.checks import one_of, positive
from dop_lightning.problems.problem import ProblemBatch

Tensors = dict[str, Tensor]
"""All that a solver knows of K problems, each tensor ``(K, …)``: float64, but for ranks and flags."""

DUAL = 100.0
"""The dual residual may be so many times the tolerance: the error of X is a small multiple of either."""


class ConvexSolver(ABC):
    """Iterations on the state of K problems that do not change what they are given. Computes in float64, unless asked.

    The state holds at least ``signal`` X, ``corruption`` s, ``rank`` of X (int64, ``(K,)``) and ``converged`` (bool,
    ``(K,)``).

    Args:
        problems: the batch, of matrices.
        positive: whether X ⪰ 0 is asked for.
        svd: ``full`` decompositions, all problems at once, or ``partial`` ones of the leading values alone, problem by
            problem, which is several times faster from n of about 200 on where the rank is low.
        tolerance: a problem has converged where ``‖A(X) + s − y‖ ≤ tolerance·‖y‖`` and the conditions of optimality
            hold to 100 times as much, relative to the dual variable; from 1e-12 to below 1.
        precision: of all that is computed, whatever the type of the problems. float32 takes half the time and does not
            get below a tolerance of about 1e-6.

    Raises:
        ValueError: an argument is out of range, the signals are no matrices, or not square where X ⪰ 0.
    """

    def __init__(
        self,
        problems: ProblemBatch,
        positive: bool = False,
        svd: Literal["full", "partial"] = "full",
        tolerance: float = 1e-7,
        precision: Literal["float64", "float32"] = "float64",
    ) -> None:
        n, m = matrix_shape(problems)
        if positive and n != m:
            raise ValueError(f"positive needs square matrices, got {n}×{m}")
        self.positive = positive
        self.svd = one_of("svd", svd, ["full", "partial"])
        self.tolerance = _tolerance(tolerance)
        self.dtype = {"float64": torch.float64, "float32": torch.float32}[
            one_of("precision", precision, ["float64", "float32"])
        ]

    @abstractmethod
    def start(self, program: ConvexProgram) -> Tensors:
        """The state before the first iteration."""

    @abstractmethod
    def step(self, program: ConvexProgram, state: Tensors, active: Tensor) -> Tensors:
        """The state after one more iteration; of problems that are not ``active``, ``(K,)``, it may hold anything."""

    def blank(self, program: ConvexProgram) -> Tensors:
        """What every state holds: X = 0, s = 0."""
        y, size = program.observation, len(program.weight)
        return {
            "signal": y.new_zeros(size, *program.shape),
            "corruption": torch.zeros_like(y),
            "rank": torch.zeros(size, dtype=torch.int64, device=y.device),
            "converged": torch.zeros(size, dtype=torch.bool, device=y.device),
        }

    def threshold(self, M: Tensor, threshold: Tensor, state: Tensors, active: Tensor) -> tuple[Tensor, Tensor]:
        """The proximal operator of ``t‖X‖_*`` [, X ⪰ 0] at M.

        Args:
            M: ``(K, n, m)``; where one is not finite the result is M.
            threshold: t, ``(K,)``.
            state: where partial decompositions start.
            active: ``(K,)`` bool; where it is false the result is M.

        Returns:
            ``(K, n, m)``, and ranks ``(K,)`` where decompositions are partial (else those of the state).
        """
        usable = active & torch.isfinite(norms(M)) & torch.isfinite(threshold)
        which = torch.nonzero(usable).flatten()  # waits for the device, as a decomposition does anyway
        if self.svd == "full":
            prox = eigenvalue_threshold if self.positive else singular_value_threshold
            if len(which) == len(M):
                return prox(M, threshold), state["rank"]
            return M.index_put((which,), prox(M[which], threshold[which])), state["rank"]
        X, rank = M.clone(), state["rank"].clone()
        for k in which.tolist():
            partial = partial_eigenvalue_threshold if self.positive else partial_singular_value_threshold
            X[k], rank[k] = partial(
                M[k], threshold[k], state["signal"][k], int(state["rank"][k]), 0.01 * self.tolerance
            )
        return X, rank

    def has_converged(self, program: ConvexProgram, residual: Tensor, dual_residual: Tensor) -> Tensor:
        """``(K,)`` bool, given ``‖A(X) + s − y‖`` and the relative violation of optimality, ``(K,)`` each."""
        primal = residual <= self.tolerance * norms(program.observation)
        return primal & (dual_residual <= DUAL * self.tolerance)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, 0 where both are 0."""
    return a / b.clamp(min=torch.finfo(b.dtype).tiny)


def _tolerance(value: float) -> float:
    if positive("tolerance", value) < 1e-12 or value >= 1:
        raise ValueError(
            f"tolerance must be from 1e-12, near which rounding ends all progress, to below 1, got {value}"
        )
    return value
