"""Interface of solvers of Eq. 8, ``min ‖X‖_* + λ‖s‖₁`` subject to ``A(X) + s = y`` [, X ⪰ 0].

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
"""Solver state of K problems, each tensor ``(K, …)``, in the precision of the solver except for ranks and flags."""

DUAL = 100.0
"""Dual tolerance as a multiple of the tolerance: the error of X is a small multiple of either residual."""


class ConvexSolver(ABC):
    """Iterations on the state of K problems. A step returns a new state and does not modify its arguments.

    The state holds at least ``signal`` X, ``corruption`` s, ``rank`` of X (int64, ``(K,)``) and ``converged`` (bool,
    ``(K,)``).

    Args:
        problems: batch of matrices.
        positive: whether to constrain X ⪰ 0.
        svd: ``full``: full decompositions of all problems at once. ``partial``: only the leading values, one problem at
            a time, which is several times faster for n above about 200 if the rank is low.
        tolerance: a problem has converged if ``‖A(X) + s − y‖ ≤ tolerance·‖y‖`` and the optimality conditions hold to
            100 times the tolerance, relative to the dual variable; at least 1e-12 and below 1.
        precision: of all computations, regardless of the dtype of the problems. float32 takes half the time but does
            not reach tolerances below about 1e-6.

    Raises:
        ValueError: an argument is out of range, the signals are not matrices, or ``positive`` is set and they are not
            square.
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
            raise ValueError(f"positive requires square matrices, got {n}×{m}")
        self.positive = positive
        self.svd = one_of("svd", svd, ["full", "partial"])
        self.tolerance = _check_tolerance(tolerance)
        self.dtype = {"float64": torch.float64, "float32": torch.float32}[
            one_of("precision", precision, ["float64", "float32"])
        ]

    @abstractmethod
    def start(self, program: ConvexProgram) -> Tensors:
        """Return the state before the first iteration."""

    @abstractmethod
    def step(self, program: ConvexProgram, state: Tensors, active: Tensor) -> Tensors:
        """Return the state after one more iteration. Rows that are not ``active``, ``(K,)``, are ignored."""

    def blank(self, program: ConvexProgram) -> Tensors:
        """Return the entries common to all states, with X = 0 and s = 0."""
        y, size = program.observation, len(program.weight)
        return {
            "signal": y.new_zeros(size, *program.shape),
            "corruption": torch.zeros_like(y),
            "rank": torch.zeros(size, dtype=torch.int64, device=y.device),
            "converged": torch.zeros(size, dtype=torch.bool, device=y.device),
        }

    def threshold(self, M: Tensor, threshold: Tensor, state: Tensors, active: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the proximal operator of ``t‖X‖_*`` [, X ⪰ 0] to M.

        Args:
            M: ``(K, n, m)``; matrices with non-finite entries are returned unchanged.
            threshold: t, ``(K,)``.
            state: provides the starting point of partial decompositions.
            active: ``(K,)`` bool; other matrices are returned unchanged.

        Returns:
            ``(K, n, m)``, and the ranks ``(K,)``, which only partial decompositions update.
        """
        usable = active & torch.isfinite(norms(M)) & torch.isfinite(threshold)
        which = torch.nonzero(usable).flatten()  # synchronises with the device, as decompositions do anyway
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
        """Return ``(K,)`` bool, given ``‖A(X) + s − y‖`` and the relative violation of optimality, ``(K,)`` each."""
        primal = residual <= self.tolerance * norms(program.observation)
        return primal & (dual_residual <= DUAL * self.tolerance)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a / b``, or 0 if both are 0."""
    return a / b.clamp(min=torch.finfo(b.dtype).tiny)


def _check_tolerance(value: float) -> float:
    if positive("tolerance", value) < 1e-12 or value >= 1:
        raise ValueError(
            f"tolerance must be at least 1e-12 and below 1, got {value}; rounding prevents smaller residuals"
        )
    return value
