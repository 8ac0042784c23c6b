"""Results of points: how they ended, and why they failed."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import LOG, is_complete

if TYPE_CHECKING:
    import submitit

STOPPED = {130: "SIGINT", 143: "SIGTERM", -signal.SIGINT: "SIGINT", -signal.SIGTERM: "SIGTERM"}
"""Exit statuses of a stopped ``dop fit``; negative if it was stopped before the first iteration."""


@dataclass(frozen=True)
class Ended:
    """A point that has ended.

    Attributes:
        point: the point.
        failure: reason of its failure, in one line; empty if it succeeded.
        log: file with its output.
        stopped: whether it was asked to stop, so that it can be resumed.
    """

    point: Point
    failure: str
    log: Path
    stopped: bool = False


def judge(point: Point, status: int, log: Path | None = None) -> Ended:
    """Return the result of a point from its exit status, files and log.

    Args:
        point: the point, which has ended.
        status: exit status of its ``dop fit``; the negative number of the signal if one killed it.
        log: file with its last output; by default the log in its folder.
    """
    log = log or point.folder / LOG
    if status in STOPPED:
        return Ended(point, f"stopped by {STOPPED[status]}; run the sweep again to resume it", log, stopped=True)
    if status < 0:
        failure = f"killed by {signal.Signals(-status).name}"
    elif status > 0:
        failure = last_line(log) or f"exit status {status}"
    else:
        failure = "" if is_complete(point.folder) else "ended without results for all problems"
    return Ended(point, failure, log)


def judge_job(job: submitit.Job[int], point: Point) -> Ended:
    """Return the result of a finished job. One that failed outside ``dop fit`` reports this in a separate log."""
    if job.exception() is None:
        return judge(point, job.result())
    return Ended(point, last_line(job.paths.stderr) or f"job {job.job_id} left no result", job.paths.stderr)


def last_line(log: Path) -> str:
    """Return the last non-empty line of a log. Lines that a progress bar has overwritten count as lines."""
    if not log.is_file():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
