"""The interface between the run loop and the state of a batch, for all methods.

Shapes: K problems, ``*m`` the shape of an observation, ``*n`` of a signal.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.engine.outcome import Status
from dop_lightning.foundation.checks import positive
from dop_lightning.foundation.renamed import RenamedAttribute
from dop_lightning.model.corruption import Corruption
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import Attribute, ProblemBatch


class OutOfMemoryError(RuntimeError):
    """A batch does not fit in memory. A smaller one may fit."""


class AdvanceInterrupted(KeyboardInterrupt):
    """Raised in iterations that are interrupted: by a signal handler in the main thread, by polling in others."""


@dataclass(frozen=True)
class Evaluation:
    """Signal, corruption and loss of a batch at an iteration.

    Attributes:
        iteration: number of iterations done.
        signal: X̂ ``(K, *n)``, as the next iteration sees it.
        corruption: ŝ ``(K, *m)``.
        loss: loss of each problem, ``(K,)``.
        average: running average of the outputs ``(K, *n)``, if the method keeps one in addition to X̂.
    """

    iteration: int
    signal: Tensor
    corruption: Tensor
    loss: Tensor
    average: Tensor | None = None


class State(ABC):
    """State of K problems.

    A :class:`Procedure` creates it, and :class:`~dop_lightning.engine.run.Run` advances it.

    Attributes:
        problems: the batch, on the device to run on.
        iteration: number of iterations done.
        tau: learning rate of θ of each problem; 0 if there is none.
        alpha: ratio of the learning rates of each problem, ``λ = 1/α``.
        optimizers: the optimizers, if any.
        signal: φ(θ); ``None`` if X itself is the unknown.
        max_concurrent_pixels: maximum number of pixels of tiles that run concurrently on a CPU, with one thread each.
            Larger tiles benefit from several threads, and need more memory.
        corruption: s as a module; ``None`` if s itself is the unknown.
    """

    problems: ProblemBatch
    iteration: int
    tau: list[float]
    alpha: list[float]
    optimizers: list[Optimizer]
    signal: Signal | None = None
    max_concurrent_pixels: int = 256 * 256
    corruption: Corruption | None = None
    _is_interrupted: bool = False
    _worker: int | None = None

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def has_corruption(self) -> bool:
        """Whether s is modelled."""
        return True

    @property
    def has_ratio(self) -> bool:
        """Whether the method has a ratio α."""
        return self.has_corruption

    @property
    def is_sequential(self) -> bool:
        """Whether a CPU processes the problems of a batch one after the other, so that batching does not save time."""
        return False

    @property
    def modules(self) -> list[nn.Module]:
        """Modules that hold parameters."""
        return []

    def resume(self) -> None:
        """Clear an earlier interruption. The run calls this when it begins or resumes."""
        self._is_interrupted = False

    def interrupt(self) -> None:
        """Abort :meth:`advance`; for signal handlers. The batch returns to its state at the start of the call.

        Raises:
            AdvanceInterrupted: the batch is being advanced on a CPU in this thread. :meth:`advance` catches the error.
        """
        self._is_interrupted = True
        if self._worker == threading.get_ident() and self.problems.device.type == "cpu":
            raise AdvanceInterrupted

    def poll(self) -> None:
        """Raise an error if the batch is interrupted. Call it between iterations, and during work that takes seconds.

        Raises:
            AdvanceInterrupted: the batch is interrupted.
        """
        if self._is_interrupted:
            raise AdvanceInterrupted

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Allow :meth:`interrupt` to raise in the ``with`` block. After catching it, set ``_worker`` to ``None``."""
        self._worker = threading.get_ident()
        try:
            self.poll()
            yield
        finally:
            self._worker = None

    @abstractmethod
    def advance(self, iterations: int) -> list[int]:
        """Do iterations on all problems, in place.

        A problem that is not finite at the end returns to its state at the start of the call.

        Args:
            iterations: at least 0.

        Returns:
            Positions of the problems that diverged.

        Raises:
            OutOfMemoryError: the batch does not fit in memory; it is back in its state at the start of the call.
        """

    @abstractmethod
    def evaluate(self) -> Evaluation:
        """Return X̂, ŝ and the loss as the next iteration sees them, without changing the state."""

    def corruption_probability(self, k: int, iteration: int) -> Tensor | None:
        """Return the probability that each entry of problem k is corrupted, ``(*m)`` on the CPU, if it is known.

        Args:
            k: position of the problem.
            iteration: number of iterations that it has done.
        """
        return None

    @abstractmethod
    def finished(self) -> dict[int, Status]:
        """Return the positions of finished problems, with their final status."""

    def release(self) -> None:  # noqa: B027 — a state may have no cached memory
        """Free cached memory that can be recomputed."""

    @abstractmethod
    def settings(self, k: int) -> dict[str, Attribute]:
        """Return the learning rates of problem k and the names of the parts of the method, for tables of settings."""

    def report(self, k: int) -> dict[str, Attribute]:
        """Return additional information on the result of problem k for its ``result.json``; may be empty."""
        return {}

    @abstractmethod
    def problem_state(self, k: int) -> dict[str, Any]:
        """Return the full state of problem k, to continue bit for bit: tensors on the CPU and plain numbers."""

    @abstractmethod
    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        """Load a state from :meth:`problem_state` into problem k. The caller sets the iteration.

        Raises:
            ValueError: the state has another method or shape.
        """

    @abstractmethod
    def select(self, keep: Sequence[int]) -> Self:
        """Return the problems at the positions ``keep`` as a separate batch, in their current state."""

    # Old names, until version 0.3.
    largest_abreast = RenamedAttribute("max_concurrent_pixels")
    runs_one_by_one = RenamedAttribute("is_sequential")


