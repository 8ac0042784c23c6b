"""The status of a problem during a run, and its outcome."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from dop_lightning.problems.problem import Attribute, Problem

Status = Literal["running", "done", "stable", "diverged", "interrupted"]


class StoredState(Protocol):
    """The state of a problem that is stored outside of memory, such as in a file."""

    def load(self) -> dict[str, Any]:
        """Read the state."""


@dataclass(slots=True)
class Record:
    """Progress of one problem in a run.

    Attributes:
        status: ``running``; ``done`` after the requested number of iterations; ``stable`` if its output or its error
            stopped changing before; ``diverged``; ``interrupted``.
        iteration: number of gradient iterations done.
        evaluated: iteration of the last evaluation.
        seconds: time spent on the problem: the time of its batch divided by the number of problems in the batch.
        ended: whether the problem has ended (horizon reached, solver converged, early stopping), even if a run allows
            more iterations.
        scores: scores of the last evaluation, by tag.
        state: state of a problem that is not in a batch: its final state, or the state to continue from. ``None`` for a
            problem that is in a batch or has not started.
    """

    status: Status = "running"
    iteration: int = 0
    evaluated: int = -1
    seconds: float = 0.0
    ended: bool = False
    scores: dict[str, float] = field(default_factory=dict)
    state: dict[str, Any] | StoredState | None = None

    def loaded_state(self) -> dict[str, Any] | None:
        """Return :attr:`state`; read it if it is not in memory."""
        return self.state if self.state is None or isinstance(self.state, dict) else self.state.load()

    def is_finished(self, maximum: int) -> bool:
        """Return whether the problem is finished in a run of ``maximum`` iterations, -1 for no limit.

        A problem that was interrupted after its last iteration, but before its end, is not finished: it still has to be
        evaluated.
        """
        if self.ended or self.status in ("stable", "diverged"):
            return True
        interrupted = self.status == "interrupted" and self.iteration == maximum
        return maximum != -1 and self.iteration >= maximum and not interrupted


@dataclass(frozen=True)
class Outcome:
    """Result of one problem: the recovered signal and corruption, and their scores.

    Attributes:
        problem: the problem.
        status: see :class:`Record`.
        iteration: number of gradient iterations done.
        seconds: time spent on the problem.
        tau: learning rate of θ.
        alpha: ratio of the learning rates; ``None`` if no corruption is modelled.
        signal: X̂, ``(*n)``, on the CPU.
        corruption: ŝ, ``(*m)``, on the CPU.
        scores: scores by tag, without those that are unknown, for example if there is no truth.
        corruption_probability: probability that each entry is corrupted, float32 ``(*m)`` in [0, 1], on the CPU; 0 for
            unobserved entries. ``None`` if the method does not estimate it, or has not yet: see
            :class:`~dop_lightning.engine.steps.Refinement`.
        report: additional information from the method, such as which result was chosen and why; may be empty.
    """

    problem: Problem
    status: Status
    iteration: int
    seconds: float
    tau: float
    alpha: float | None
    signal: Tensor
    corruption: Tensor
    scores: dict[str, float] = field(default_factory=dict)
    corruption_probability: Tensor | None = None
    report: dict[str, Attribute] = field(default_factory=dict)

    def to(self, device: object) -> "Outcome":
        """Return itself, which is on the CPU already. ``Trainer.predict`` calls this to move its results there."""
        return self
