"""Plan of a run: its batches, and their assignment to processes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dop_lightning.engine.state import State
from dop_lightning.foundation.launched import BATCHES_VARIABLE, gives_all_away, taken_batches
from dop_lightning.foundation.machine import available_memory
from dop_lightning.lightning.strategies.batching import MEMORY_FRACTION, automatic_batches
from dop_lightning.lightning.strategies.plan import Plan, deal
from dop_lightning.lightning.strategies.problem_parallel import ProblemParallelStrategy
from dop_lightning.problems.problem import Problem, form_batches
from dop_lightning.runs.results import remaining_iterations


def plan_run(trainer: pl.Trainer, data: Any, begin: Callable[[Problem], State]) -> Plan:
    """Return the plan of the first process, the same in all processes, and form the batches.

    Args:
        trainer: the trainer.
        data: the data module.
        begin: creates a temporary state of a single problem.
    """
    taken = taken_batches()
    if gives_all_away():
        plan = Plan(_plan_run(trainer, data, begin).batches, [[] for _ in range(trainer.world_size)])
    elif taken is not None:
        plan = _plan_takeover(trainer, data, taken)
    else:
        share = getattr(trainer.strategy, "share", lambda _, decide, __: decide())
        run = Path(trainer.default_root_dir)
        plan = Plan(**share("plan", lambda: _plan_run(trainer, data, begin).to_json(), run))
    data.group(plan.batches)
    if isinstance(trainer.strategy, ProblemParallelStrategy):
        trainer.strategy.plan = plan
    return plan


def _plan_takeover(trainer: pl.Trainer, data: Any, taken: list[int]) -> Plan:
    """Return the plan of a process that takes over batches of a dead process in an active run.

    Raises:
        ValueError: the run has no such batches.
    """
    batches = data.plan or []
    if not set(taken) <= set(range(len(batches))):
        raise ValueError(f"{BATCHES_VARIABLE} must contain batch numbers of the run, below {len(batches)}, got {taken}")
    ranks: list[list[int]] = [[] for _ in range(trainer.world_size)]
    ranks[trainer.global_rank] = taken
    return Plan(batches, ranks)


def _plan_run(trainer: pl.Trainer, data: Any, begin: Callable[[Problem], State]) -> Plan:
    """Plan the batches of an earlier start and those of new problems, balanced by their remaining iterations."""
    kept = data.plan or []
    known = {name for batch in kept for name in batch}
    new = [problem for problem in data.problems if problem.name not in known]
    data.group([*kept, *_new_batches(trainer, data, begin, new)])
    left = remaining_iterations(Path(trainer.default_root_dir), data.problems, trainer.max_steps)
    costs = [sum(left[problem.name] * problem.entries for problem in batch) for batch in data.batches]
    return Plan([batch.names for batch in data.batches], deal(costs, trainer.world_size))


def _new_batches(
    trainer: pl.Trainer, data: Any, begin: Callable[[Problem], State], problems: Sequence[Problem]
) -> list[list[str]]:
    """Return the names of problems by batch, according to the batch size of the data module."""
    if not problems:
        return []
    if data.batch_size != "auto":
        return [batch.names for batch in form_batches(problems, data.batch_size)]
    device = trainer.strategy.root_device
    processes = 1 if device.type == "cuda" else getattr(trainer.strategy, "num_processes", 1)
    limit = data.max_memory or int(MEMORY_FRACTION * available_memory(device)) // processes
    return automatic_batches(problems, begin, limit, trainer.world_size)
