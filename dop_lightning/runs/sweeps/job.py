"""A point as a SLURM job: ``dop fit`` in a separate process, so that its end is always reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import TYPE_CHECKING

from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import begin, open_log, record_digest

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


class PointJob:
    """Callable that submitit runs in a job. The process around it is small, and survives if ``dop fit`` is killed.

    SIGTERM makes ``dop fit`` save and end. If SLURM announces the time limit, the job is requeued afterwards.

    Args:
        point: point to run.
    """

    def __init__(self, point: Point) -> None:
        self.point = point
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False

    def __call__(self) -> int:
        """Run the point until it ends.

        Returns:
            The exit status of ``dop fit``, negative if a signal killed it.
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
            record_digest(self.point, digest)
        return status

    def checkpoint(self) -> DelayedSubmission:
        """Save the run at the time limit of the job, and return the job to requeue. Called by submitit."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            if not self._told:
                self._process.send_signal(signal.SIGTERM)
            # not Popen.wait: the signal has interrupted it while it holds its lock
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(PointJob(self.point))

    def _on_sigterm(self, number: int, _: FrameType | None) -> None:
        if self._process is None:
            sys.exit(128 + number)
        self._told = True  # SLURM sends SIGTERM to all processes of a job; a second one would stop dop fit immediately


def _ignore_sigusr2() -> None:
    """Ignore the time limit warning, which SLURM sends to all processes of a job; it would kill ``dop fit``."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
