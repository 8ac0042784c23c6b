"""Recover in a thread of its own, and say how far it is."""

import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from dop_lightning.images.following import Follower, followed_by

EVERY = 0.1
"""Seconds between two reports."""


class Progress(NamedTuple):
    """How far a recovery is.

    Attributes:
        done: iterations.
        total: iterations, 0 if not known yet.
        loss: the last one; ``None`` if not known yet.
    """

    done: int
    total: int
    loss: float | None


class Finished(NamedTuple):
    """How a recovery has ended.

    Attributes:
        recovery: the result; ``None`` after an error, or if it was cancelled before it had begun.
        error: one line, empty if there was none.
    """

    recovery: Any
    error: str = ""


class Job(Follower):
    """A recovery that another thread can follow and cancel."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._progress = Progress(0, 0, None)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._progress

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop after the block in progress, and keep what is recovered by then."""
        self._cancelled.set()

    def begin(self, total: int) -> None:
        """Take the number of iterations."""
        self._progress = Progress(0, total, None)

    def advance(self, done: int, scores: Mapping[str, float]) -> None:
        """Take iterations that have been done."""
        before = self._progress
        self._progress = Progress(before.done + done, before.total, scores.get("loss", before.loss))

    def stop(self) -> bool:
        """Return whether it was cancelled."""
        return self._cancelled.is_set()


def work(job: Job, recover: Callable[[], Any]) -> Generator[Progress, None, Finished]:
    """Call ``recover`` in a thread, yield its progress until it has ended, and return how it has.

    Args:
        job: what follows and cancels it.
        recover: calls ``recover_image``.
    """
    try:
        with ThreadPoolExecutor(1, "recovery") as pool:
            future = pool.submit(_followed, job, recover)
            try:
                while not wait([future], EVERY).done:
                    yield job.progress
            finally:
                job.cancel()  # if the generator was left
            return future.result()
    except Exception as error:  # shown to the user, whatever it is
        return Finished(None, " ".join(str(error).split()) or type(error).__name__)


def _followed(job: Job, recover: Callable[[], Any]) -> Finished:
    with followed_by(job):
        try:
            return Finished(recover())
        except KeyboardInterrupt:  # cancelled before it had begun
            return Finished(None)
