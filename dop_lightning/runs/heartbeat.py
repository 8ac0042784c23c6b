"""Heartbeats: one small file per process of a run, rewritten about once per second while the process is running.

Does not import torch, since ``dop status`` reads the files.
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dop_lightning.foundation.atomic import make_folder, write_atomically
from dop_lightning.runs.folder import LOCK
from dop_lightning.runs.locks import is_held

PROCESSES = Path("checkpoints") / "processes"
"""Folder with one file per process of a run."""

MAX_SILENCE = 120.0
"""Seconds without a heartbeat after which a process on another machine counts as lost. Slow processes have longer."""

_START_TOLERANCE = 2.0
"""Tolerance of the start time of a process, in seconds."""

End = Literal["", "finished", "stopped", "failed"]
Life = Literal["running", "ended", "killed", "lost"]


@dataclass(frozen=True)
class Heartbeat:
    """State that a process reports.

    Attributes:
        rank: rank of the process, from 0.
        host: host name of its machine.
        pid: its process ID.
        started: start time of the process, in seconds since 1970; identifies it if the process ID is reused.
        time: time of this heartbeat, in seconds since 1970.
        pause: expected maximum time to the next heartbeat, in seconds.
        batches: positions of its batches in the manifest.
        at_work: iterations done by each unfinished problem or tile, by name.
        iteration: minimum of these iterations.
        maximum: maximum number of iterations; ``None`` if unlimited.
        rate: iterations per second, of all problems together; ``None`` if not known yet.
        deadline: time at which the time limit of the run is reached; ``None`` if there is no limit.
        log: file that receives its messages; ``None`` if they do not go to a file.
        end: how the process ended; empty while it is running.
        reason: the signal that stopped it, or the error that made it fail.
    """

    rank: int
    host: str
    pid: int
    started: float
    time: float
    pause: float = 0.0
    batches: list[int] = field(default_factory=list)
    at_work: dict[str, int] = field(default_factory=dict)
    iteration: int = 0
    maximum: int | None = None
    rate: float | None = None
    deadline: float | None = None
    log: str | None = None
    end: End = ""
    reason: str = ""

    def life(self, run: Path, now: float | None = None) -> Life:
        """Return whether the process is alive.

        On this machine, the process ID is checked. On another machine, the process is alive if it holds a lock and the
        file system shares locks; otherwise it is ``lost`` after some time without a heartbeat.

        Args:
            run: folder of the run.
            now: current time in seconds since 1970; by default the system time.
        """
        if self.end:
            return "ended"
        if self.host == socket.gethostname():
            return "running" if _is_running(self.pid, self.started) else "killed"
        if self.batches and is_held(run / LOCK, self.batches[0]):
            return "running"
        return "lost" if self.is_silent(now) else "running"

    def is_silent(self, now: float | None = None) -> bool:
        """Return whether the next heartbeat is long overdue.

        Args:
            now: current time in seconds since 1970; by default the system time.
        """
        silence = (time.time() if now is None else now) - self.time
        return not self.end and silence > max(MAX_SILENCE, 5 * self.pause)

    @property
    def seconds_left(self) -> float | None:
        """Seconds from this heartbeat to the end of the run, estimated from the current rate and the time limit."""
        left = []
        if self.maximum is not None and self.rate:
            left.append((self.maximum - self.iteration) / self.rate)
        if self.deadline is not None:
            left.append(max(0.0, self.deadline - self.time))
        return min(left, default=None)


def start_time(pid: int) -> float:
    """Return the start time of a process on this machine, in seconds since 1970.

    Raises:
        ProcessLookupError: the process does not exist.
    """
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error as error:
        raise ProcessLookupError(f"process {pid} does not exist") from error


def _is_running(pid: int, started: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - started) <= _START_TOLERANCE
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def write_heartbeat(run: Path, beat: Heartbeat) -> None:
    """Replace the heartbeat file of a process.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(vars(beat))
    write_atomically(_heartbeat_file(run, beat.rank), lambda file: file.write(text.encode()), durable=False)


def read_heartbeats(run: Path) -> list[Heartbeat]:
    """Return the last heartbeat of each process of a run, by rank. Other and damaged files are skipped."""
    beats = []
    known = set(Heartbeat.__dataclass_fields__)
    for path in (run / PROCESSES).glob("*.json"):
        try:
            content: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
            beats.append(Heartbeat(**{key: content[key] for key in known & content.keys()}))  # type: ignore[arg-type]
        except (OSError, ValueError, TypeError, AttributeError):  # just removed, or damaged
            continue
    return sorted(beats, key=lambda beat: beat.rank)


def remove_heartbeats(run: Path, processes: int) -> None:
    """Remove the files of an earlier start that had more processes than this one.

    Args:
        run: folder of the run.
        processes: number of processes of this start.
    """
    for beat in read_heartbeats(run):
        if beat.rank >= processes:
            _heartbeat_file(run, beat.rank).unlink(missing_ok=True)


class ActiveBatches:
    """Record the batches that a process is advancing, in a small file that shows them if a batch kills the process.

    A line is written before each block, without waiting for the disk.

    Args:
        run: folder of the run.
        rank: rank of the process.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, run: Path, rank: int) -> None:
        self.path = _active_file(run, rank)
        make_folder(self.path.parent)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

    def write(self, batches: Sequence[int]) -> None:
        """Replace the line."""
        line = ",".join(map(str, batches)).encode() + b"\n"
        with suppress(OSError):  # for example, the disk is full
            os.pwrite(self._descriptor, line, 0)

    def close(self) -> None:
        """Remove the file."""
        os.close(self._descriptor)
        self.path.unlink(missing_ok=True)


def read_active_batches(run: Path, rank: int) -> list[int]:
    """Return the batches that a dead process was advancing; empty if it had not begun or ended normally."""
    try:
        line = _active_file(run, rank).read_bytes().split(b"\n")[0].decode()
        return [int(number) for number in line.split(",") if number]
    except (OSError, ValueError):
        return []


def log_of_process() -> str | None:
    """Return the file that receives stderr of this process; ``None`` if it is not a file or not known."""
    try:
        path = Path("/proc/self/fd/2").readlink()  # Linux
    except OSError:
        return None
    return str(path) if path.is_file() else None


def _active_file(run: Path, rank: int) -> Path:
    return run / PROCESSES / f"{rank:04d}.at-work"


def _heartbeat_file(run: Path, rank: int) -> Path:
    return run / PROCESSES / f"{rank:04d}.json"
