"""Form batches as large as memory allows."""

from collections.abc import Callable, Sequence

from dop_lightning.engine.measure import working_memory
from dop_lightning.engine.state import State
from dop_lightning.lightning.strategies.plan import even_size
from dop_lightning.problems.problem import Problem, group_by_shape

MEMORY_FRACTION = 0.6
"""Fraction of the available memory that a batch may use by default."""


def automatic_batches(
    problems: Sequence[Problem], begin: Callable[[Problem], State], limit: int, ranks: int
) -> list[list[str]]:
    """Form batches that are as large as memory allows, with at least one batch per process if possible.

    On a CPU, the networks of a batch run one after the other, so a larger batch would take more memory without saving
    time. Such batches have one problem each.

    Args:
        problems: problems of a run, of any shapes.
        begin: creates a temporary state of one problem.
        limit: maximum memory of an active batch in bytes.
        ranks: number of processes that share the batches.

    Returns:
        The names of the problems of each batch.
    """
    batches: list[list[str]] = []
    for group in group_by_shape(problems):
        state = begin(group[0])
        if state.is_sequential and state.problems.device.type == "cpu":
            size = 1
        else:
            size = even_size(len(group), max(1, limit // working_memory(state)), ranks)
        names = [problem.name for problem in group]
        batches += [names[i : i + size] for i in range(0, len(names), size)]
    return batches
