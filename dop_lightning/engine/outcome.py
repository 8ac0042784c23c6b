"""What becomes of a problem: its status while it runs, and its outcome when it ends."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from dop_lightning.problems.problem import Attribute, Problem

Status = Literal["running", "done", "stable", "diverged", "interrupted"]


class StoredState(Protocol):
    """The state of a problem that is not in memory."""

    def load(self) -> dict[str, Any]:
        """Read it."""


@dataclass(slots=True)
class Record:
    """The bookkeeping of one problem in a run.

    Attributes:
        status: ``running``; ``done`` at the asked number of iterations; ``stable`` where it ended before, by how its
            output changed; ``diverged``; ``interrupted``.
        iteration: gradient iterations done.
        evaluated: the iteration of its last evaluation.
        seconds: time spent on it: that of its batch, divided by the problems of the batch.
        ended: whether it has come to its end (a horizon, a solver that has converged, early stopping), however many
            iterations a run may do.
        scores: of its last evaluation, by tag.
        state: the state of a problem that is in no batch: the final one, or that from which it continues. ``None``
            for a problem in a batch or at its start.
    """

    status: Status = "running"
    iteration: int = 0
    evaluated: int = -1
    seconds: float = 0.0
    ended: bool = False
    scores: dict[str, float] = field(default_factory=dict)
    state: dict[str, Any] | StoredState | None = None

    def loaded_state(self) -> dict[str, Any] | None:
        """Return :attr:`state`, read if it is not in memory."""
        return self.state if self.state is None or isinstance(self.state, dict) else self.state.load()

    def is_finished(self, maximum: int) -> bool:
        """Whether there is nothing left to do up to ``maximum`` iterations, -1 for no such number.

        A problem that was interrupted between its last iteration and its end has to be evaluated.
        """
        if self.ended or self.status in ("stable", "diverged"):
            return True
        interrupted = self.status == "interrupted" and self.iteration == maximum
        return maximum != -1 and self.iteration >= maximum and not interrupted


@dataclass(frozen=True)
class Outcome:
    """What was recovered of one problem, and its scores.

    Attributes:
        problem: what was to be recovered.
        status: see :class:`Record`.
        iteration: gradient iterations done.
        seconds: time spent on it.
        tau: its learning rate of θ.
        alpha: its ratio of rates, ``None`` where no corruption was modelled.
        signal: X̂, ``(*n)``, on the CPU.
        corruption: ŝ, ``(*m)``, on the CPU.
        scores: by tag; a score that is not known (no truth, say) is missing.
        corruption_probability: of each entry, float32 ``(*m)`` in [0, 1], on the CPU; 0 where nothing was observed.
            ``None`` where the method has none, or not yet: see
            :class:`~dop_lightning.engine.steps.Refinement`.
        report: what the method says of the result, such as the one that was chosen and why; may be empty.
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
        """Itself, which lies on the CPU: for ``Trainer.predict``, which moves what it returns there."""
        return self
