"""Recover in a separate thread, and report the progress."""

import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from dop_lightning.images.listener import ProgressListener, use_listener

REPORT_INTERVAL = 0.1
"""Seconds between two reports."""


class Progress(NamedTuple):
    """Progress of a recovery.

    Attributes:
        done: iterations done.
        total: total number of iterations, 0 if not known yet.
        loss: latest loss, ``None`` if not known yet.
    """

    done: int
    total: int
    loss: float | None


class Finished(NamedTuple):
    """Result of a recovery.

    Attributes:
        recovery: the result; ``None`` after an error, or if it was cancelled before the first iteration.
        error: error message in one line, empty without an error.
    """

    recovery: Any
    error: str = ""


class Job(ProgressListener):
    """A recovery that another thread can follow and cancel."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._progress = Progress(0, 0, None)

    @property
    def progress(self) -> Progress:
        """Current progress."""
        return self._progress

    @property
    def is_cancelled(self) -> bool:
        """Whether the recovery was cancelled."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop after the block in progress, and keep the current result."""
        self._cancelled.set()

    def begin(self, total: int) -> None:
        """Record the total number of iterations."""
        self._progress = Progress(0, total, None)

    def advance(self, done: int, scores: Mapping[str, float]) -> None:
        """Record iterations done and the loss."""
        before = self._progress
        self._progress = Progress(before.done + done, before.total, scores.get("loss", before.loss))

    def stop(self) -> bool:
        """Return whether the recovery was cancelled."""
        return self._cancelled.is_set()


def work(job: Job, recover: Callable[[], Any]) -> Generator[Progress, None, Finished]:
    """Call ``recover`` in a thread, yield its progress until it ends, and return the result.

    Args:
        job: listener of the recovery, which can cancel it.
        recover: function that calls ``recover_image``.
    """
    try:
        with ThreadPoolExecutor(1, "recovery") as pool:
            future = pool.submit(_run_with_listener, job, recover)
            try:
                while not wait([future], REPORT_INTERVAL).done:
                    yield job.progress
            finally:
                job.cancel()  # if the generator was closed
            return future.result()
    except Exception as error:  # all errors are shown to the user
        return Finished(None, " ".join(str(error).split()) or type(error).__name__)


def _run_with_listener(job: Job, recover: Callable[[], Any]) -> Finished:
    with use_listener(job):
        try:
            return Finished(recover())
        except KeyboardInterrupt:  # cancelled before the first iteration
            return Finished(None)
