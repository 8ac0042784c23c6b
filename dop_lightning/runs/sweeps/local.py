"""Run the points of a sweep on this machine, by workers that each run one point at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

from dop_lightning.runs.sweeps.ended import Ended
from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import begin
from dop_lightning.runs.sweeps.worker import Worker

PAUSE = 0.2
"""Maximum delay in seconds until a signal is handled."""


class Stop:
    """Context in which SIGINT and SIGTERM are counted and have no other effect.

    Attributes:
        number: number of the first signal; 0 before it.
        unheeded: number of signals that have not been handled yet.
    """

    def __init__(self) -> None:
        self.number = 0
        self.unheeded = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._count_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count_signal(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        self.unheeded += 1


def run(points: Sequence[Point], out: Path, jobs: int, report: Callable[[str], None]) -> tuple[list[Ended], int]:
    """Run points, at most ``jobs`` at a time, each with an equal part of the threads and GPUs.

    The first Ctrl-C or SIGTERM makes the running points save and end, and starts no others. A second signal ends
    them immediately.

    Args:
        points: points to run.
        out: folder of the sweep.
        jobs: maximum number of concurrent points.
        report: called with each progress message.

    Returns:
        The results of the points that were started, and 0, or 130 or 143 after a signal.
    """
    if not points:
        return [], 0
    for point in points:
        begin(point)  # before any point is started, in case a folder is not writable
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="workers-", dir=out)).absolute()
    shares = environments(min(jobs, len(points)))
    workers = [Worker(share, folder / f"{number}.txt") for number, share in enumerate(shares, 1)]
    waiting, ended = deque(points), list[Ended]()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        for worker in workers:
            stack.callback(worker.close)
        while any(worker.point for worker in workers) or (waiting and not stop.number):
            for worker in workers:
                if worker.point is None and waiting and not stop.number:
                    point = waiting.popleft()
                    report(f"{point.name}: started, {point.folder}")
                    worker.begin(point, is_last=not waiting)
            wait([worker.connection for worker in workers if worker.point], PAUSE)
            if stop.unheeded:
                stop.unheeded = 0
                report("Stopping: runs are saving (press again to stop immediately)")
                for worker in workers:
                    if worker.point:
                        worker.terminate()
            for worker in workers:
                if (end := worker.ended()) is not None:
                    ended.append(end)
                    report(f"{end.point.name}: {end.failure or f'finished in {worker.seconds:.0f} s'}")
    if not any(folder in end.log.parents for end in ended):  # no result refers to the log of a worker
        shutil.rmtree(folder)
    return ended, 128 + stop.number if stop.number else 0


def environments(jobs: int) -> list[dict[str, str]]:
    """Return the environment variables of each concurrent job, which divide the threads and GPUs among them.

    ``OMP_NUM_THREADS`` is kept if the user has set it. The GPUs are those of ``CUDA_VISIBLE_DEVICES``.
    """
    import torch

    from dop_lightning.foundation.machine import usable_cores

    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // jobs))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
    gpus = visible.split(",")
    return [{"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} for job in range(jobs)]
