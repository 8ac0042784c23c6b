"""Progress of the runs in some folders, read from their files, also while they are running. Does not import torch."""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dop_lightning.runs.find import named_runs, sweep_points
from dop_lightning.runs.folder import RunFolder
from dop_lightning.runs.heartbeat import Heartbeat, Life, read_heartbeats
from dop_lightning.runs.sweeps.ended import last_line
from dop_lightning.runs.sweeps.record import LOG

STATUSES = ("done", "stable", "diverged", "running", "starting", "waiting", "interrupted", "failed", "lost")
"""Status of a problem or run. A run is ``done`` if all of its problems are ``done``, ``stable`` or ``diverged``."""

ENDS = ("done", "stable", "diverged")
"""Statuses of finished problems."""

FAILED_STATUSES = ("failed", "lost")

_ERROR = re.compile(r"(dop \w+: error|\w*(Error|Exception)): ")
"""Last line of the log of a command that was refused or failed."""


@dataclass(frozen=True)
class ProblemStatus:
    """Progress of a problem.

    Attributes:
        name: name of the problem.
        status: one of :data:`STATUSES`.
        iterations: iterations done; ``None`` if it has not started.
    """

    name: str
    status: str
    iterations: int | None = None


@dataclass(frozen=True)
class ProcessStatus:
    """State of a process of a run.

    Attributes:
        beat: its last heartbeat.
        life: whether it is alive.
        is_silent: whether its next heartbeat is long overdue.
    """

    beat: Heartbeat
    life: Life
    is_silent: bool = False

    @property
    def trouble(self) -> str:
        """Description of its failure; empty if it is running or ended normally."""
        if self.life == "lost":
            return f"no heartbeat from {self._location} since {format_time(self.beat.time)}"
        if self.life == "killed":
            return f"{self._location} was killed, its last heartbeat was at {format_time(self.beat.time)}"
        return f"{self._location} failed: {self.beat.reason}" if self.beat.end == "failed" else ""

    @property
    def note(self) -> str:
        """Warning about a running process without recent heartbeats; empty otherwise."""
        if self.life != "running" or not self.is_silent:
            return ""
        return f"{self._location} exists, but has sent no heartbeat since {format_time(self.beat.time)}"

    @property
    def _location(self) -> str:
        return f"process {self.beat.pid} on {self.beat.host}"

    def to_json(self) -> dict[str, Any]:
        """Return a representation for JSON, without its problems."""
        fields = asdict(self.beat)
        return {
            "life": self.life,
            **{key: fields[key] for key in fields if key not in ("at_work", "batches", "started")},
        }


@dataclass(frozen=True)
class RunStatus:
    """Progress of a run.

    Attributes:
        path: folder of the run.
        name: name of the folder, as given or relative to the given folder.
        status: one of :data:`STATUSES`.
        problems: problems, in the order of the manifest.
        processes: processes of the last start, by rank.
        iterations: minimum of the iterations done by unfinished problems; ``None`` if the run is not running.
        maximum: maximum number of iterations; ``None`` if the run is not running or has no limit.
        rate: iterations per second; ``None`` if the run is not running.
        seconds_left: seconds until the run ends; ``None`` if it is not running.
        reason: why it failed or stopped; otherwise empty.
        log: file with its messages, if any.
    """

    path: Path
    name: str
    status: str
    problems: list[ProblemStatus] = field(default_factory=list)
    processes: list[ProcessStatus] = field(default_factory=list)
    iterations: int | None = None
    maximum: int | None = None
    rate: float | None = None
    seconds_left: float | None = None
    reason: str = ""
    log: Path | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems by status."""
        count = Counter(problem.status for problem in self.problems)
        return {status: count[status] for status in STATUSES if count[status]}

    @property
    def has_failed(self) -> bool:
        """Whether the run or one of its processes failed, was killed or is lost."""
        return self.status in FAILED_STATUSES or any(
            process.trouble for process in self.processes if self.status != "done"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a representation for JSON."""
        plain = {key: getattr(self, key) for key in ("iterations", "maximum", "rate", "seconds_left", "counts")}
        return {
            "run": str(self.path),
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "log": None if self.log is None else str(self.log),
            **plain,
            "problems": [asdict(problem) for problem in self.problems],
            "processes": [process.to_json() for process in self.processes],
        }


def read_status(folders: Sequence[Path], now: float | None = None) -> list[RunStatus]:
    """Return the status of all runs in some folders.

    Args:
        folders: folders of runs, or folders that contain runs at any depth, such as the folder of a sweep.
        now: current time in seconds since 1970; by default the system time.

    Raises:
        ValueError: a folder contains no run, or a file in it is damaged.
        OSError: a file cannot be read.
    """
    now = time.time() if now is None else now
    return [_run_status(run, name, now) for run, name in named_runs(folders)]


def is_running(run: Path) -> bool:
    """Return whether any process of a run is running."""
    return any(beat.life(run) == "running" for beat in read_heartbeats(run))


