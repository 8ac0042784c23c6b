"""Robust PCA with automatic choice of the method: alternating projections if they are certified, otherwise DOP.

Shapes: K matrices ``(K, n, m)``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.outcome import Status
from dop_lightning.engine.projections import AlternatingProjections, ProjectionsState
from dop_lightning.engine.projections.state import check_matrices
from dop_lightning.engine.state import AdvanceInterrupted, Evaluation, RatelessState, State
from dop_lightning.foundation.checks import at_least, positive
from dop_lightning.matrices.alpha_search import choose_alpha
from dop_lightning.matrices.entry_sizes import check_spread
from dop_lightning.matrices.separation import MATRIX, separation
from dop_lightning.problems.problem import Attribute, Problem, ProblemBatch, scale


class RobustSeparation:
    r"""``D = L + S`` with low-rank L and sparse S; neither the rank nor the fraction of outliers is specified.

    Alternating projections (:class:`~dop_lightning.engine.projections.AlternatingProjections`) are applied first. They
    are exact and fast if a low-rank model holds up to outliers and white noise. Entries that were held out certify
    this. If it does not hold, as in most real data, double over-parameterization recovers the matrix instead, with α
    chosen by held-out entries (:mod:`dop_lightning.matrices.alpha_search`).

    Alternating projections are a different non-convex method, not double over-parameterization.
    :meth:`SeparationState.report` and ``result.json`` name the method that was used, and the reason.

    Args:
        fallback: whether to recover matrices with a rejected certificate by DOP; otherwise, the result of the
            projections is kept.
        tolerance: tolerance of the projections, above 0.
        rank: maximum rank, at least 1; ``None`` for no limit.
        alpha: ratio of the learning rates of DOP, above 0; chosen automatically by default.
        dop_tolerance: DOP ends once the residual is below this fraction of the recovered matrix; above 0.
        start: scale of DOP's initialization, above 0, in units of the square root of the data.
        iterations: maximum iterations of DOP per candidate while α is chosen, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    grid: ClassVar[None] = None
    first: ClassVar[None] = None

    def __init__(
        self,
        fallback: bool = True,
        tolerance: float = 1e-6,
        rank: int | None = None,
        alpha: float | None = None,
        dop_tolerance: float = MATRIX.tolerance,
        start: float = MATRIX.start,
        iterations: int = MATRIX.iterations,
    ) -> None:
        self.fallback = fallback
        self.solver = AlternatingProjections(tolerance, rank)
        self.rank = rank
        self.alpha = None if alpha is None else positive("alpha", alpha)
        self.dop_tolerance = positive("dop_tolerance", dop_tolerance)
        self.start = positive("start", start)
        self.iterations = at_least("iterations", iterations, 1)

    def begin(
        self,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"] = "auto",
        alpha: float | Sequence[float] | None = None,
    ) -> "SeparationState":
        """Return the initial state of a batch. ``tau`` and ``alpha`` are ignored: the rates are set automatically."""
        return SeparationState(self, problems)

    def descent(
        self,
        problem: Problem,
        alpha: float | None,
        device: torch.device,
        interrupted: Callable[[], object] = lambda: False,
    ) -> BatchState:
        """Return double over-parameterization of a problem in its initial state.

        Args:
            problem: the matrix.
            alpha: ratio of the learning rates; ``None`` uses that of the method, or chooses it.
            device: device of the computation.
            interrupted: called while α is chosen; the search ends if it returns true.

        Raises:
            AdvanceInterrupted: the choice of α was interrupted.
            ValueError: the largest entry is so large that the others are lost to rounding.
        """
        check_spread(problem)
        method = separation(self.start * scale(problem) ** 0.5, self.dop_tolerance, self.rank)
        chosen = self.alpha if alpha is None else alpha
        if chosen is None:
            chosen = choose_alpha(
                problem, method, max_iterations=self.iterations, device=device, interrupted=interrupted
            ).alpha
        return method.begin(ProblemBatch([problem], device), "auto", chosen)


