"""Recover batches, or one problem, from their start to their end, in one call."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from dop_lightning.engine.look import Ending
from dop_lightning.engine.method import Method
from dop_lightning.engine.roster import TILES_AT_WORK, Roster
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.state import Procedure
from dop_lightning.foundation.checks import at_least
from dop_lightning.problems.problem import Problem, ProblemBatch


class _Endings(Listener):
    """Keeps the ends of a run, with their states."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []

    def on_end(self, run: Run, ending: Ending) -> None:
        """Keep it."""
        self.endings.append(ending)


def tiles_at_work(method: Procedure) -> int | None:
    """Return how many tiles are at work at a time, ``None`` for all: filters keep nothing between iterations."""
    return wholes_at_work() if isinstance(method, Method) else None


def wholes_at_work() -> int:
    """Return how many images are at work at a time where their states are saved as they end."""
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
    """Recover batches, in turns. Nothing is kept but what the listeners keep.

    Args:
        method: how.
        batches: the problems.
        maximum: iterations of each problem, at least 1.
        block: iterations between two looks at whether a problem has ended.
        listeners: what follows the run.
        device: where.
        tau: learning rate of θ, see :class:`~dop_lightning.engine.state.Procedure`; a list has one per problem.
        alpha: ratio of the rates, likewise.
        evaluate_every: see :class:`~dop_lightning.engine.run.Run`.
        interrupted: likewise.

    Raises:
        OutOfMemoryError: a single problem does not fit in memory.
        ValueError: an argument is out of range.
    """
    names = [name for batch in batches for name in batch.names]
    at_once = tiles_at_work(method)
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
    """Recover one problem by itself, and return how it ended, with its state.

    Args:
        method: how.
        problem: what.
        maximum: iterations, at least 1.
        block: iterations between two looks at whether it has ended.
        device: where.
        tau: learning rate of θ, see :class:`~dop_lightning.engine.state.Procedure`.
        alpha: ratio of the rates, likewise.
        interrupted: see :class:`~dop_lightning.engine.run.Run`.

    Raises:
        OutOfMemoryError: it does not fit in memory.
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
