"""Stop in an orderly way at Ctrl-C or the stop button of a notebook, and keep the result so far."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_interrupt() -> Iterator[Callable[[], bool]]:
    """Catch the first SIGINT, and yield a function that returns whether it was received.

    A second SIGINT raises ``KeyboardInterrupt`` immediately. Python's default handler is restored on exit. No-op if
    another handler is set, or outside the main thread, which alone receives signals.
    """
    is_requested = False

    def handle(_: int, __: FrameType | None) -> None:
        nonlocal is_requested
        if is_requested:
            raise KeyboardInterrupt
        is_requested = True

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: is_requested
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
