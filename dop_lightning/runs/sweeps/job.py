"""A point as a job: ``dop fit`` as a process of its own, whose end, however it comes, is seen and told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING

from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import LOG, begin, settle

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


class PointJob:
    """What submitit calls where the job runs. The process around it is small, and outlives one that is killed.

    SIGTERM lets ``dop fit`` save and end; where SLURM says that the time is up, the job is queued again after that.

    Args:
        point: what to run.
        environment: variables to set for it.
        alone: whether nobody but this job sends its process signals: so it is on this machine, where Ctrl-C is the
            sweep's to handle. SLURM sends them to all processes of a job, and passed on they would come twice, which
            means to stop at once.
    """

    def __init__(self, point: Point, environment: Mapping[str, str] | None = None, alone: bool = False) -> None:
        self.point = point
        self.environment = dict(environment or {})
        self.alone = alone
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
        with (self.point.folder / LOG).open("ab") as log:
            log.write(f"$ {self.point.command}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=self.alone,
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
        return DelayedSubmission(PointJob(self.point, self.environment, self.alone))

    def _on_sigterm(self, number: int, _: FrameType | None) -> None:
        if self._process is None:
            sys.exit(128 + number)
        self._told = True
        if self.alone:
            self._process.send_signal(number)


def _ignore_sigusr2() -> None:
    """SLURM sends the warning that the time is up to all processes of a job, and ours would die of it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
