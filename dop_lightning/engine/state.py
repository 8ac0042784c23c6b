"""A batch on its way to being recovered, whatever recovers it: what the run loop asks of it.

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
from dop_lightning.model.corruption import Corruption
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import Attribute, ProblemBatch


class OutOfMemoryError(RuntimeError):
    """A batch does not fit in memory; a smaller one may."""


class AdvanceInterrupted(KeyboardInterrupt):
    """Raised in iterations that are interrupted: by a signal handler in the main thread, elsewhere by a poll."""


@dataclass(frozen=True)
class Evaluation:
    """What a batch has recovered so far.

    Attributes:
        iteration: iterations done.
        signal: X̂ ``(K, *n)``, as the next iteration sees it.
        corruption: ŝ ``(K, *m)``.
        loss: ``(K,)``.
        average: the running average of the outputs ``(K, *n)``, if one is kept beside X̂.
    """

    iteration: int
    signal: Tensor
    corruption: Tensor
    loss: Tensor
    average: Tensor | None = None


class State(ABC):
    """K problems and how far they are.

    A :class:`Procedure` makes one, and :class:`~dop_lightning.engine.run.Run` advances it.

    Attributes:
        problems: the batch, on the device where it runs.
        iteration: iterations done.
        tau: learning rate of θ of each problem; 0 without one.
        alpha: ratio of the learning rates of each problem, ``λ = 1/α``.
        optimizers: with their parameters, if any.
        signal: φ(θ); ``None`` if X itself is the unknown.
        largest_abreast: pixels up to which tiles have one thread each and run side by side on a CPU. Larger ones gain
            from all threads, and they need memory.
        corruption: s as a module; ``None`` if s itself is the unknown.
    """

    problems: ProblemBatch
    iteration: int
    tau: list[float]
    alpha: list[float]
    optimizers: list[Optimizer]
    signal: Signal | None = None
    largest_abreast: int = 256 * 256
    corruption: Corruption | None = None
    _is_interrupted: bool = False
    _worker: int | None = None

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def has_corruption(self) -> bool:
        """Whether s is modelled at all."""
        return True

    @property
    def has_ratio(self) -> bool:
        """Whether there is an α."""
        return self.has_corruption

    @property
    def runs_one_by_one(self) -> bool:
        """Whether the problems of a batch are worked on one after the other on a CPU, so that batches save no time."""
        return False

    @property
    def modules(self) -> list[nn.Module]:
        """What holds parameters."""
        return []

    def resume(self) -> None:
        """Clear the effect of an earlier interruption. The run calls it whenever it begins or resumes."""
        self._is_interrupted = False

    def interrupt(self) -> None:
        """End :meth:`advance` soon: the batch is then where it was at the start of the call. For signal handlers.

        Raises:
            AdvanceInterrupted: the batch is at work on a CPU in this thread. :meth:`advance` catches it.
        """
        self._is_interrupted = True
        if self._worker == threading.get_ident() and self.problems.device.type == "cpu":
            raise AdvanceInterrupted

    def poll(self) -> None:
        """Stop if interrupted; called between iterations, and in work of seconds.

        Raises:
            AdvanceInterrupted: the batch is interrupted.
        """
        if self._is_interrupted:
            raise AdvanceInterrupted

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let :meth:`interrupt` raise in the ``with`` block. Set ``_worker`` to ``None`` where it is caught."""
        self._worker = threading.get_ident()
        try:
            self.poll()
            yield
        finally:
            self._worker = None

    @abstractmethod
    def advance(self, iterations: int) -> list[int]:
        """Do iterations on all problems, in place.

        A problem that is not finite at the end goes back to where it was at the start of this call.

        Args:
            iterations: at least 0.

        Returns:
            Positions of the problems that diverged.

        Raises:
            OutOfMemoryError: the batch does not fit in memory; it is where it was at the start of this call.
        """

    @abstractmethod
    def evaluate(self) -> Evaluation:
        """Return X̂, ŝ and the loss as the next iteration sees them, without changing the state."""

    def corruption_probability(self, k: int, iteration: int) -> Tensor | None:
        """Return the probability that each entry of problem k is corrupted, ``(*m)`` on the CPU, if it is known.

        Args:
            k: position of the problem.
            iteration: how many it has done.
        """
        return None

    @abstractmethod
    def finished(self) -> dict[int, Status]:
        """Return the positions of problems that have nothing left to do, with the status they end with."""

    def release(self) -> None:  # noqa: B027 — a state may hold nothing of the kind
        """Free what can be made again."""

    @abstractmethod
    def settings(self, k: int) -> dict[str, Attribute]:
        """Return the rates of problem k and the names of the parts it is recovered by, for tables of settings."""

    def report(self, k: int) -> dict[str, Attribute]:
        """Return what the method says of the result of problem k, for its ``result.json``; empty if nothing."""
        return {}

    @abstractmethod
    def problem_state(self, k: int) -> dict[str, Any]:
        """Return all that problem k needs to go on elsewhere, bit for bit: tensors on the CPU and plain numbers."""

    @abstractmethod
    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        """Put a state made by :meth:`problem_state` in the place of problem k. The iteration is the caller's.

        Raises:
            ValueError: the state is of another method or shape.
        """

    @abstractmethod
    def select(self, keep: Sequence[int]) -> Self:
        """Return the problems at the positions ``keep`` as their own batch, at the same iteration."""


class RatelessState(State):
    """K problems that are worked on one after the other, by a method without learning rates.

    Args:
        problems: the batch, on the device where it is to run.

    Attributes:
        tau: 0 for each problem.
        alpha: 0 for each problem.
        optimizers: none.
    """

    def __init__(self, problems: ProblemBatch) -> None:
        self.problems = problems
        self.iteration = 0
        self.tau = [0.0] * len(problems)
        self.alpha = [0.0] * len(problems)
        self.optimizers = []

    @property
    def has_ratio(self) -> bool:
        """False: there is no α."""
        return False

    @property
    def runs_one_by_one(self) -> bool:
        """True."""
        return True


class Procedure(Protocol):
    """What makes the state of a batch.

    Gradient descent (``Method``), the convex program (``ConvexMethod``) or a classical filter (``FilterMethod``).
    """

    @property
    def grid(self) -> int | None:
        """Blocks end at multiples of it, if the procedure looks at its problems only there."""

    @property
    def first(self) -> int | None:
        """The first block ends at this iteration, if problems may have nothing left to do then."""

    def begin(
        self,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"],
        alpha: float | Sequence[float] | None = None,
    ) -> State:
        """Return a batch at its start.

        Args:
            problems: the batch, on the device where it is to run.
            tau: learning rate of θ, above 0: one number, or one per problem; ``auto`` estimates it from the data. A
                procedure without a θ does not look at it.
            alpha: ratio of the learning rates, above 0: one number, or one per problem; ``None`` is that of each
                problem, and the default of the procedure where a problem has none.

        Raises:
            ValueError: a rate is out of range, there are not K of them, or the parts do not go together.
        """


def out_of_memory(problems: ProblemBatch) -> OutOfMemoryError:
    """Return the error of a batch that does not fit in memory."""
    many = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    return OutOfMemoryError(f"out of memory with {many} of shape {problems.signal_shape}")


def one_per_problem(name: str, value: float | Sequence[float], size: int) -> list[float]:
    """Return a setting of each of ``size`` problems: the one number given, or the numbers.

    Raises:
        ValueError: one is not above 0, or there are not so many.
    """
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * size
    if len(values) != size:
        raise ValueError(f"{name} must be one number, or one per problem ({size}), got {len(values)} numbers")
    for v in values:
        positive(name, v)
    return values
