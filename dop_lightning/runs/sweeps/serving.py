"""Process of a worker: run points one after the other, each in a fork of the process that has done the imports."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import begin, open_log, record_digest

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Fit = Callable[[Sequence[str]], int]
"""Type of ``dop fit``: takes its arguments and returns the exit status."""

_PR_SET_PDEATHSIG = 1


def serve(connection: Connection, fit: Fit, fork: bool) -> int:
    """Run the points that arrive, and send the exit status of each.

    Each point runs in a fork of this process. It shares no state with the next point: no random states, threads,
    handlers of signals and warnings, or GPU memory. If forks are not supported, this process runs a single point
    itself.

    Args:
        connection: connection to the sweep.
        fit: ``dop fit``, with all of its imports done.
        fork: whether this system supports forks.

    Returns:
        The exit status of this process: the one of its single point, or 0 when the sweep has ended.
    """
    fork = fork and may_fork()
    if fork:
        gc.collect()
        gc.freeze()  # otherwise, each collection in a fork would visit, and thus copy, all imported objects
    while (point := _receive(connection)) is not None:
        if not fork:
            return run_point(point, fit)
        _fork(connection, point, fit)
    return 0


def may_fork() -> bool:
    """Return whether this process can fork: threads do not survive a fork, and CUDA must be initialized after it."""
    import torch

    return threading.active_count() == 1 and not torch.cuda.is_initialized()


def run_point(point: Point, fit: Fit) -> int:
    """Run ``point`` in this process. Its output, including that of C libraries, goes to the log of the point.

    Returns:
        The exit status of ``dop fit``.
    """
    digest = begin(point)
    with open_log(point) as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    status = fit(point.arguments)
    if status == 0:
        record_digest(point, digest)
    return status


def _receive(connection: Connection) -> Point | None:
    """Return the next point; ``None`` if the sweep has ended."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None


def _fork(connection: Connection, point: Point, fit: Fit) -> None:
    """Run ``point`` in a fork, and send its exit status."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until both processes have set their handlers
    child = os.fork()
    if child == 0:
        connection.close()
        _reset_process(parent)
        _exit_with_status(lambda: run_point(point, fit))
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # keeps the process ID reserved
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the sweep was killed, so there is no next point either
        connection.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _reset_process(parent: int) -> None:
    """Reset a fork to the state of a new process, and make it end with its worker."""
    import numpy as np

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the worker was killed before the previous line
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    np.random.seed()  # noqa: NPY002 - the global stream, which all forks would share


def _exit_with_status(act: Callable[[], int]) -> NoReturn:
    """Call a function and exit with its status, following the steps of the interpreter.

    The destruction of the modules is skipped. In a fork, it would copy them, which takes as long as a small run.
    """
    status = 1
    try:
        status = act()
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        gc.collect()
        files = [each for each in gc.get_objects() if isinstance(each, io.TextIOWrapper | io.BufferedWriter)]
        for file in [*files, sys.stdout, sys.stderr]:
            with contextlib.suppress(OSError, ValueError):  # closed, or the disk is full
                file.flush()
    finally:
        os._exit(status)
