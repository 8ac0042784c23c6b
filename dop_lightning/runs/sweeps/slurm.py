"""Submit the points of a sweep as an array of SLURM jobs, with submitit."""

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
"""Settings of sbatch that have a separate option."""

PAUSE = 2.0
"""Seconds between two checks of the jobs."""


def parse_setting(text: str) -> tuple[str, Any]:
    """Parse a setting of sbatch, ``KEY=VALUE``. Numbers, ``true``, ``false`` and lists are converted.

    Raises:
        ValueError: the key or value is missing, or the setting has a separate option.

    >>> parse_setting("mail-type=END"), parse_setting("exclusive=true"), parse_setting("setup=[module load gcc]")
    (('mail_type', 'END'), ('exclusive', True), ('setup', ['module load gcc']))
    """
    key, _, value = text.partition("=")
    key = key.strip().lstrip("-").replace("-", "_")
    if not key or not value:
        raise ValueError(f"slurm must be KEY=VALUE, such as account=name, got {text!r}")
    if key in OPTIONS:
        raise ValueError(f"slurm {key} must be set with {OPTIONS[key]}, got {text!r}")
    # no other YAML types, since YAML reads 1:30 as 90
    is_plain = not (value in ("true", "false") or value.isdecimal() or value.startswith("["))
    try:
        return key, value if is_plain else yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"slurm {key} must be text, a number or a list, got {value!r}") from error


def submit(
    points: Sequence[Point], out: Path, settings: Mapping[str, Any], more: Mapping[str, Any]
) -> list[submitit.Job[int]]:
    """Submit points as one job array.

    Args:
        points: points to run.
        out: folder of the sweep, which must be accessible from the nodes.
        settings: settings of submitit, such as ``timeout_min`` and ``slurm_partition``; ``None`` is not set.
        more: settings of sbatch, by name.

    Raises:
        ValueError: SLURM is not available, or refuses the jobs.
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
    output = io.StringIO()  # submitit prints the output of sbatch, and adds it to the error as well
    try:
        with contextlib.redirect_stderr(output), executor.batch():
            jobs = [executor.submit(PointJob(point)) for point in points]
    except (FailedJobError, FailedSubmissionError) as error:
        raise ValueError(f"sbatch refused the jobs: {error}") from error
    print(output.getvalue(), end="", file=sys.stderr)
    return jobs


def wait(jobs: Sequence[submitit.Job[int]], points: Sequence[Point], report: Callable[[str], None]) -> list[Ended]:
    """Wait until all jobs have ended. Ctrl-C leaves them running."""
    ended: dict[int, Ended] = {}
    while len(ended) < len(jobs):
        for place, (job, point) in enumerate(zip(jobs, points, strict=True)):
            if place not in ended and job.done():
                ended[place] = judge_job(job, point)
                report(f"{point.name}: {ended[place].failure or 'finished'}")
        time.sleep(PAUSE)
    return list(ended.values())


def jobs_in_queue(out: Path) -> dict[str, str]:
    """Return the jobs of an earlier start that are waiting or running, which a second start would disturb.

    Returns:
        The job id by name of the point.

    Raises:
        ValueError: squeue fails.
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
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"squeue must list the queued jobs of {out}, but failed: {error}") from error
    queued = set(answer.stdout.split())
    return {name: job for name, job in submitted.items() if job in queued}
