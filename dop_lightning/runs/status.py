"""How far the runs in some folders are, read from their files while they are at work. Imports no torch."""

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

STATUSES = ("done", "stable", "diverged", "at work", "starting", "waiting", "interrupted", "failed", "lost")
"""Of problems and of runs: a run is ``done`` if all of its problems are ``done``, ``stable`` or ``diverged``."""

ENDS = ("done", "stable", "diverged")
"""With nothing left to do."""

BAD = ("failed", "lost")

_ERROR = re.compile(r"(dop \w+: error|\w*(Error|Exception)): ")
"""How the last line of the log of a command begins that was refused or has failed."""


@dataclass(frozen=True)
class ProblemStatus:
    """How far a problem is.

    Attributes:
        name: of the problem.
        status: one of :data:`STATUSES`.
        iterations: done; ``None`` if it has not begun.
    """

    name: str
    status: str
    iterations: int | None = None


@dataclass(frozen=True)
class ProcessStatus:
    """How a process of a run is.

    Attributes:
        beat: its last sign of life.
        life: whether it is still there.
        is_silent: whether it has given no sign for long.
    """

    beat: Heartbeat
    life: Life
    is_silent: bool = False

    @property
    def trouble(self) -> str:
        """What has become of it, in words; empty if it is at work or has ended well."""
        if self.life == "lost":
            return f"no sign of life from {self._where} since {format_time(self.beat.time)}"
        if self.life == "killed":
            return f"{self._where} was killed, its last sign of life is of {format_time(self.beat.time)}"
        return f"{self._where} failed: {self.beat.reason}" if self.beat.end == "failed" else ""

    @property
    def note(self) -> str:
        """What is odd about a process that is at work, in words; else empty."""
        if self.life != "at work" or not self.is_silent:
            return ""
        return f"{self._where} exists, but has given no sign of life since {format_time(self.beat.time)}"

    @property
    def _where(self) -> str:
        return f"process {self.beat.pid} on {self.beat.host}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it, without its problems."""
        said = asdict(self.beat)
        return {"life": self.life, **{key: said[key] for key in said if key not in ("at_work", "batches", "started")}}


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        path: its folder.
        name: the folder as it was asked for, or inside of that.
        status: one of :data:`STATUSES`.
        problems: in the order of the manifest.
        processes: of its last start, by rank.
        iterations: that all problems at work have done.
        maximum: iterations asked for, if it is at work.
        rate: iterations per second, if it is at work.
        seconds_left: until it ends, if it is at work.
        reason: why it has failed or stopped, in words; else empty.
        log: the file with its messages, if there is one.
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
        """How many problems have which status."""
        count = Counter(problem.status for problem in self.problems)
        return {status: count[status] for status in STATUSES if count[status]}

    @property
    def has_failed(self) -> bool:
        """Whether it, or a process of it, has failed, was killed or gives no sign of life."""
        return self.status in BAD or any(process.trouble for process in self.processes if self.status != "done")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
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
    """Return how far all runs in some folders are.

    Args:
        folders: of runs, or with runs in them at any depth, such as that of a sweep.
        now: seconds since 1970; by default the present time.

    Raises:
        ValueError: a folder holds no run, or a file in it is damaged.
        OSError: a file cannot be read.
    """
    now = time.time() if now is None else now
    return [_status(run, name, now) for run, name in named_runs(folders)]


def is_at_work(run: Path) -> bool:
    """Return whether a process is at work on a run."""
    return any(beat.life(run) == "at work" for beat in read_heartbeats(run))


def format_time(seconds: float) -> str:
    """Return a time of day, with the date if it is another day than today.

    Args:
        seconds: since 1970.
    """
    then = time.localtime(seconds)
    return time.strftime("%H:%M:%S" if then[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M:%S", then)


def _status(run: Path, name: str, now: float) -> RunStatus:
    folder = RunFolder(run)
    if not folder.has_run:
        return _before_the_start(run, name)
    processes = [ProcessStatus(beat, beat.life(run, now), beat.is_silent(now)) for beat in read_heartbeats(run)]
    at_work = _problems_of(processes, "at work")
    left = {**_problems_of(processes, "killed"), **_problems_of(processes, "lost"), **_failed(processes)}
    problems = [_problem(folder, entry, at_work, left) for entry in folder.manifest().problems]
    log = next((Path(p.beat.log) for p in processes if p.beat.log is not None), None) or _point_log(run)
    status, reason = _overall(problems, processes)
    if refusal := _refusal(run, folder, processes):
        status, reason, log = "failed", refusal, _point_log(run)
    live = [process.beat for process in processes if process.life == "at work"]
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


def _before_the_start(run: Path, name: str) -> RunStatus:
    """A point of a sweep without a manifest: not begun, reading its data, or refused."""
    log = _point_log(run)
    said = "" if log is None else last_line(log)
    if _ERROR.match(said):
        return RunStatus(run, name, "failed", reason=said, log=log)
    job = sweep_points(run.parent).get(run.name, {}).get("job")
    return RunStatus(run, name, "waiting" if log is None else "starting", reason=f"job {job}" if job else "", log=log)


def _problems_of(processes: Sequence[ProcessStatus], life: Life) -> dict[str, tuple[str, int]]:
    """The status and iterations of each problem that processes were at work on, by name."""
    status = {"at work": "at work", "lost": "lost"}.get(life, "failed")
    beats = [process.beat for process in processes if process.life == life]
    return {name: (status, iterations) for beat in beats for name, iterations in beat.at_work.items()}


def _failed(processes: Sequence[ProcessStatus]) -> dict[str, tuple[str, int]]:
    beats = [process.beat for process in processes if process.beat.end == "failed"]
    return {name: ("failed", iterations) for beat in beats for name, iterations in beat.at_work.items()}


def _problem(
    folder: RunFolder,
    entry: Mapping[str, Any],
    at_work: Mapping[str, tuple[str, int]],
    left: Mapping[str, tuple[str, int]],
) -> ProblemStatus:
    """What a process works on comes before a result, which may be that of an earlier start."""
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


def _overall(problems: Sequence[ProblemStatus], processes: Sequence[ProcessStatus]) -> tuple[str, str]:
    """The status of a run, and why it is so."""
    statuses = {problem.status for problem in problems}
    troubles = "; ".join(process.trouble for process in processes if process.trouble)
    if any(process.life == "at work" for process in processes):
        is_starting = "at work" not in statuses and not statuses <= set(ENDS)
        notes = [process.note for process in processes if process.note]
        return "starting" if is_starting else "at work", "; ".join(filter(None, [troubles, *notes]))
    if statuses <= set(ENDS):
        return "done", ""
    for bad in BAD:
        if bad in statuses:
            return bad, troubles
    stopped = [process.beat.reason for process in processes if process.beat.end == "stopped" and process.beat.reason]
    if "interrupted" in statuses:
        return "interrupted", f"stopped by {stopped[0]}" if stopped else ""
    return ("failed", troubles) if troubles else ("waiting", "")


def _refusal(run: Path, folder: RunFolder, processes: Sequence[ProcessStatus]) -> str:
    """What the last start of a point was refused with, if nothing has been written since."""
    log = _point_log(run)
    if log is None or any(process.life == "at work" for process in processes):
        return ""
    written = log.stat().st_mtime
    if folder.manifest_path.stat().st_mtime >= written or any(beat.beat.time >= written for beat in processes):
        return ""
    said = last_line(log)
    return said if _ERROR.match(said) else ""


def _point_log(run: Path) -> Path | None:
    return run / LOG if (run / LOG).is_file() else None
