"""Follow and cancel what ``recover_image`` does, from a program with a display of its own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar

from dop_lightning.images.pictures import Picture
from dop_lightning.images.progress import Tell


class Follower:
    """What a program wants to know of a recovery; a subclass overrides what it needs.

    All methods are called in the thread of ``recover_image``.

    Attributes:
        wants_pictures: whether :meth:`show` is called.
    """

    wants_pictures: ClassVar[bool] = False

    def begin(self, total: int) -> None:
        """Take the number of iterations of all images and tiles."""

    def advance(self, done: int, scores: Mapping[str, float]) -> None:
        """Take a number of iterations that have been done since the last call, and the last scores."""

    def show(self, picture: Picture) -> None:
        """Take the image that is at work as it is recovered by now, ``(H, W)`` or ``(H, W, 3)``, uint8."""

    def stop(self) -> bool:
        """Return whether to stop after the block in progress, with what is recovered by then."""
        return False


_FOLLOWER: ContextVar[Follower | None] = ContextVar("follower", default=None)


@contextmanager
def followed_by(follower: Follower) -> Iterator[None]:
    """Let calls of ``recover_image`` in this block, in this thread, be followed."""
    token = _FOLLOWER.set(follower)
    try:
        yield
    finally:
        _FOLLOWER.reset(token)


def follower() -> Follower | None:
    """Return the follower of this thread, if any."""
    return _FOLLOWER.get()


@contextmanager
def followed(stop: Callable[[], bool], tell: Tell, total: int) -> Iterator[tuple[Callable[[], bool], Tell]]:
    """Let the follower of this thread know what ``tell`` is told, and stop if it asks for that.

    Args:
        stop: whether to stop for another reason.
        tell: told of iterations that are done.
        total: iterations of all images and tiles.
    """
    found = follower()
    if found is None:
        yield stop, tell
        return
    found.begin(total)

    def tell_both(done: int, scores: Mapping[str, float]) -> None:
        tell(done, scores)
        found.advance(done, scores)

    yield lambda: stop() or found.stop(), tell_both
