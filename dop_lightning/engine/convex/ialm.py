"""Inexact augmented Lagrange multipliers for Eq. 8 (Lin, Chen and Ma, 2010), modified to converge on every problem.

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

CAREFUL_MU_FACTOR = 4.0
"""μ of the careful iterations starts at this multiple of the initial μ."""

BALANCE = 0.1
"""In careful iterations, μ grows only if the primal residual exceeds this multiple of the dual residual."""


class InexactALM(ConvexSolver):
    """Alternating minimisation of the augmented Lagrangian, with the multiplier Y and the penalty μ.

    ``s ← soft(y − A(X) + Y/μ, λ/μ)``, ``X ← svt(X + A*(y − A(X) − s + Y/μ)/η, 1/(μη))``,
    ``Y ← Y + μ(y − A(X) − s)``, with ``η = ‖A‖²``. For the identity, the argument of svt is ``y − s + Y/μ``: this is
    the algorithm of Lin, Chen and Ma (2010). For an entry mask, it is their algorithm with s free at unobserved
    entries. For any other A, the step is linearised [Yang and Yuan, 2013].

    In the published algorithm, μ grows by the factor ρ at every iteration. If Eq. 8 recovers the truth, this takes
    about 20 decompositions. Otherwise, the iteration stalls at a feasible point that is not a solution, with an error
    of about 10 %. Therefore, once the primal residual is within tolerance, the dual residual
    ``μ√η‖X − X_before‖ / ‖Y‖`` is checked. If it is not small, the iteration continues with a small μ that grows only
    while the primal residual is the larger of the two. X gets worse in the first of these careful iterations.

    Args:
        problems: batch of matrices.
        positive: see :class:`~dop_lightning.engine.convex.solver.ConvexSolver`.
        svd: ``full`` or ``partial``; see :class:`~dop_lightning.engine.convex.solver.ConvexSolver`.
        tolerance: relative tolerance, at least 1e-12; see :class:`~dop_lightning.engine.convex.solver.ConvexSolver`.
        mu: initial μ relative to ``1/‖A*(y)‖₂``, above 0.
        rho: ρ, above 1.
        precision: ``float64`` or ``float32``, for all computations.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        problems: ProblemBatch,
        positive: bool = False,
        svd: Literal["full", "partial"] = "full",
        tolerance: float = 1e-7,
        mu: float = 1.25,
        rho: float = 1.5,
        precision: Literal["float64", "float32"] = "float64",
    ) -> None:
        super().__init__(problems, positive, svd, tolerance, precision)
        self.mu = above_zero("mu", mu)
        self.rho = above_zero("rho", rho)
        if rho <= 1:
            raise ValueError(f"rho must be above 1, got {rho!r}")

    def start(self, program: ConvexProgram) -> Tensors:
        """Return the initial state: X = 0, s = 0, and Y a dual-feasible multiple of y."""
        y = program.observation
        largest = y.flatten(1).abs().amax(dim=1)
        dual_norm = torch.maximum(program.scale, largest / program.weight)
        return {
            **self.blank(program),
            "multiplier": y / column(dual_norm, y),
            "mu": self.mu / program.scale,
            "careful": torch.zeros_like(program.weight, dtype=torch.bool),
        }

    def step(self, program: ConvexProgram, state: Tensors, active: Tensor) -> Tensors:
        """Update s, X and Y, then μ."""
        y, A, eta = program.observation, program.operator, program.norm
        X, Y, mu = state["signal"], state["multiplier"], state["mu"]
        goal = (y - A(X)).add_(Y / column(mu, Y))
        s = soft_threshold(goal, program.weight / mu)
        M = X + A.adjoint(goal - s) / column(eta, X)
        X_new, rank = self.threshold(M, 1 / (mu * eta), state, active)
        r = y - A(X_new) - s
        Y = Y + column(mu, r) * r
        dual = ratio(mu * eta.sqrt() * norms(X_new - X), norms(Y))
        primal = norms(r)
        feasible = primal <= self.tolerance * norms(y)
        grows = ~state["careful"] | (~feasible & (primal > BALANCE * dual * norms(y)))
        restarts = feasible & ~state["careful"]
        mu = torch.where(grows, mu * self.rho, mu)
        return {
            "signal": X_new,
            "corruption": s,
            "rank": rank,
            "converged": self.has_converged(program, primal, dual),
            "multiplier": Y,
            "mu": torch.where(restarts, CAREFUL_MU_FACTOR * self.mu / program.scale, mu),
            "careful": state["careful"] | feasible,
        }
