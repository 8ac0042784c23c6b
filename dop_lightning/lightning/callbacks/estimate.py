"""Estimate the duration of a run from a few iterations of its largest problem."""

from typing import NamedTuple

from dop_lightning.engine.concurrency import concurrent_batches
from dop_lightning.engine.graphs import iterations_ahead
from dop_lightning.engine.measure import seconds_per_iteration
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.foundation.units import format_duration
from dop_lightning.lightning.module import DoubleOverparameterization


class Estimate(NamedTuple):
    """Estimated duration of a run.

    Attributes:
        text: estimate as a message.
        rate: seconds per entry and iteration; ``None`` if it could not be measured.
    """

    text: str
    rate: float | None


def estimate_time(module: DoubleOverparameterization, last: int) -> Estimate:
    """Estimate the duration of the active batches, in proportion to the entries of the largest problem.

    Args:
        module: module with active batches.
        last: maximum number of iterations per problem.
    """
    sizes = [state.problems.observation[0].numel() for state in module.states]
    largest = module.states[sizes.index(max(sizes))]
    try:
        ahead, number = (
            iterations_ahead(largest.problems.device),
            min(concurrent_batches(largest), sizes.count(max(sizes))),
        )
        one, *beside = (largest.select([0]) for _ in range(number))
        seconds = seconds_per_iteration(one, stopped=lambda: module.stopped_by, ahead=ahead, beside=beside)
    except OutOfMemoryError as error:
        return Estimate(f"{error}", None)  # the first step reports what to do
    work = sum(batch.entries * (last - done) for batch, done in module.roster.unfinished())
    rate = seconds / max(sizes)
    return Estimate(
        f"The iterations will take {format_duration(rate * work)}, {seconds:.2g} s each for the largest problem", rate
    )
