"""Recover batches or a single problem in one call."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from dop_lightning.engine.evaluated import Ending
from dop_lightning.engine.method import Method
from dop_lightning.engine.roster import TILES_AT_WORK, Roster
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.state import Procedure
from dop_lightning.foundation.checks import at_least
from dop_lightning.problems.problem import Problem, ProblemBatch


class _Endings(Listener):
    """Collects the endings of a run, with their states."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []

    def on_end(self, run: Run, ending: Ending) -> None:
        """Append the ending."""
        self.endings.append(ending)


def max_active_tiles(method: Procedure) -> int | None:
    """Return the maximum number of active tiles; ``None`` for no limit, since filters keep no state."""
    return max_active_images() if isinstance(method, Method) else None


def max_active_images() -> int:
    """Return the maximum number of active images if their states are saved when they end."""
    return max(TILES_AT_WORK, 2 * torch.get_num_threads())


def run_batches(
    method: Procedure,
    batches: Sequence[ProblemBatch],
    maximum: int,
    *,
    block: int,
    listeners: Sequence[Listener],
    device: torch.device | str = "cpu",
    tau: float | Sequence[float] | Literal["auto"] = "auto",
    alpha: float | Sequence[float] | None = None,
    evaluate_every: int | None = None,
    interrupted: Callable[[], object] = lambda: False,
) -> None:
    """Recover batches in turns. Results are passed to the listeners and not stored.

    Args:
        method: the method.
        batches: the problems.
        maximum: maximum number of iterations per problem, at least 1.
        block: iterations between two checks whether a problem has ended.
        listeners: objects that are notified of the progress.
        device: device to run on.
        tau: learning rate of θ, see :class:`~dop_lightning.engine.state.Procedure`; a list has one value per problem.
        alpha: ratio of the learning rates, likewise.
        evaluate_every: see :class:`~dop_lightning.engine.run.Run`.
        interrupted: see :class:`~dop_lightning.engine.run.Run`.

    Raises:
        OutOfMemoryError: a single problem does not fit in memory.
        ValueError: an argument is out of range.
    """
    names = [name for batch in batches for name in batch.names]
    at_once = max_active_tiles(method)
    roster = Roster(method, batches, tau, alpha, names, torch.device(device), keeps_states=False, at_once=at_once)
    Run(
        roster,
        block=block,
        evaluate_every=evaluate_every,
        maximum=at_least("maximum", maximum, 1),
        listeners=listeners,
        interrupted=interrupted,
    ).to_end()


def run_to_end(
    method: Procedure,
    problem: Problem,
    maximum: int,
    *,
    block: int,
    device: torch.device | str = "cpu",
    tau: float | Literal["auto"] = "auto",
    alpha: float | None = None,
    interrupted: Callable[[], object] = lambda: False,
) -> Ending:
    """Recover a single problem, and return its ending with its state.

    Args:
        method: the method.
        problem: the problem.
        maximum: maximum number of iterations, at least 1.
        block: iterations between two checks whether the problem has ended.
        device: device to run on.
        tau: learning rate of θ, see :class:`~dop_lightning.engine.state.Procedure`.
        alpha: ratio of the learning rates, likewise.
        interrupted: see :class:`~dop_lightning.engine.run.Run`.

    Raises:
        OutOfMemoryError: the problem does not fit in memory.
        ValueError: an argument is out of range.
    """
    kept = _Endings()
    run_batches(
        method,
        [ProblemBatch([problem])],
        maximum,
        block=block,
        listeners=[kept],
        device=device,
        tau=tau,
        alpha=alpha,
        interrupted=interrupted,
    )
    return kept.endings[0]
