"""Handle SIGINT and SIGTERM: exit statuses, and blocks that are completed before the command stops.

Both signals raise ``KeyboardInterrupt``, so that running code can clean up. :func:`status` is the exit status of the
command.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The exit status of a command that was stopped by a signal."""

Handler = Callable[[int, FrameType | None], None]


class _Signals:
    """Signals that this process has received.

    Attributes:
        first: the first signal, 0 if none.
        finishing: number of active :func:`finishing` blocks.
        is_waiting: whether a signal is deferred until these blocks end.
    """

    def __init__(self) -> None:
        self.first = 0
        self.finishing = 0
        self.is_waiting = False


_signals = _Signals()


def note(number: int) -> None:
    """Record the first signal, for :func:`status`."""
    _signals.first = _signals.first or number


def status() -> int:
    """Return the exit status of a command that ends with ``KeyboardInterrupt``: 130 after SIGINT, otherwise 143."""
    return STATUS[signal.SIGINT if _signals.first in (0, signal.SIGINT) else signal.SIGTERM]


def interrupt(number: int, _: FrameType | None = None) -> None:
    """Signal handler: stop the process immediately, or at the end of the active :func:`finishing` blocks.

    Raises:
        KeyboardInterrupt: no :func:`finishing` block is active.
    """
    note(number)
    if _signals.finishing:
        _signals.is_waiting = True
        return
    raise KeyboardInterrupt


@contextmanager
def finishing() -> Iterator[None]:
    """Defer :func:`interrupt` to the end of the ``with`` block, in the main thread.

    Raises:
        KeyboardInterrupt: at the end of the block, if a signal was received within it.
    """
    _signals.finishing += 1
    try:
        yield
    finally:
        _signals.finishing -= 1
        waiting = _signals.is_waiting and not _signals.finishing
        _signals.is_waiting = _signals.is_waiting and not waiting
    if waiting:
        raise KeyboardInterrupt


@contextmanager
def interruptible(is_process: bool = True) -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` on SIGINT and SIGTERM within the ``with`` block. Later signals are ignored.

    Handlers other than Python's default ones are kept. No-op outside the main thread.

    Args:
        is_process: whether the process was started for this command. Otherwise signals are left to the caller.
    """
    _signals.first, _signals.is_waiting = 0, False
    if not is_process:
        yield
        return
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is default:
            try:
                signal.signal(number, interrupt)
            except ValueError:  # not the main thread
                break
    try:
        yield
    except KeyboardInterrupt:
        ignore_further()
        raise


def ignore_further() -> None:
    """Ignore further signals while the process shuts down."""
    for number in STATUS:
        try:
            signal.signal(number, signal.SIG_IGN)
        except ValueError:  # not the main thread
            return
