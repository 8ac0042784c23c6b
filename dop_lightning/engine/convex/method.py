"""Method for recovery by the convex program (Eq. 8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from dop_lightning.engine.convex.state import ConvexState, SolverFactory
from dop_lightning.engine.descent import OperatorFactory
from dop_lightning.foundation.signatures import require_arguments
from dop_lightning.model.operators import operator_of
from dop_lightning.problems.problem import ProblemBatch


@dataclass
class ConvexMethod:
    """``min ‖X‖_* + (1/α)‖s‖₁`` subject to ``A(X) + s = y`` (Eq. 8), the convex counterpart of gradient descent.

    Args:
        solver: returns the solver of a batch: a class, or ``functools.partial(InexactALM, positive=True)``.
        operator: returns the operator A of a batch; by default, the operator of its problems.
    """

    solver: SolverFactory
    operator: OperatorFactory = operator_of
    grid: ClassVar[None] = None
    first: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Check the signatures of user-defined factories.

        Raises:
            ValueError: the signature of a factory is wrong.
        """
        require_arguments("solver", self.solver, ["problems"], "a ConvexSolver")
        require_arguments("operator", self.operator, ["problems"], "an Operator")

    def begin(
        self,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"] = 1.0,
        alpha: float | Sequence[float] | None = None,
    ) -> ConvexState:
        """Return the initial state of a batch. ``tau`` is ignored: a solver has no learning rate."""
        return ConvexState(self.solver, problems, alpha, self.operator)
