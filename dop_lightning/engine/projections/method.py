"""Method for separating matrices by alternating projections."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dop_lightning.engine.projections.solver import AlternatingProjections
from dop_lightning.engine.projections.state import ProjectionsState
from dop_lightning.problems.problem import ProblemBatch


@dataclass
class ProjectionsMethod:
    """Alternating projections instead of gradient descent.

    Args:
        solver: settings of the solver.

    >>> import torch
    >>> from dop_lightning.problems.problem import Problem
    >>> L = torch.outer(torch.arange(1.0, 101.0), torch.ones(80))
    >>> outliers = torch.rand(100, 80, generator=torch.Generator().manual_seed(0)) < 0.1
    >>> D = L + 500 * outliers
    >>> state = ProjectionsMethod().begin(ProblemBatch([Problem("mine", D)]))
    >>> state.advance(30), state.finished(), bool((state.evaluate().signal[0] - L).abs().max() < 1e-3)
    ([], {0: 'stable'}, True)
    """

    solver: AlternatingProjections = field(default_factory=AlternatingProjections)
    grid: ClassVar[None] = None
    first: ClassVar[None] = None

    def begin(
        self,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"] = 1.0,
        alpha: float | Sequence[float] | None = None,
    ) -> ProjectionsState:
        """Return the initial state of a batch. ``tau`` and ``alpha`` are ignored: there are no learning rates."""
        return ProjectionsState(self.solver, problems)
