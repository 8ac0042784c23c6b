"""Batches as large as memory allows."""

from collections.abc import Callable, Sequence

from dop_lightning.engine.measure import working_memory
from dop_lightning.engine.state import State
from dop_lightning.lightning.strategies.plan import even_size
from dop_lightning.problems.problem import Problem, of_one_shape

SHARE_FOR_BATCHES = 0.6
"""Of the memory that is free, what a batch may take where nothing is said."""


def automatic_batches(
    problems: Sequence[Problem], begin: Callable[[Problem], State], limit: int, ranks: int
) -> list[list[str]]:
    """As many problems in a batch as memory allows, and as there are for each process.

    The networks of a batch run one after the other on a CPU, where a batch of them would take more memory and no less
    time: there each has a batch of its own.

    Args:
        problems: of a run, of any shapes.
        begin: makes the state of one problem, which is thrown away.
        limit: bytes that a batch at work may take.
        ranks: processes that share the batches.

    Returns:
        The names of the problems of each batch.
    """
    batches: list[list[str]] = []
    for group in of_one_shape(problems):
        state = begin(group[0])
        if state.runs_one_by_one and state.problems.device.type == "cpu":
            size = 1
        else:
            size = even_size(len(group), max(1, limit // working_memory(state)), ranks)
        names = [problem.name for problem in group]
        batches += [names[i : i + size] for i in range(0, len(names), size)]
    return batches
