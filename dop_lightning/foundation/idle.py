"""Measure how many processor cores other processes leave idle."""

import os
import time
from collections.abc import Sequence

import psutil

SECONDS = 0.2
"""Duration of a measurement in seconds. The system counts in hundredths of a second."""

MAX_MEASUREMENTS = 3
"""Maximum number of measurements on a busy machine, to ignore short bursts of load."""

Times = Sequence[tuple[float, float]]
"""(idle, total) seconds of each core since the system was started."""


def core_times() -> Times:
    """Return the idle and total seconds of the cores that this process may use."""
    every = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity") and len(every) == os.cpu_count():
        every = [every[core] for core in sorted(os.sched_getaffinity(0)) if core < len(every)]
    # the time of guests is included in the user time
    spent = ({**times._asdict(), "guest": 0.0, "guest_nice": 0.0} for times in every)
    return [(times["idle"] + times.get("iowait", 0.0), sum(times.values())) for times in spent]


def idle_cores(before: Times, after: Times) -> float:
    """Return the number of cores that were idle between two measurements, from 0 to the number of cores.

    >>> idle_cores([(10.0, 20.0), (5.0, 20.0)], [(10.2, 20.2), (5.05, 20.2)])
    1.25
    """
    shares = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in zip(before, after, strict=True) if b[1] > a[1]]
    return round(sum(min(1.0, max(0.0, share)) for share in shares), 2)


def measure_idle_cores(enough: float) -> float:
    """Measure the number of idle cores: the maximum of up to :data:`MAX_MEASUREMENTS` measurements.

    Args:
        enough: number of idle cores that ends the measurements early.
    """
    most = 0.0
    for _ in range(MAX_MEASUREMENTS):
        before = core_times()
        time.sleep(SECONDS)
        most = max(most, idle_cores(before, core_times()))
        if most >= enough:
            break
    return most
