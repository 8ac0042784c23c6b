"""Estimate the remaining time of a run from the duration of its blocks."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from dop_lightning.engine.state import State

WINDOW = 30.0
"""Minimum duration over which speed is measured, in seconds."""

CYCLE = 25
"""Minimum number of iterations per batch over which speed is measured: refinement updates its weights this often."""

SLOW = 1.5
"""Blocks are slow if they take more than this multiple of the expected time."""

MIN_MEASURED_SECONDS = 5.0
"""Minimum measured duration in seconds before a run is called slow."""


def entries(state: State) -> int:
    """Return the number of entries of a batch, to which the work of an iteration is proportional."""
    return int(state.problems.observation.numel())


class Work(NamedTuple):
    """An unfinished batch.

    Attributes:
        entries: number of entries of its observations.
        iteration: iterations done.
    """

    entries: int
    iteration: int


class Pace:
    """Measure the remaining work of a run and the time that it takes.

    Work is measured in entries × iterations. The first block of a batch is measured separately, since it includes work
    before the first iteration, such as the initial detection of :class:`~dop_lightning.engine.steps.Refinement`.

    Args:
        maximum: maximum number of iterations per problem, at least 1.
        work: unfinished batches.
        expected: expected seconds per entry and iteration, if known.
        now: clock reading in seconds.
    """

    def __init__(self, maximum: int, work: Iterable[Work], expected: float | None, now: float) -> None:
        work = list(work)
        self.maximum = maximum
        self.expected = expected
        self._entries = max(1, sum(batch.entries for batch in work))
        self._course: deque[tuple[float, float]] = deque()
        self._seconds, self._work = 0.0, 0.0
        self._first_seconds, self._first_work, self._first_entries = 0.0, 0.0, 0.0
        self._now = now
        self.renew(work)

    def renew(self, work: Iterable[Work]) -> None:
        """Update the unfinished batches, since others may have ended early."""
        self._left, self._waiting = 0.0, 0.0
        for batch in work:
            self._left += batch.entries * max(0, self.maximum - batch.iteration)
            self._waiting += batch.entries if batch.iteration == 0 else 0

    def note(self, state: State, iterations: int, now: float) -> None:
        """Add a measured block.

        Args:
            state: the batch after the block.
            iterations: number of iterations of the block.
            now: reading of the same clock in seconds.
        """
        seconds, self._now = now - self._now, now
        work = float(entries(state) * iterations)
        self._left = max(0.0, self._left - work)
        if state.iteration == iterations:
            self._waiting = max(0.0, self._waiting - entries(state))
            self._first_seconds += seconds
            self._first_work += work
            self._first_entries += entries(state)
            return
        self._course.append((seconds, work))
        self._seconds += seconds
        self._work += work
        while self._seconds - self._course[0][0] >= WINDOW and self._work - self._course[0][1] >= CYCLE * self._entries:
            seconds, work = self._course.popleft()
            self._seconds -= seconds
            self._work -= work

    @property
    def done(self) -> float:
        """Iterations done, averaged over all entries."""
        return self.maximum - self._left / self._entries

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last iteration; ``None`` if unknown."""
        rate = self._rate()
        if rate is None:
            return None
        extra = max(0.0, self._first_seconds - rate * self._first_work) / max(1.0, self._first_entries)
        return self._left * rate + self._waiting * extra

    def _rate(self) -> float | None:
        """Return seconds per entry and iteration, without work before the first iteration."""
        if self._work > 0:
            return self._seconds / self._work
        known = [] if self.expected is None else [self.expected]
        if self._first_work > 0:
            known.append(self._first_seconds / self._first_work)
        return min(known, default=None)

    @property
    def is_slow(self) -> bool:
        """Whether blocks take much longer than expected."""
        seconds, work = self._seconds, self._work
        return self.expected is not None and seconds >= MIN_MEASURED_SECONDS and seconds > SLOW * self.expected * work
