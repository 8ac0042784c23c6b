"""Processor cores that other processes leave idle, measured for a moment."""

import os
import time
from collections.abc import Sequence

import psutil

SECONDS = 0.2
"""Length of a measurement; the system counts hundredths of a second."""

TRIES = 3
"""Measurements where the machine seems busy: short bursts of load do not count."""

Times = Sequence[tuple[float, float]]
"""(idle, total) seconds of each core since the system has started."""


def core_times() -> Times:
    """Return the idle and the total seconds of the cores that this process may use."""
    every = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity") and len(every) == os.cpu_count():
        every = [every[core] for core in sorted(os.sched_getaffinity(0)) if core < len(every)]
    # guests are part of the user's time
    spent = ({**times._asdict(), "guest": 0.0, "guest_nice": 0.0} for times in every)
    return [(times["idle"] + times.get("iowait", 0.0), sum(times.values())) for times in spent]


def idle_cores(before: Times, after: Times) -> float:
    """Return how many cores were idle between two measurements, from 0 to their number.

    >>> idle_cores([(10.0, 20.0), (5.0, 20.0)], [(10.2, 20.2), (5.05, 20.2)])
    1.25
    """
    shares = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in zip(before, after, strict=True) if b[1] > a[1]]
    return round(sum(min(1.0, max(0.0, share)) for share in shares), 2)


def measure_idle_cores(enough: float) -> float:
    """Measure how many cores are idle: the most of up to :data:`TRIES` measurements.

    Args:
        enough: number of idle cores after which no other measurement is made.
    """
    most = 0.0
    for _ in range(TRIES):
        before = core_times()
        time.sleep(SECONDS)
        most = max(most, idle_cores(before, core_times()))
        if most >= enough:
            break
    return most
