"""State of a batch under alternating projections, see :class:`~dop_lightning.engine.state.State`.

Shapes: K matrices ``(K, n, m)``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dop_lightning.engine.outcome import Status
from dop_lightning.engine.projections.saved import loaded_progress, saved_progress
from dop_lightning.engine.projections.solver import AlternatingProjections, Recovery
from dop_lightning.engine.state import AdvanceInterrupted, Evaluation, RatelessState, out_of_memory
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.machine import is_out_of_memory
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.problems.problem import Attribute, Problem, ProblemBatch

NAME = "AlternatingProjections"

AT_ONCE = 2**20
"""Entries of the residual that are processed at once."""


class ProjectionsState(RatelessState):
    """Recoveries of K matrices, computed one after the other. Finished matrices are frozen while the others continue.

    Args:
        solver: settings of the solver.
        problems: batch of matrices observed by entries, on the device of the computation.

    Attributes:
        iteration: iterations done, including those after a problem has ended.
        recoveries: one per problem.

    Raises:
        ValueError: the signals are not matrices, or are measured by a sensing operator.
    """

    def __init__(self, solver: AlternatingProjections, problems: ProblemBatch) -> None:
        check_matrices(problems, NAME)
        super().__init__(problems)
        self.solver = solver
        self.recoveries = self._start_recoveries()

    def _start_recoveries(self) -> list[Recovery]:
        try:
            with torch.no_grad():
                return [self.solver.begin(_to_device(problem, self.problems.device)) for problem in self.problems]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(self.problems) from None

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Return L, the outliers, and a quarter of the squared residual."""
        signals, corruptions = zip(*(recovery.parts() for recovery in self.recoveries), strict=True)
        if len(self) == 1:  # avoids a copy
            X, s = signals[0][None], corruptions[0][None]
        else:
            X, s = torch.stack(signals), torch.stack(corruptions)
        return Evaluation(self.iteration, X, s, self._loss(X, s))

    def _loss(self, X: Tensor, s: Tensor) -> Tensor:
        """Return a quarter of each problem's squared residual, computed in strips to avoid a temporary of X's size."""
        loss = torch.zeros(len(X), dtype=X.dtype, device=X.device)
        height = max(1, AT_ONCE // X[:, 0].numel())
        for rows in (slice(begin, begin + height) for begin in range(0, X.shape[1], height)):
            residual = (X[:, rows] + s[:, rows]).sub_(self.problems.observation[:, rows])
            if self.problems.mask is not None:
                residual.mul_(self.problems.mask[:, rows])
            loss += SquaredLoss().value(residual)
        return loss

    @torch.no_grad()
    def advance(self, iterations: int) -> list[int]:
        """Iterate on every problem that has not ended.

        Args:
            iterations: number of iterations, at least 0.

        Returns:
            An empty list: recoveries with non-finite values end as rejected.

        Raises:
            OutOfMemoryError: the batch does not fit in memory; its state is unchanged.
        """
        at_least("iterations", iterations, 0)
        before = [self.problem_state(k) for k in range(len(self))] if iterations else []
        try:
            with self._interruptible():
                for recovery in self.recoveries:
                    for _ in range(iterations):
                        recovery.step()
        except AdvanceInterrupted:
            self._worker = None
            for k, state in enumerate(before):
                self.load_problem_state(k, state)
            return []
        except (RuntimeError, MemoryError) as error:
            for k, state in enumerate(before):
                self.load_problem_state(k, state)
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(self.problems) from None
        self.iteration += iterations
        return []

    def finished(self) -> dict[int, Status]:
        """Return the positions of the problems that have ended."""
        return {k: "stable" for k, recovery in enumerate(self.recoveries) if recovery.progress.phase == "ended"}

    def settings(self, k: int) -> dict[str, Attribute]:
        """Return the name of the solver."""
        return {"solver": NAME}

    def report(self, k: int) -> dict[str, Attribute]:
        """Return the rank of problem k and the verdict on it."""
        return self.recoveries[k].report()

    def problem_state(self, k: int) -> dict[str, Any]:
        """Return the state of problem k, as tensors on the CPU and plain numbers."""
        return {"solver": NAME, **saved_progress(self.recoveries[k].progress)}

    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        """Load the state of problem k, as returned by :meth:`problem_state`. The caller sets the iteration.

        Raises:
            ValueError: the state is of another method or shape.
        """
        name, now = self.problems[k].name, self.recoveries[k].progress
        if state.get("solver") != NAME:
            raise ValueError(f"{name}: state must be of {NAME}, got a state of {state.get('solver')!r}")
        tensors = state["tensors"]
        own = (len(now.estimate.left), len(now.estimate.right))
        given = (len(tensors["left"]), len(tensors["right"]))
        if given != own:
            raise ValueError(
                f"{name}: state must have {own[0]} rows and {own[1]} columns, got {given[0]} and {given[1]}"
            )
        self.recoveries[k].progress = loaded_progress(state, now.estimate.left)

    def select(self, keep: Sequence[int]) -> "ProjectionsState":
        """Return the problems at the positions ``keep`` as a separate batch, in their current state."""
        other = object.__new__(ProjectionsState)
        RatelessState.__init__(other, self.problems.select(keep))
        other.solver, other.iteration = self.solver, self.iteration
        other.recoveries = [self.recoveries[k] for k in keep]
        return other


def check_matrices(problems: ProblemBatch, name: str) -> None:
    """Raise an error unless the problems are matrices observed by entries.

    Raises:
        ValueError: the signals are not matrices, or are measured by a sensing operator.
    """
    if len(problems.signal_shape) != 2:
        raise ValueError(f"{name} requires matrices, got signals of shape {problems.signal_shape}")
    if problems.sensing is not None:
        raise ValueError(f"{name} requires matrices observed by entries, got a measurement ({problems.sensing})")


def _to_device(problem: Problem, device: torch.device) -> Problem:
    """Return a problem with its observation and mask on a device."""
    if problem.observation.device == device:
        return problem
    mask = None if problem.mask is None else problem.mask.to(device)
    return replace(problem, observation=problem.observation.to(device), mask=mask)