def format_time(seconds: float) -> str:
    """Format a time of day, with the date if it is not today.

    Args:
        seconds: time in seconds since 1970.
    """
    then = time.localtime(seconds)
    return time.strftime("%H:%M:%S" if then[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M:%S", then)


def _run_status(run: Path, name: str, now: float) -> RunStatus:
    folder = RunFolder(run)
    if not folder.has_run:
        return _status_before_start(run, name)
    processes = [ProcessStatus(beat, beat.life(run, now), beat.is_silent(now)) for beat in read_heartbeats(run)]
    running = _problems_of(processes, "running")
    left = {**_problems_of(processes, "killed"), **_problems_of(processes, "lost"), **_failed_problems(processes)}
    problems = [_problem_status(folder, entry, running, left) for entry in folder.manifest().problems]
    log = next((Path(p.beat.log) for p in processes if p.beat.log is not None), None) or _point_log(run)
    status, reason = _overall_status(problems, processes)
    if refusal := _refusal(run, folder, processes):
        status, reason, log = "failed", refusal, _point_log(run)
    live = [process.beat for process in processes if process.life == "running"]
    with_rate = [beat for beat in live if beat.seconds_left is not None]
    return RunStatus(
        run,
        name,
        status,
        problems,
        processes,
        iterations=min((beat.iteration for beat in live if beat.at_work), default=None),
        maximum=max((beat.maximum for beat in live if beat.maximum is not None), default=None),
        rate=min((beat.rate for beat in live if beat.rate), default=None),
        seconds_left=max((max(0.0, beat.time + (beat.seconds_left or 0.0) - now) for beat in with_rate), default=None),
        reason=reason,
        log=log,
    )


def _status_before_start(run: Path, name: str) -> RunStatus:
    """Return the status of a point of a sweep without a manifest: waiting, reading its data, or refused."""
    log = _point_log(run)
    line = "" if log is None else last_line(log)
    if _ERROR.match(line):
        return RunStatus(run, name, "failed", reason=line, log=log)
    job = sweep_points(run.parent).get(run.name, {}).get("job")
    return RunStatus(run, name, "waiting" if log is None else "starting", reason=f"job {job}" if job else "", log=log)


def _problems_of(processes: Sequence[ProcessStatus], life: Life) -> dict[str, tuple[str, int]]:
    """Return status and iterations of the problems of all processes in state ``life``, by name."""
    status = {"running": "running", "lost": "lost"}.get(life, "failed")
    beats = [process.beat for process in processes if process.life == life]
    return {name: (status, iterations) for beat in beats for name, iterations in beat.at_work.items()}


def _failed_problems(processes: Sequence[ProcessStatus]) -> dict[str, tuple[str, int]]:
    beats = [process.beat for process in processes if process.beat.end == "failed"]
    return {name: ("failed", iterations) for beat in beats for name, iterations in beat.at_work.items()}


def _problem_status(
    folder: RunFolder,
    entry: Mapping[str, Any],
    at_work: Mapping[str, tuple[str, int]],
    left: Mapping[str, tuple[str, int]],
) -> ProblemStatus:
    """Return the status of a problem. Heartbeats take precedence over results, which may be of an earlier start."""
    name, parts = entry["name"], entry.get("tiles") or [entry["name"]]
    for of_process in (at_work, left):
        found = [of_process[part] for part in parts if part in of_process]
        if found:
            return ProblemStatus(name, found[0][0], min(iterations for _, iterations in found))
    result = _result(folder, name)
    return ProblemStatus(name, "waiting") if result is None else ProblemStatus(name, *result)


def _result(folder: RunFolder, name: str) -> tuple[str, int | None] | None:
    try:
        result = folder.result(name)
    except FileNotFoundError:
        return None
    return str(result.get("status")), result.get("iterations")


def _overall_status(problems: Sequence[ProblemStatus], processes: Sequence[ProcessStatus]) -> tuple[str, str]:
    """Return the status of a run, and the reason for it."""
    statuses = {problem.status for problem in problems}
    troubles = "; ".join(process.trouble for process in processes if process.trouble)
    if any(process.life == "running" for process in processes):
        is_starting = "running" not in statuses and not statuses <= set(ENDS)
        notes = [process.note for process in processes if process.note]
        return "starting" if is_starting else "running", "; ".join(filter(None, [troubles, *notes]))
    if statuses <= set(ENDS):
        return "done", ""
    for bad in FAILED_STATUSES:
        if bad in statuses:
            return bad, troubles
    stopped = [process.beat.reason for process in processes if process.beat.end == "stopped" and process.beat.reason]
    if "interrupted" in statuses:
        return "interrupted", f"stopped by {stopped[0]}" if stopped else ""
    return ("failed", troubles) if troubles else ("waiting", "")


def _refusal(run: Path, folder: RunFolder, processes: Sequence[ProcessStatus]) -> str:
    """Return the error that refused the last start of a point; empty if files were written since."""
    log = _point_log(run)
    if log is None or any(process.life == "running" for process in processes):
        return ""
    written = log.stat().st_mtime
    if folder.manifest_path.stat().st_mtime >= written or any(beat.beat.time >= written for beat in processes):
        return ""
    line = last_line(log)
    return line if _ERROR.match(line) else ""


def _point_log(run: Path) -> Path | None:
    return run / LOG if (run / LOG).is_file() else None
