"""State of a batch under a convex solver, see :class:`~dop_lightning.engine.state.State`.

Shapes: K problems, X ``(K, n, m)``, observations ``(K, *o)``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dop_lightning.engine.alpha import default_alphas
from dop_lightning.engine.convex.program import column, convex_program
from dop_lightning.engine.convex.solver import ConvexSolver, Tensors
from dop_lightning.engine.descent import OperatorFactory
from dop_lightning.engine.outcome import Status
from dop_lightning.engine.state import AdvanceInterrupted, Evaluation, State, one_per_problem, out_of_memory
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.machine import is_out_of_memory
from dop_lightning.foundation.signatures import create_part
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.operators import Operator, operator_of
from dop_lightning.problems.problem import Attribute, ProblemBatch

SolverFactory = Callable[[ProblemBatch], ConvexSolver]


class ConvexState(State):
    """K problems that a convex solver iterates towards the solution of Eq. 8, independently of each other.

    Problems that have converged are frozen while the others continue.

    Args:
        solver: returns the solver of a batch: a class, or ``functools.partial(InexactALM, positive=True)``.
        problems: batch of matrices, on the device of the computation.
        alpha: ``λ = 1/α``, above 0: one number, or one per problem. ``None`` uses the α of each problem, or
            √max(n, m) if it has none.
        operator: returns the operator A of a batch.

    Attributes:
        iteration: iterations done, including those after a problem has converged.
        tau: 0 for each problem, because there is no learning rate.
        alpha: α of each problem.
        optimizers: empty.

    Raises:
        ValueError: ``alpha`` is out of range or does not have K values, or an argument of the solver is wrong.
    """

    def __init__(
        self,
        solver: SolverFactory,
        problems: ProblemBatch,
        alpha: float | Sequence[float] | None = None,
        operator: OperatorFactory = operator_of,
    ) -> None:
        self.problems = problems
        self.solver = create_part(solver, ConvexSolver, problems)
        if problems.device.type == "mps" and self.solver.dtype == torch.float64:
            raise ValueError("precision must be float32 on Apple's devices, got float64; alternatively, use the CPU")
        self.iteration = 0
        self.tau = [0.0] * len(problems)
        default = default_alphas(problems, SquaredLoss(), [1.0] * len(problems))  # the signals are matrices
        self.alpha = one_per_problem("alpha", default if alpha is None else alpha, len(problems))
        self.optimizers: list[Optimizer] = []
        self._factories = (solver, operator)
        exact = _to_dtype(problems, self.solver.dtype)
        self._program = convex_program(exact, create_part(operator, Operator, exact).to(problems.device), self.alpha)
        self._loss = SquaredLoss()
        self._state = self.solver.start(self._program)

    @property
    def converged(self) -> list[bool]:
        """Whether each problem has reached the tolerance of the solver."""
        return self._state["converged"].tolist()

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Return X̂, ŝ and the loss of Eq. 3, ``¼‖A(X̂) + ŝ − y‖²``, for comparable tables, in the problems' dtype."""
        X, s = self._state["signal"], self._state["corruption"]
        loss = self._loss.value(self._program.operator(X) + s - self._program.observation)
        kind = self.problems.dtype
        return Evaluation(self.iteration, X.to(kind), s.to(kind), loss.to(kind))

    @torch.no_grad()
    def advance(self, iterations: int) -> list[int]:
        """Iterate on every problem that has not converged.

        A problem whose state becomes non-finite is reset to its state at the start of this call.

        Args:
            iterations: number of iterations, at least 0.

        Returns:
            Positions of the problems whose state became non-finite.

        Raises:
            OutOfMemoryError: the batch does not fit in the memory of its device; its state is unchanged.
        """
        at_least("iterations", iterations, 0)
        before, state = self._state, self._state
        try:
            with self._interruptible():
                for _ in range(iterations):
                    active = ~state["converged"]
                    if not bool(active.any()):
                        break
                    state = _merge(self.solver.step(self._program, state, active), state, active)
        except AdvanceInterrupted:
            self._worker = None
            return []
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(self.problems) from None
        healthy = _is_finite(state, self.problems.dtype)
        self._state = _merge(state, before, healthy)
        self.iteration += iterations
        return torch.nonzero(~healthy).flatten().tolist()

    def finished(self) -> dict[int, Status]:
        """Return the positions of the problems that have converged, with their status."""
        return {k: "stable" for k, done in enumerate(self.converged) if done}

    def settings(self, k: int) -> dict[str, Attribute]:
        """Return α of problem k and the class name of the solver."""
        return {"alpha": self.alpha[k], "solver": type(self.solver).__name__}

    def problem_state(self, k: int) -> dict[str, Any]:
        """Return a copy of the solver's state of problem k, with tensors on the CPU."""
        tensors = {name: value[k].detach().cpu().clone() for name, value in self._state.items()}
        return {"solver": type(self.solver).__name__, "tensors": tensors}

    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        """Load the state of problem k, as returned by :meth:`problem_state`. The caller sets the iteration.

        Raises:
            ValueError: the state is of another method or shape.
        """
        name, own = self.problems[k].name, type(self.solver).__name__
        if state.get("solver") != own:
            raise ValueError(f"{name}: state must be of {own}, got a state of {state.get('solver')!r}")
        shapes = {key: value.shape[1:] for key, value in self._state.items()}
        given = {key: value.shape for key, value in state["tensors"].items()}
        if given != shapes:
            raise ValueError(
                f"{name}: state must have the shapes {_format_shapes(shapes)}, got {_format_shapes(given)}"
            )
        changed = {key: value.clone() for key, value in self._state.items()}
        for key, value in state["tensors"].items():
            changed[key][k] = value.to(changed[key])
        self._state = changed

    def select(self, keep: Sequence[int]) -> "ConvexState":
        """Return the problems at the positions ``keep`` as a separate batch, in their current state."""
        solver, operator = self._factories
        other = ConvexState(solver, self.problems.select(keep), [self.alpha[k] for k in keep], operator)
        other.iteration = self.iteration
        other._state = {name: value[list(keep)] for name, value in self._state.items()}
        return other


def _to_dtype(problems: ProblemBatch, dtype: torch.dtype) -> ProblemBatch:
    return ProblemBatch([replace(p, observation=p.observation.to(dtype)) for p in problems], problems.device)


def _merge(new: Tensors, old: Tensors, which: Tensor) -> Tensors:
    """Return ``new`` for the problems in ``which``, ``(K,)`` bool, and ``old`` for the others."""
    if bool(which.all()):
        return new
    return {name: torch.where(column(which, value), value, old[name]) for name, value in new.items()}


def _is_finite(state: Tensors, dtype: torch.dtype) -> Tensor:
    """Return whether the state of each problem is finite, ``(K,)``; X and s must also be finite in ``dtype``."""
    healthy = torch.ones_like(state["converged"])
    for name, value in state.items():
        known = value.to(dtype) if name in ("signal", "corruption") else value
        healthy = healthy & torch.isfinite(known).reshape(len(healthy), -1).all(dim=1)
    return healthy


def _format_shapes(shapes: Mapping[str, torch.Size]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
