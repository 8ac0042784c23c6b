"""A point as a job of SLURM: ``dop fit`` as a process of its own, whose end, however it comes, is reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import TYPE_CHECKING

from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import begin, open_log, settle

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


class PointJob:
    """What submitit calls where the job runs. The process around it is small, and outlives one that is killed.

    SIGTERM lets ``dop fit`` save and end; where SLURM says that the time is up, the job is queued again after that.

    Args:
        point: what to run.
    """

    def __init__(self, point: Point) -> None:
        self.point = point
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False

    def __call__(self) -> int:
        """Run the point to its end.

        Returns:
            The exit status of ``dop fit``, negative where a signal has killed it.
        """
        signal.signal(signal.SIGTERM, self._on_sigterm)
        digest = begin(self.point)
        command = [sys.executable, "-m", "dop_lightning", "fit", *self.point.arguments]
        with open_log(self.point) as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_ignore_sigusr2,
            )
            status = self._process.wait()
        if status == 0:
            settle(self.point, digest)
        return status

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit when the time of a job is up: let the run save, and say what is to be queued again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            if not self._told:
                self._process.send_signal(signal.SIGTERM)
            # not Popen.wait, inside of which the signal has found us, with its lock held
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(PointJob(self.point))

    def _on_sigterm(self, number: int, _: FrameType | None) -> None:
        if self._process is None:
            sys.exit(128 + number)
        self._told = True  # SLURM sends it to all processes of a job: passed on it would mean to stop at once


def _ignore_sigusr2() -> None:
    """SLURM sends the warning that the time is up to all processes of a job, and ours would die of it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