class RatelessState(State):
    """State of K problems for methods without learning rates, which process one problem after the other.

    Args:
        problems: the batch, on the device to run on.

    Attributes:
        tau: 0 for each problem.
        alpha: 0 for each problem.
        optimizers: empty.
    """

    def __init__(self, problems: ProblemBatch) -> None:
        self.problems = problems
        self.iteration = 0
        self.tau = [0.0] * len(problems)
        self.alpha = [0.0] * len(problems)
        self.optimizers = []

    @property
    def has_ratio(self) -> bool:
        """False: the method has no α."""
        return False

    @property
    def is_sequential(self) -> bool:
        """True: problems are processed one after the other."""
        return True


class Procedure(Protocol):
    """Creates the state of a batch.

    Gradient descent (``Method``), the convex program (``ConvexMethod``) or a classical filter (``FilterMethod``).
    """

    @property
    def grid(self) -> int | None:
        """Blocks also end at multiples of this, if the procedure checks problems only there."""

    @property
    def first(self) -> int | None:
        """The first block ends at this iteration, if problems may be finished then."""

    def begin(
        self,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"],
        alpha: float | Sequence[float] | None = None,
    ) -> State:
        """Return the initial state of a batch.

        Args:
            problems: the batch, on the device to run on.
            tau: learning rate of θ, above 0: one number, or one per problem; ``auto`` estimates it from the data.
                Procedures without θ ignore it.
            alpha: ratio of the learning rates, above 0: one number, or one per problem; ``None`` uses ``alpha`` of each
                problem, or the default of the procedure if that is ``None`` too.

        Raises:
            ValueError: a rate is out of range, the number of rates is not K, or the parts are incompatible.
        """


def out_of_memory(problems: ProblemBatch) -> OutOfMemoryError:
    """Return the error for a batch that does not fit in memory."""
    many = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    return OutOfMemoryError(f"out of memory with {many} of shape {problems.signal_shape}")


def one_per_problem(name: str, value: float | Sequence[float], size: int) -> list[float]:
    """Return one value of a setting per problem, given one number or a list of ``size`` numbers.

    Raises:
        ValueError: a value is not positive, or the list has another length.
    """
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * size
    if len(values) != size:
        raise ValueError(f"{name} must be one number, or one per problem ({size}), got {len(values)} numbers")
    for v in values:
        positive(name, v)
    return values
