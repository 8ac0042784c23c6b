"""Worker of a sweep: a process that runs points, and is replaced if it dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from dop_lightning.foundation.waiting import limit_spinning
from dop_lightning.runs.sweeps.ended import Ended, judge
from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import LOG

PROGRAM = "dop_lightning.cli.sweep_worker"
"""Module that a worker process runs."""

FORKS = sys.platform == "linux"
"""Whether a process can be forked after its imports; the system libraries of macOS do not support it."""


class Worker:
    """A process that imports PyTorch and Lightning once and then runs points.

    It ends when the sweep ends for any reason. If forks are not supported, a process runs a single point, while the
    next process does its imports.

    Args:
        environment: environment variables to set.
        log: file for its output outside of points.

    Attributes:
        point: the running point; ``None`` if the worker is free.
        seconds: duration of the last point.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.point: Point | None = None
        self.seconds = 0.0
        self._environment = dict(environment)
        self._log = log
        self._processes = [_Process(self._environment, log)]  # the process that runs points, and the next one, if any
        self._begun, self._printed = 0.0, 0

    @property
    def connection(self) -> Connection:
        """Connection that becomes readable when the point ends."""
        return self._processes[0].connection

    def begin(self, point: Point, is_last: bool) -> None:
        """Start a point.

        Args:
            point: point to run; the worker must be free.
            is_last: whether no other point will follow.
        """
        self.point, self._begun, self._printed = point, time.monotonic(), _size(point.folder / LOG)
        # A process that was killed while it waited is replaced; ended() reports one that could not start.
        if self._processes and not self._processes[0].send(point) and not self._processes[0].has_failed:
            self._processes.pop(0).end()
        if not self._processes:
            self._processes.append(_Process(self._environment, self._log))
            self._processes[0].send(point)
        if not FORKS and not is_last:
            self._processes.append(_Process(self._environment, self._log))

    def ended(self) -> Ended | None:
        """Return the result of the point; ``None`` while it runs."""
        if self.point is None or not self.connection.poll():
            return None
        try:
            status = self.connection.recv()
        except (EOFError, OSError):
            status = self._processes.pop(0).end()
        point, self.point = self.point, None
        self.seconds = time.monotonic() - self._begun
        log = point.folder / LOG
        # a process that died before it started the point has reported the reason in the log of the worker
        return judge(point, status, log if status <= 0 or _size(log) > self._printed else self._log)

    def terminate(self) -> None:
        """Ask the point to save and end; a second call stops it immediately."""
        self._processes[0].terminate()

    def close(self) -> None:
        """End a free worker. A running point is finished first."""
        for process in self._processes[1 if self.point else 0 :]:
            process.kill()
            process.end()


class _Process:
    """Process of a worker, and the connection to it."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.connection, child_end = Pipe()
        variables = {**os.environ, **environment}
        limit_spinning(variables)  # before the process imports PyTorch
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(child_end.fileno()), "fork" if FORKS else "single"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=variables,
                pass_fds=[child_end.fileno()],
                start_new_session=True,  # a terminal sends Ctrl-C to the whole session; the sweep handles it
            )
        child_end.close()
        self._has_worked = False
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def send(self, point: Point) -> bool:
        """Send a point, and return whether the process was alive to receive it."""
        try:
            self.connection.send(point)
        except OSError:
            return False
        self._has_worked = True
        return True

    @property
    def has_failed(self) -> bool:
        """Whether the process exited with an error before a point was sent to it."""
        return not self._has_worked and self._process.wait() > 0

    def end(self) -> int:
        """Wait for the end of the process, and return its exit status."""
        self.connection.close()
        return self._process.wait()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
