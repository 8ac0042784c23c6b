"""The points of a sweep as processes on this machine, so many at a time, by submitit's local executor."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dop_lightning.runs.sweeps.ended import Ended, judge, judge_job
from dop_lightning.runs.sweeps.job import PointJob
from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import begin

if TYPE_CHECKING:
    import submitit

A_YEAR = 365 * 24 * 60
"""In minutes: submitit kills a local job after two of them where nothing else is said."""

PAUSE = 0.2
"""Seconds between two looks at the jobs."""


class Stop:
    """While it is entered, SIGINT and SIGTERM are counted instead of acting.

    Attributes:
        number: of the first signal; 0 before it.
        unheeded: signals that have come and were not passed on.
    """

    def __init__(self) -> None:
        self.number = 0
        self.unheeded = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        self.unheeded += 1


def run(points: Sequence[Point], out: Path, jobs: int, tell: Callable[[str], None]) -> tuple[list[Ended], int]:
    """Run points, at most ``jobs`` at a time, on shares of the threads and GPUs.

    The first Ctrl-C or SIGTERM lets those at work save and end, and begins no other; a second one stops them at once.

    Args:
        points: what to run.
        out: the folder of the sweep.
        jobs: how many at a time.
        tell: takes a line on how the sweep goes on.

    Returns:
        What has become of the points that were begun, and 0, or 130 or 143 after a signal.
    """
    import submitit

    if not points:
        return [], 0
    for point in points:
        begin(point)  # here, where a folder that cannot be written leaves no other point at work
    out.mkdir(parents=True, exist_ok=True)
    # new at each start: jobs are named by the ids of processes, which come again, and old results must not pass for new
    folder = Path(tempfile.mkdtemp(prefix="submitit-", dir=out)).absolute()
    executor = submitit.AutoExecutor(folder, cluster="local")
    executor.update_parameters(timeout_min=A_YEAR)
    waiting, running, ended = deque(points), dict[int, tuple[submitit.Job[int], Point, float]](), list[Ended]()
    shares = environments(min(jobs, len(points)))
    with Stop() as stop:
        while running or (waiting and not stop.number):
            for slot, environment in enumerate(shares):
                if slot not in running and waiting and not stop.number:
                    point = waiting.popleft()
                    tell(f"{point.name}: started, {point.folder}")
                    running[slot] = _submit(executor, PointJob(point, environment, alone=True)), point, time.monotonic()
            time.sleep(PAUSE)
            if stop.unheeded:
                stop.unheeded = 0
                tell("Stopping: the runs save what they have (again: stop at once)")
                for job, _, _ in running.values():
                    os.kill(int(job.job_id), signal.SIGTERM)  # job.cancel would leave them a second
            for slot, (job, point, start) in list(running.items()):
                if job.done():
                    del running[slot]
                    ended.append(_judge(job, point, stop.number))
                    tell(f"{point.name}: {ended[-1].failure or f'finished in {time.monotonic() - start:.0f} s'}")
    if not any(folder in end.log.parents for end in ended):  # all that is to be told is in the logs of the points
        shutil.rmtree(folder)
    return ended, 128 + stop.number if stop.number else 0


def environments(jobs: int) -> list[dict[str, str]]:
    """For each of so many jobs at a time its share of the threads and GPUs, as variables of the environment.

    ``OMP_NUM_THREADS`` is left as it is where the user has set it, and the GPUs are those of ``CUDA_VISIBLE_DEVICES``.
    """
    import torch

    from dop_lightning.foundation.machine import usable_cores

    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // jobs))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
    gpus = visible.split(",")
    # submitit hides the GPUs that it was not asked for, and it does not know which are taken
    return [{"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} for job in range(jobs)]


def _submit(executor: submitit.AutoExecutor, job: PointJob) -> submitit.Job[int]:
    """Start a job that does not hear Ctrl-C: a terminal sends it to all, and the processes around a run would die."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return executor.submit(job)
    finally:
        signal.signal(signal.SIGINT, before)


def _judge(job: submitit.Job[int], point: Point, stopped_by: int) -> Ended:
    if job.paths.result_pickle.exists():
        return judge_job(job, point)
    # the process around the run was killed: by us, before the run had begun, or by another
    return judge(point, -signal.SIGTERM if stopped_by else -signal.SIGKILL, job.paths.stderr)
