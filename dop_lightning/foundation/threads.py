"""Choose the number of threads of a run: fewer on a busy machine, and the same after resuming."""

import math
from dataclasses import dataclass

from dop_lightning.foundation.idle import measure_idle_cores
from dop_lightning.foundation.machine import requested_threads, usable_cores

MIN_IDLE_FRACTION = 0.6
"""Minimum idle fraction of a core at which it is used."""


@dataclass(frozen=True)
class ThreadChoice:
    """Number of threads, with a reason.

    Attributes:
        threads: number of threads, ≥ 1.
        reason: sentence that explains why it is below the number of usable cores; empty if it is not.
    """

    threads: int
    reason: str = ""


def choose_threads(recorded: int | None = None, is_resumed: bool = False) -> ThreadChoice:
    """Return the number of threads of a run in one process.

    It is ``OMP_NUM_THREADS`` or the number of cores assigned by SLURM, if set. A resumed run keeps its original number,
    since the last bits of sums depend on it. A new run uses the usable cores that other processes leave idle.

    Args:
        recorded: number of threads at the start of the run, if known.
        is_resumed: whether the run is resumed. If ``recorded`` is unknown, it then uses all usable cores.
    """
    if (requested := requested_threads()) is not None:
        return ThreadChoice(requested)
    usable = usable_cores()
    if recorded is not None:
        return _keep_recorded(recorded, usable)
    if usable == 1 or is_resumed:
        return ThreadChoice(usable)
    return avoid_busy_cores(usable, measure_idle_cores(usable - 1 + MIN_IDLE_FRACTION))


def avoid_busy_cores(usable: int, idle: float) -> ThreadChoice:
    """Return the number of threads for a number of idle cores, from 1 to the number of usable cores.

    >>> avoid_busy_cores(8, 7.7).threads, avoid_busy_cores(8, 5.2).threads, avoid_busy_cores(2, 0.1).threads
    (8, 5, 1)
    """
    threads = min(usable, max(1, math.floor(idle) + (idle % 1 >= MIN_IDLE_FRACTION)))
    if threads == usable:
        return ThreadChoice(threads)
    return ThreadChoice(
        threads,
        f"Using {_format_threads(threads)} on {usable} cores, because other processes leave {min(idle, usable):.1f} "
        "idle; set OMP_NUM_THREADS to override",
    )


def _keep_recorded(recorded: int, usable: int) -> ThreadChoice:
    if recorded > usable:
        return ThreadChoice(
            usable,
            f"Using {_format_threads(usable)}, one per core; the run was started with {recorded}, so results may "
            "differ by rounding",
        )
    if recorded == usable:
        return ThreadChoice(usable)
    used = f"Using {_format_threads(recorded)} on {usable} cores"
    reason = f"{used}, as at the start of the run, so that results do not change"
    return ThreadChoice(recorded, f"{reason}; set OMP_NUM_THREADS to override")


def _format_threads(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"
