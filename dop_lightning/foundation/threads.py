"""The number of threads of a run: fewer on a busy machine, and the same when it is resumed."""

import math
from dataclasses import dataclass

from dop_lightning.foundation.idle import measure_idle_cores
from dop_lightning.foundation.machine import requested_threads, usable_cores

PARTLY_IDLE = 0.6
"""Idle share of a core from which it counts as one to use."""


@dataclass(frozen=True)
class ThreadChoice:
    """A number of threads.

    Attributes:
        threads: at least 1.
        reason: why there are fewer threads than usable cores, in one sentence; empty if there are not.
    """

    threads: int
    reason: str = ""


def choose_threads(recorded: int | None = None, is_resumed: bool = False) -> ThreadChoice:
    """Return the number of threads of a run in one process.

    That is ``OMP_NUM_THREADS`` or what SLURM has given, if they are set. A resumed run keeps the number it was started
    with, since sums depend on it in their last bits. A new run takes the usable cores that other processes leave idle.

    Args:
        recorded: threads at the start of the run, if they are known.
        is_resumed: whether the run was started before. If its threads are not known, it takes all usable cores.
    """
    if (requested := requested_threads()) is not None:
        return ThreadChoice(requested)
    usable = usable_cores()
    if recorded is not None:
        return _keep(recorded, usable)
    if usable == 1 or is_resumed:
        return ThreadChoice(usable)
    return leave_busy_cores(usable, measure_idle_cores(usable - 1 + PARTLY_IDLE))


def leave_busy_cores(usable: int, idle: float) -> ThreadChoice:
    """Return how many threads to take where so many cores are idle, at least 1 and at most the usable cores.

    >>> leave_busy_cores(8, 7.7).threads, leave_busy_cores(8, 5.2).threads, leave_busy_cores(2, 0.1).threads
    (8, 5, 1)
    """
    threads = min(usable, max(1, math.floor(idle) + (idle % 1 >= PARTLY_IDLE)))
    if threads == usable:
        return ThreadChoice(threads)
    return ThreadChoice(
        threads,
        f"Using {_count(threads)} on {usable} cores, of which other processes leave {min(idle, usable):.1f} idle; set "
        "OMP_NUM_THREADS for another number",
    )


def _keep(recorded: int, usable: int) -> ThreadChoice:
    if recorded > usable:
        return ThreadChoice(
            usable,
            f"Using {_count(usable)}, which is all that this machine has cores for; the run was started with "
            f"{recorded}, so results may differ by rounding",
        )
    if recorded == usable:
        return ThreadChoice(usable)
    reason = f"Using {_count(recorded)} on {usable} cores, as at the start of the run, so that results do not change"
    return ThreadChoice(recorded, f"{reason}; set OMP_NUM_THREADS for another number")


def _count(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"
