"""The solution of Eq. 8 in one call."""

import warnings
from collections.abc import Sequence

from dop_lightning.engine.convex.ialm import InexactALM
from dop_lightning.engine.convex.state import ConvexState, SolverFactory
from dop_lightning.engine.state import Evaluation, OperatorFactory
from dop_lightning.foundation.checks import at_least
from dop_lightning.model.operators import operator_of
from dop_lightning.problems.problem import ProblemBatch

CHECK = 50
"""Iterations between looks at which problems have converged."""


def solve(
    problems: ProblemBatch,
    solver: SolverFactory = InexactALM,
    alpha: float | Sequence[float] | None = None,
    max_iterations: int = 1000,
    operator: OperatorFactory = operator_of,
) -> Evaluation:
    """Solve ``min ‖X‖_* + λ‖s‖₁`` subject to ``A(X) + s = y`` [, X ⪰ 0] (Eq. 8) for each problem of a batch.

    Args:
        problems: the batch, of matrices.
        solver: makes the solver: a class, or ``functools.partial(InexactALM, positive=True, svd="partial")``.
        alpha: ``λ = 1/α``, above 0: one number, or one a problem; ``None`` is √max(n, m).
        max_iterations: at which those that have not converged are left as they are, with a warning; at least 1.
        operator: makes A; by default as the problems say.

    Returns:
        X̂, ŝ and ``¼‖A(X̂) + ŝ − y‖²``.

    Raises:
        ValueError: an argument is out of range, or a problem's numbers are so large that they overflow.
    """
    state = ConvexState(solver, problems, alpha, operator)
    at_least("max_iterations", max_iterations, 1)
    while state.iteration < max_iterations and not all(state.converged):
        if diverged := state.advance(min(CHECK, max_iterations - state.iteration)):
            raise ValueError(f"problems must have entries that do not overflow, {problems.names[diverged[0]]!r} has")
    if not all(state.converged):
        names = [name for name, done in zip(problems.names, state.converged, strict=True) if not done]
        warnings.warn(f"not converged in {max_iterations} iterations: {', '.join(names)}", stacklevel=2)
    return state.evaluate()
