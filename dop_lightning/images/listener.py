"""Follow and cancel calls of ``recover_image`` from a program with its own display."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar

from dop_lightning.images.pictures import Picture
from dop_lightning.images.progress import Report


class ProgressListener:
    """Callbacks of a recovery. Override the methods that you need.

    All methods are called in the thread of ``recover_image``.

    Attributes:
        wants_pictures: whether :meth:`show` is called.
    """

    wants_pictures: ClassVar[bool] = False

    def begin(self, total: int) -> None:
        """Receive the total number of iterations of all images and tiles."""

    def advance(self, done: int, scores: Mapping[str, float]) -> None:
        """Receive the number of iterations done since the last call, and the latest scores."""

    def show(self, picture: Picture) -> None:
        """Receive the current result of the image in progress, uint8 ``(H, W)`` or ``(H, W, 3)``."""

    def stop(self) -> bool:
        """Return whether to stop after the block in progress and return the result so far."""
        return False


_LISTENER: ContextVar[ProgressListener | None] = ContextVar("progress_listener", default=None)


@contextmanager
def use_listener(listener: ProgressListener) -> Iterator[None]:
    """Use ``listener`` for the calls of ``recover_image`` within this context, in the current thread."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def current_listener() -> ProgressListener | None:
    """Return the listener of the current thread, if any."""
    return _LISTENER.get()


@contextmanager
def report_to_listener(
    stop: Callable[[], bool], report: Report, total: int
) -> Iterator[tuple[Callable[[], bool], Report]]:
    """Pass progress to the listener of the current thread as well, and stop if it requests that.

    Args:
        stop: returns whether to stop for another reason.
        report: called with the number of iterations done, and scores.
        total: iterations of all images and tiles.
    """
    found = current_listener()
    if found is None:
        yield stop, report
        return
    found.begin(total)

    def report_both(done: int, scores: Mapping[str, float]) -> None:
        report(done, scores)
        found.advance(done, scores)

    yield lambda: stop() or found.stop(), report_both
