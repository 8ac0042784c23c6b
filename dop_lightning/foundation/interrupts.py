"""SIGINT and SIGTERM of a command: its exit status, and work that they do not cut.

Both raise ``KeyboardInterrupt``, so that whatever is at work cleans up; :func:`status` is what the command ends with.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The exit status of a command that was stopped by a signal."""

Handler = Callable[[int, FrameType | None], None]


class _Signals:
    """What has come in this process.

    Attributes:
        first: the first signal, 0 for none.
        finishing: blocks of :func:`finishing` that are at work.
        is_waiting: whether a signal waits for their end.
    """

    def __init__(self) -> None:
        self.first = 0
        self.finishing = 0
        self.is_waiting = False


_signals = _Signals()


def note(number: int) -> None:
    """Remember the first signal, for :func:`status`."""
    _signals.first = _signals.first or number


def status() -> int:
    """Return the exit status of a command that ends by ``KeyboardInterrupt``: 130 after SIGINT, else 143."""
    return STATUS[signal.SIGINT if _signals.first in (0, signal.SIGINT) else signal.SIGTERM]


def interrupt(number: int, _: FrameType | None = None) -> None:
    """Stop what this process does, at once or at the end of :func:`finishing`; a handler of signals.

    Raises:
        KeyboardInterrupt: unless the process finishes something.
    """
    note(number)
    if _signals.finishing:
        _signals.is_waiting = True
        return
    raise KeyboardInterrupt


@contextmanager
def finishing() -> Iterator[None]:
    """Let the ``with`` block come to its end before :func:`interrupt` acts, in the main thread.

    Raises:
        KeyboardInterrupt: at the end of the block, if a signal has come meanwhile.
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
    """Let SIGINT and SIGTERM stop a command by ``KeyboardInterrupt``. After one of them, others are ignored.

    Handlers that are not those of Python stay, and other threads than the main one have none.

    Args:
        is_process: whether the command is all that the process does. Else signals are those of its caller.
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
    """Ignore further signals: the process ends, and must not be cut in what it does last."""
    for number in STATUS:
        try:
            signal.signal(number, signal.SIG_IGN)
        except ValueError:  # not the main thread
            return
