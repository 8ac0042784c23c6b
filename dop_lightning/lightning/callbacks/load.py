"""Measure the processor time of other processes."""

import time

import psutil

MIN_BUSY_CORES = 0.25
"""Minimum number of cores used by other processes that is reported."""


class OtherLoad:
    """Measure the cores that other processes of the machine use, since the creation of the object or the last call."""

    def __init__(self) -> None:
        self._before = self._clock_and_load()

    @staticmethod
    def _clock_and_load() -> tuple[float, float]:
        """Return a clock reading, and the processor time of all other processes, both in seconds."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice as well
        return time.monotonic(), sum(times) - guest - idle - time.process_time()

    def measure(self) -> float:
        """Return the mean number of cores since the last call."""
        (begin, before), self._before = self._before, self._clock_and_load()
        now, busy = self._before
        return max(0.0, busy - before) / max(1e-3, now - begin)


def describe(cores: float) -> str:
    """Format the load of other processes; empty if it is small.

    >>> describe(0.1)
    ''
    """
    if cores < MIN_BUSY_CORES:
        return ""
    return f"slower than expected: other processes use {cores:.1f} of {psutil.cpu_count() or 1} cores"
