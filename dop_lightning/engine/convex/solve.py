"""Solve Eq. 8 in one call."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.engine.convex.ialm import InexactALM
from dop_lightning.engine.convex.method import ConvexMethod
from dop_lightning.engine.convex.state import SolverFactory
from dop_lightning.engine.descent import OperatorFactory
from dop_lightning.engine.evaluated import Ending
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.runners import run_batches
from dop_lightning.engine.state import Evaluation
from dop_lightning.foundation.checks import at_least
from dop_lightning.model.operators import operator_of
from dop_lightning.problems.problem import ProblemBatch

CHECK = 50
"""Iterations between convergence checks."""


def solve(
    problems: ProblemBatch,
    solver: SolverFactory = InexactALM,
    alpha: float | Sequence[float] | None = None,
    max_iterations: int = 1000,
    operator: OperatorFactory = operator_of,
) -> Evaluation:
    """Solve ``min ‖X‖_* + λ‖s‖₁`` subject to ``A(X) + s = y`` [, X ⪰ 0] (Eq. 8) for each problem of a batch.

    Args:
        problems: batch of matrices.
        solver: returns the solver: a class, or ``functools.partial(InexactALM, positive=True, svd="partial")``.
        alpha: ``λ = 1/α``, above 0: one number, or one per problem. Defaults to √max(n, m).
        max_iterations: maximum number of iterations, at least 1. A warning lists the problems that have not converged.
        operator: returns A; by default, the operator of the problems.

    Returns:
        X̂, ŝ and ``¼‖A(X̂) + ŝ − y‖²``.

    Raises:
        ValueError: an argument is out of range, or the values of a problem are so large that they overflow.
    """
    at_least("max_iterations", max_iterations, 1)
    rows = _Rows()
    method = ConvexMethod(solver, operator)
    run_batches(method, [problems], max_iterations, block=CHECK, listeners=[rows], device=problems.device, alpha=alpha)
    if left := [name for name in problems.names if name in rows.left]:
        warnings.warn(f"not converged after {max_iterations} iterations: {', '.join(left)}", stacklevel=2)
    parts = zip(*(rows.found[name] for name in problems.names), strict=True)
    signal, corruption, loss = (torch.stack(part) for part in parts)
    return Evaluation(rows.iteration, signal, corruption, loss)


class _Rows(Listener):
    """Keep the result of each problem, without references to the rest of its batch.

    Attributes:
        found: X̂, ŝ and the loss, by problem name.
        left: names of problems that have not converged.
        iteration: iteration at which the last problems ended.
    """

    def __init__(self) -> None:
        self.found: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self.left: set[str] = set()
        self.iteration = 0

    def on_end(self, run: Run, ending: Ending) -> None:
        """Copy the results of problems that end.

        Raises:
            ValueError: a problem diverged.
        """
        for k, name in ending.names.items():
            if ending.ends[k] == "diverged":
                raise ValueError(f"{name}: the values overflow; rescale the problem")
            if ending.ends[k] == "done":
                self.left.add(name)
            seen = ending.evaluation
            self.found[name] = (seen.signal[k].clone(), seen.corruption[k].clone(), seen.loss[k].clone())
        self.iteration = ending.iteration