class SeparationState(RatelessState):
    """K matrices, each with the method that suits it. :meth:`report` includes the α of DOP.

    Args:
        method: settings of the separation.
        problems: batch of matrices observed by entries, on the device of the computation.

    Attributes:
        iteration: iterations done, including those after a problem has ended.
        parts: state of each problem.

    Raises:
        ValueError: the signals are not matrices, or are measured by a sensing operator.
    """

    def __init__(self, method: RobustSeparation, problems: ProblemBatch) -> None:
        check_matrices(problems, "RobustSeparation")
        super().__init__(problems)
        self.method = method
        self.parts: list[ProjectionsState | BatchState] = [
            ProjectionsState(method.solver, ProblemBatch([problem], problems.device)) for problem in problems
        ]
        self._reasons = [""] * len(problems)
        self._ahead = [0] * len(problems)

    def resume(self) -> None:
        """Clear an earlier interruption."""
        super().resume()
        for part in self.parts:
            part.resume()

    def interrupt(self) -> None:
        """Interrupt the current block soon. If α is being chosen, the choice is repeated later.

        Raises:
            AdvanceInterrupted: see :meth:`~dop_lightning.engine.state.State.interrupt`.
        """
        self._is_interrupted = True
        for part in self.parts:
            part.interrupt()
        super().interrupt()

    def evaluate(self) -> Evaluation:
        """Return L, S and the loss of each problem."""
        seen = [part.evaluate() for part in self.parts]
        if len(seen) == 1:  # avoids a copy
            return Evaluation(self.iteration, seen[0].signal, seen[0].corruption, seen[0].loss)
        signal, corruption, loss = (
            torch.cat([getattr(evaluation, name) for evaluation in seen]) for name in ("signal", "corruption", "loss")
        )
        return Evaluation(self.iteration, signal, corruption, loss)

    def advance(self, iterations: int) -> list[int]:
        """Iterate on every problem that has not ended, and continue rejected ones with DOP.

        If the choice of α is interrupted, the matrix keeps the estimate of the projections, and DOP starts in the next
        call. If a block is interrupted, matrices that have completed it wait for the others in the next call.

        Args:
            iterations: number of iterations, at least 0.

        Returns:
            Positions of the problems that diverged.

        Raises:
            OutOfMemoryError: the batch does not fit in memory.
        """
        if at_least("iterations", iterations, 0) == 0:
            return []
        # matrices too small for a certificate, and those whose choice of α was interrupted
        if not all(self._start_dop(k) for k in range(len(self))):
            return []
        diverged = []
        for k in range(len(self)):
            left = iterations - self._ahead[k]
            if left > 0 and not self.parts[k].finished():
                before = self.parts[k].iteration
                if self.parts[k].advance(left):
                    diverged.append(k)
                if self.parts[k].iteration == before:
                    return diverged  # interrupted
            self._ahead[k] = max(iterations, self._ahead[k])
            self._start_dop(k)
        self._ahead = [ahead - iterations for ahead in self._ahead]
        self.iteration += iterations
        return diverged

    def _is_rejected(self, k: int) -> bool:
        """Return whether a matrix must be handed over to DOP."""
        part = self.parts[k]
        if not isinstance(part, ProjectionsState) or not self.method.fallback:
            return False
        verdict = part.recoveries[0].progress.certificate
        is_zero = not self.problems[k].observation.any()  # then L = 0 is correct
        return verdict is not None and not verdict.is_accepted and not is_zero

    def _start_dop(self, k: int) -> bool:
        """Start DOP if the certificate of a matrix was rejected. Return false if this was interrupted."""
        if self._is_rejected(k):
            reason = self.parts[k].report(0)["reason"]
            try:
                with self._interruptible():
                    self.parts[k] = self.method.descent(
                        self.problems[k], None, self.problems.device, lambda: self._is_interrupted
                    )
            except AdvanceInterrupted:
                self._worker = None
                return False
            self._reasons[k] = str(reason)
        return True

    def finished(self) -> dict[int, Status]:
        """Return the positions of the problems that have ended."""
        ended = {k: part.finished() for k, part in enumerate(self.parts) if not self._is_rejected(k)}
        return {k: status[0] for k, status in ended.items() if status}

    def release(self) -> None:
        """Free buffers that can be recomputed."""
        for part in self.parts:
            part.release()

    def settings(self, k: int) -> dict[str, Attribute]:
        """Return the name of the method."""
        return {"solver": "RobustSeparation"}

    def report(self, k: int) -> dict[str, Attribute]:
        """Return the method that recovers problem k, and the reason for its choice."""
        part = self.parts[k]
        if isinstance(part, ProjectionsState):
            return part.report(0)
        reason = f"projections rejected: {self._reasons[k]}"
        return {"method": "dop", "alpha": part.alpha[0], "certificate": "rejected", "reason": reason}

    def problem_state(self, k: int) -> dict[str, Any]:
        """Return the state of problem k, as tensors on the CPU and plain numbers."""
        part = self.parts[k]
        method = "projections" if isinstance(part, ProjectionsState) else "dop"
        return {
            "solver": "RobustSeparation",
            "method": method,
            "alpha": part.alpha[0],
            "iteration": part.iteration,
            "reason": self._reasons[k],
            **({"ahead": self._ahead[k]} if self._ahead[k] else {}),
            "part": part.problem_state(0),
        }

    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        """Load the state of problem k, as returned by :meth:`problem_state`. The caller sets the iteration.

        Raises:
            ValueError: the state is of another method or shape.
        """
        if state.get("solver") != "RobustSeparation":
            raise ValueError(f"{self.problems[k].name}: state must be of RobustSeparation, got that of another method")
        part: ProjectionsState | BatchState = self.parts[k]
        if state["method"] == "dop":
            part = self.method.descent(self.problems[k], state["alpha"], self.problems.device)
        elif not isinstance(part, ProjectionsState):
            part = ProjectionsState(self.method.solver, ProblemBatch([self.problems[k]], self.problems.device))
        part.load_problem_state(0, state["part"])
        part.iteration = int(state["iteration"])
        self.parts[k], self._reasons[k] = part, str(state["reason"])
        self._ahead[k] = int(state.get("ahead", 0))

    def select(self, keep: Sequence[int]) -> "SeparationState":
        """Return the problems at the positions ``keep`` as a separate batch, in their current state."""
        other = object.__new__(SeparationState)
        RatelessState.__init__(other, self.problems.select(keep))
        other.method, other.iteration = self.method, self.iteration
        other.parts = [self.parts[k] for k in keep]
        other._reasons = [self._reasons[k] for k in keep]
        other._ahead = [self._ahead[k] for k in keep]
        other._is_interrupted = self._is_interrupted
        return other


