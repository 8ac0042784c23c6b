"""How a point has ended, and why it has failed where it has."""

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
"""Exit statuses of a ``dop fit`` that was asked to stop; negative where it had not begun to iterate."""


@dataclass(frozen=True)
class Ended:
    """A point that has ended.

    Attributes:
        point: which.
        failure: why it has failed, in a line; empty where it has not.
        log: the file with all that it said.
        stopped: whether it was asked to stop, so that it can go on.
    """

    point: Point
    failure: str
    log: Path
    stopped: bool = False


def judge(point: Point, status: int, log: Path | None = None) -> Ended:
    """What the exit status of the process of a point, its files and its log say together.

    Args:
        point: which has ended.
        status: of its ``dop fit``; that of the signal, negative, where one killed it.
        log: where its last words are; by default the log in its folder.
    """
    log = log or point.folder / LOG
    if status in STOPPED:
        return Ended(point, f"stopped by {STOPPED[status]}; it goes on where it is asked for again", log, stopped=True)
    if status < 0:
        failure = f"killed by {signal.Signals(-status).name}"
    elif status > 0:
        failure = last_line(log) or f"exit status {status}"
    else:
        failure = "" if is_complete(point.folder) else "ended without the results of all its problems"
    return Ended(point, failure, log)


def judge_job(job: submitit.Job[int], point: Point) -> Ended:
    """The same of a job that is over; one that broke outside of ``dop fit`` has told of it in a log of its own."""
    if job.exception() is None:
        return judge(point, job.result())
    return Ended(point, last_line(job.paths.stderr) or f"job {job.job_id} left no result", job.paths.stderr)


def last_line(log: Path) -> str:
    """The last line of a log that says something; lines that a progress bar has overwritten count as lines."""
    if not log.is_file():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
