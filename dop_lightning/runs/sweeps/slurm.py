"""The points of a sweep as an array of SLURM jobs, by submitit."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dop_lightning.runs.sweeps.ended import Ended, judge_job
from dop_lightning.runs.sweeps.job import PointJob
from dop_lightning.runs.sweeps.points import Point
from dop_lightning.runs.sweeps.record import SWEEP, begin

if TYPE_CHECKING:
    import submitit

OPTIONS = {
    "partition": "--partition",
    "time": "--hours",
    "timeout_min": "--hours",
    "mem": "--memory",
    "mem_gb": "--memory",
    "cpus_per_task": "--cpus",
    "gpus_per_node": "--gpus",
    "array_parallelism": "--jobs",
}
"""What has an option of its own."""

PAUSE = 2.0
"""Seconds between two looks at the jobs."""


def parse_setting(text: str) -> tuple[str, Any]:
    """A setting of sbatch, out of ``KEY=VALUE``: numbers, true, false and lists are taken as such.

    Raises:
        ValueError: it has no key or no value, or an option of its own.

    >>> parse_setting("mail-type=END"), parse_setting("exclusive=true"), parse_setting("setup=[module load gcc]")
    (('mail_type', 'END'), ('exclusive', True), ('setup', ['module load gcc']))
    """
    key, _, value = text.partition("=")
    key = key.strip().lstrip("-").replace("-", "_")
    if not key or not value:
        raise ValueError(f"slurm must be KEY=VALUE, such as account=name, got {text!r}")
    if key in OPTIONS:
        raise ValueError(f"slurm {key} has an option of its own, {OPTIONS[key]}, got {text!r}")
    # no more of YAML than this: it takes 1:30 for 90
    is_plain = not (value in ("true", "false") or value.isdecimal() or value.startswith("["))
    try:
        return key, value if is_plain else yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"slurm {key} must be text, a number or a list, got {value!r}") from error


def submit(
    points: Sequence[Point], out: Path, settings: Mapping[str, Any], more: Mapping[str, Any]
) -> list[submitit.Job[int]]:
    """Submit points as one array of jobs.

    Args:
        points: what to run.
        out: the folder of the sweep, which the nodes must see too.
        settings: submitit's, such as ``timeout_min`` and ``slurm_partition``; ``None`` is not set.
        more: settings of sbatch by their name.

    Raises:
        ValueError: there is no SLURM here, or it refuses the jobs.
    """
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        executor = submitit.AutoExecutor(out / "submitit", cluster="slurm")
    except RuntimeError as error:
        raise ValueError("cluster slurm needs sbatch and srun on the PATH, got none; log in to the cluster") from error
    known = submitit.SlurmExecutor._valid_parameters()
    additional = {key.replace("_", "-"): value for key, value in more.items() if key not in known}
    executor.update_parameters(
        **settings,
        **{f"slurm_{key}": value for key, value in more.items() if key in known},
        slurm_additional_parameters=additional or None,
    )
    for point in points:
        begin(point)
    said = io.StringIO()  # submitit passes on what sbatch says, and puts it into the error as well
    try:
        with contextlib.redirect_stderr(said), executor.batch():
            jobs = [executor.submit(PointJob(point)) for point in points]
    except (FailedJobError, FailedSubmissionError) as error:
        raise ValueError(f"sbatch has refused the jobs: {error}") from error
    print(said.getvalue(), end="", file=sys.stderr)
    return jobs


def wait(jobs: Sequence[submitit.Job[int]], points: Sequence[Point], tell: Callable[[str], None]) -> list[Ended]:
    """Wait until all jobs are over; Ctrl-C leaves them at work."""
    ended: dict[int, Ended] = {}
    while len(ended) < len(jobs):
        for place, (job, point) in enumerate(zip(jobs, points, strict=True)):
            if place not in ended and job.done():
                ended[place] = judge_job(job, point)
                tell(f"{point.name}: {ended[place].failure or 'finished'}")
        time.sleep(PAUSE)
    return list(ended.values())


def jobs_in_queue(out: Path) -> dict[str, str]:
    """The jobs of an earlier start that wait or are at work: a second one in the same folder would disturb them.

    Returns:
        The id of the job by the name of its point.

    Raises:
        ValueError: squeue does not answer.
    """
    try:
        before = json.loads((out / SWEEP).read_text(encoding="utf-8"))["points"]
        submitted = {point["name"]: point["job"] for point in before if point.get("job")}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    if not submitted:
        return {}
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"squeue must tell which jobs of {out} are in the queue, got {error}") from error
    queued = set(asked.stdout.split())
    return {name: job for name, job in submitted.items() if job in queued}