def describe(report: Mapping[str, Attribute]) -> str:
    """Return a one-line description of the report of a state.

    >>> describe({"method": "projections", "rank": 5, "certificate": "exact"})
    'alternating projections, rank 5; hidden entries are predicted exactly'
    >>> describe({"method": "dop", "alpha": 12.5, "reason": "projections rejected: hidden entries are not predicted"})
    'double over-parameterization, alpha 12.5; projections rejected: hidden entries are not predicted'
    """
    if report.get("method") == "dop":
        return f"double over-parameterization, alpha {report['alpha']:.3g}; {report['reason']}"
    ends = {
        "exact": "hidden entries are predicted exactly",
        "noisy": "hidden entries are predicted up to noise",
        "rejected": f"not certified: {report.get('reason', '')}",
    }
    certificate = ends.get(str(report.get("certificate")), "not finished")
    return f"alternating projections, rank {report.get('rank')}; {certificate}"


@torch.no_grad()
def singular_values(state: State, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the singular value decomposition of the L of problem k, for any of the methods.

    Args:
        state: state of a batch of matrices.
        k: position of the problem.

    Returns:
        Left vectors ``(n, r)``, descending values ``(r,)``, right vectors ``(r, m)``.
    """
    if isinstance(state, SeparationState):
        return singular_values(state.parts[k], 0)
    if isinstance(state, ProjectionsState):
        found = state.recoveries[k].estimate
        r = found.rank
        return found.left[:, :r], found.values[:r].to(found.left), found.right[:, :r].mT
    factors = None if state.signal is None else state.signal.factors
    if factors is None:
        return torch.linalg.svd(state.evaluate().signal[k], full_matrices=False)
    (Q_left, R_left), (Q_right, R_right) = (torch.linalg.qr(factor[k]) for factor in factors.pair)
    left, values, right = torch.linalg.svd(R_left @ R_right.mT)
    return Q_left @ left, values, right @ Q_right.mT
