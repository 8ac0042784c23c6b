"""A worker of a sweep, as the sweep sees it: a process that runs points, replaced when it has died."""

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
"""The module that a worker runs."""

FORKS = sys.platform == "linux"
"""Whether a process with all imports can be forked: the system libraries of macOS do not support it."""


class Worker:
    """A process that imports PyTorch and Lightning once, and then runs points.

    It ends by itself when the sweep has ended, however that came. Where there are no forks a process runs a single
    point, and the next one does its imports in the meantime.

    Args:
        environment: variables to set for it.
        log: the file for what it prints outside of points.

    Attributes:
        point: what it is running; ``None`` when it is free.
        seconds: how long the last point took.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.point: Point | None = None
        self.seconds = 0.0
        self._environment = dict(environment)
        self._log = log
        self._processes = [_Process(self._environment, log)]  # the one that runs points, and the next one, if any
        self._begun, self._printed = 0.0, 0

    @property
    def connection(self) -> Connection:
        """Where the end of the point arrives."""
        return self._processes[0].connection

    def begin(self, point: Point, is_last: bool) -> None:
        """Run a point.

        Args:
            point: what to run; the worker must be free.
            is_last: whether no other point will follow.
        """
        self.point, self._begun, self._printed = point, time.monotonic(), _size(point.folder / LOG)
        # one that was killed while it waited is replaced; one that could not start is reported by ended()
        if self._processes and not self._processes[0].send(point) and not self._processes[0].has_failed:
            self._processes.pop(0).end()
        if not self._processes:
            self._processes.append(_Process(self._environment, self._log))
            self._processes[0].send(point)
        if not FORKS and not is_last:
            self._processes.append(_Process(self._environment, self._log))

    def ended(self) -> Ended | None:
        """How the point has ended; ``None`` while it runs."""
        if self.point is None or not self.connection.poll():
            return None
        try:
            status = self.connection.recv()
        except (EOFError, OSError):
            status = self._processes.pop(0).end()
        point, self.point = self.point, None
        self.seconds = time.monotonic() - self._begun
        log = point.folder / LOG
        # a process that died before it had begun the point has said why in the log of the worker
        return judge(point, status, log if status <= 0 or _size(log) > self._printed else self._log)

    def terminate(self) -> None:
        """Ask the point to save and end; a second time, to end at once."""
        self._processes[0].terminate()

    def close(self) -> None:
        """End a free worker. One that is at work finishes its point first."""
        for process in self._processes[1 if self.point else 0 :]:
            process.kill()
            process.end()


class _Process:
    """The process of a worker, and the connection to it."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.connection, theirs = Pipe()
        variables = {**os.environ, **environment}
        limit_spinning(variables)  # it imports PyTorch before anything else
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(theirs.fileno()), "fork" if FORKS else "single"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=variables,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a terminal sends Ctrl-C to all of a session; the sweep handles it
            )
        theirs.close()
        self._has_worked = False
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def send(self, point: Point) -> bool:
        """Send a point, and return whether the process is there to receive it."""
        try:
            self.connection.send(point)
        except OSError:
            return False
        self._has_worked = True
        return True

    @property
    def has_failed(self) -> bool:
        """Whether it has ended by an error of its own before it was sent a point."""
        return not self._has_worked and self._process.wait() > 0

    def end(self) -> int:
        """Wait for its end, and return its exit status."""
        self.connection.close()
        return self._process.wait()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
