"""How to recover by the convex program, Eq. 8."""

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
    """``min ‖X‖_* + (1/α)‖s‖₁`` subject to ``A(X) + s = y`` (Eq. 8), the sibling of gradient descent.

    Args:
        solver: makes the solver of a batch: a class, or ``functools.partial(InexactALM, positive=True)``.
        operator: makes A of a batch; by default as the problems say.
    """

    solver: SolverFactory
    operator: OperatorFactory = operator_of
    grid: ClassVar[None] = None
    first: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Check the arguments of functions that users write.

        Raises:
            ValueError: one takes other arguments than it is called with.
        """
        require_arguments("solver", self.solver, ["problems"], "a ConvexSolver")
        require_arguments("operator", self.operator, ["problems"], "an Operator")

    def begin(
        self,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"] = 1.0,
        alpha: float | Sequence[float] | None = None,
    ) -> ConvexState:
        """Return a batch at its start. A solver has no learning rate: ``tau`` is not used."""
        return ConvexState(self.solver, problems, alpha, self.operator)
