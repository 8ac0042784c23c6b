"""Accelerated proximal gradient for Eq. 8 (Lin, Ganesh, Wright, Wu, Chen and Ma, 2009), corrected for its bias.

Shapes: K problems, X ``(K, n, m)``, observations ``(K, *o)``.
"""

from typing import Literal

import torch
from torch import Tensor

from dop_lightning.engine.convex.program import ConvexProgram, column, norms
from dop_lightning.engine.convex.proximal import soft_threshold
from dop_lightning.engine.convex.solver import ConvexSolver, Tensors, ratio
from dop_lightning.foundation.checks import positive as above_zero
from dop_lightning.problems.problem import ProblemBatch

PENALTY = 0.01
"""μ decreases to this fraction of ``‖A*(y)‖₂`` before b is first updated."""

INNER = 0.05
"""b is updated once the length of a gradient step is below this fraction of the constraint residual."""

MU_FACTOR = 0.8
"""Factor by which μ decreases at each update of b while the constraint is violated."""


class AcceleratedProximalGradient(ConvexSolver):
    """FISTA on ``μ(‖X‖_* + λ‖s‖₁) + ½‖A(X) + s − b‖²`` with step ``1/(‖A‖² + 1)`` and decreasing μ; initially b = y.

    The published algorithm decreases μ until ``A(X) + s = y`` nearly holds. A small constraint residual does not imply
    optimality: on problems where Eq. 8 does not recover the truth, its X has an error of 10 % at a residual of 1e-7.
    Here, once ``μ = 0.01·‖A*(y)‖₂`` is reached, the constraint residual is added to b whenever the current minimum is
    nearly reached (the method of multipliers; Bregman iteration of Yin et al., 2008). The limit solves Eq. 8 for any μ;
    μ continues to decrease slowly. The momentum is reset if it points uphill [O'Donoghue and Candès, 2015].

    Args:
        problems: batch of matrices.
        positive: see :class:`~dop_lightning.engine.convex.solver.ConvexSolver`.
        svd: ``full`` or ``partial``; see :class:`~dop_lightning.engine.convex.solver.ConvexSolver`.
        tolerance: relative tolerance, at least 1e-12; see :class:`~dop_lightning.engine.convex.solver.ConvexSolver`.
        mu: initial μ relative to ``‖A*(y)‖₂``, above 0.
        rho: factor by which μ decreases per iteration, between 0 and 1.
        precision: ``float64`` or ``float32``, for all computations.

    Raises:
        ValueError: an argument is out of range.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        problems: ProblemBatch,
        positive: bool = False,
        svd: Literal["full", "partial"] = "full",
        tolerance: float = 1e-7,
        mu: float = 0.99,
        rho: float = 0.8,
        precision: Literal["float64", "float32"] = "float64",
    ) -> None:
        super().__init__(problems, positive, svd, tolerance, precision)
        self.mu = above_zero("mu", mu)
        self.rho = above_zero("rho", rho)
        if rho >= 1:
            raise ValueError(f"rho must be below 1, got {rho!r}")

    def start(self, program: ConvexProgram) -> Tensors:
        """Return the initial state: X = 0, s = 0, without momentum."""
        state = self.blank(program)
        return {
            **state,
            "ahead_signal": state["signal"],
            "ahead_corruption": state["corruption"],
            "goal": program.observation,
            "mu": self.mu * program.scale,
            "momentum": torch.ones_like(program.weight),
        }

    def step(self, program: ConvexProgram, state: Tensors, active: Tensor) -> Tensors:
        """Take a gradient step from the extrapolated point, extrapolate again, and update μ or b."""
        y, A, L = program.observation, program.operator, program.norm + 1
        X, s, b, mu, t = (state[name] for name in ("signal", "corruption", "goal", "mu", "momentum"))
        ahead_X, ahead_s = state["ahead_signal"], state["ahead_corruption"]
        r = A(ahead_X) + ahead_s - b
        X_new, rank = self.threshold(ahead_X - A.adjoint(r) / column(L, X), mu / L, state, active)
        s_new = soft_threshold(ahead_s - r / column(L, s), program.weight * mu / L)
        step_X, step_s = ahead_X - X_new, ahead_s - s_new
        move_X, move_s = X_new - X, s_new - s
        uphill = (step_X * move_X).flatten(1).sum(1) + (step_s * move_s).flatten(1).sum(1) > 0
        t = torch.where(uphill, 1.0, t)
        t_new = (1 + (1 + 4 * t.square()).sqrt()) / 2
        beta = (t - 1) / t_new
        left = y - A(X_new) - s_new
        step = L * torch.hypot(norms(step_X), norms(step_s))
        dual = ratio(step, norms(b - y + left))
        primal = norms(left)
        falls = mu > PENALTY * program.scale
        moves = ~falls & (step <= INNER * primal)
        less = torch.where(moves & (primal > self.tolerance * norms(y)), MU_FACTOR, 1.0)
        multiplier = column(less, b) * (b - y + left)  # μ times the multiplier of the constraint
        return {
            "signal": X_new,
            "corruption": s_new,
            "rank": rank,
            "converged": self.has_converged(program, primal, dual),
            "ahead_signal": X_new + column(beta, X) * move_X,
            "ahead_corruption": s_new + column(beta, s) * move_s,
            "goal": torch.where(column(moves, b), y + multiplier, b),
            "mu": torch.where(falls, mu * self.rho, mu * less),
            "momentum": t_new,
        }
