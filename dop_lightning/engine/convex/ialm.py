"""Inexact augmented Lagrange multipliers for Eq. 8 (Lin, Chen and Ma, 2010), made to converge on every problem.

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

CAREFUL = 4.0
"""μ of the careful iterations starts at so many times the first μ."""

BALANCE = 0.1
"""In careful iterations μ grows only where the primal residual exceeds so many times the dual one."""


class InexactALM(ConvexSolver):
    """Alternating minimisation of the augmented Lagrangian, with the multiplier Y and the penalty μ.

    ``s ← soft(y − A(X) + Y/μ, λ/μ)``, ``X ← svt(X + A*(y − A(X) − s + Y/μ)/η, 1/(μη))``,
    ``Y ← Y + μ(y − A(X) − s)``, with ``η = ‖A‖²``. For the identity that is the algorithm of Lin, Chen and Ma (2010):
    the argument of svt is ``y − s + Y/μ``; for an entry mask it is theirs with s free where nothing was observed; for
    any other A the step is linearised [Yang and Yuan, 2013].

    In the published algorithm μ grows by the factor ρ at every iteration. Where Eq. 8 recovers the truth that takes
    some 20 decompositions; where it does not, the iteration comes to rest at a feasible point that is no solution (its
    error is of the order of 10 %). So the dual residual ``μ√η‖X − X_before‖ / ‖Y‖`` is looked at when the primal one is
    within tolerance: if it is not small, the iteration goes on from there with a small μ that grows only while the
    primal residual is the larger of the two. X gets worse for the first of these iterations.

    Args:
        problems: the batch, of matrices.
        positive: see :class:`~dop_lightning.engine.convex.solver.ConvexSolver`, as for the next two.
        svd: ``full`` or ``partial``.
        tolerance: relative, from 1e-12.
        mu: the first μ, relative to ``1/‖A*(y)‖₂``; above 0.
        rho: ρ, above 1.
        precision: ``float64`` or ``float32``, of all that is computed.

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
        """X = 0, s = 0 and Y a multiple of y that is feasible for the dual problem."""
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
        """s, X, Y, then μ."""
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
            "mu": torch.where(restarts, CAREFUL * self.mu / program.scale, mu),
            "careful": state["careful"] | feasible,
        }
