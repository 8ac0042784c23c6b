"""Signs of life: a small file per process of a run, replaced about every second while it is at work.

Imports no torch, since ``dop status`` reads them.
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
"""Where each process of a run has its file."""

SILENCE = 120.0
"""Seconds without a sign after which a process of another machine counts as lost, unless it is known to be slow."""

_SAME_START = 2.0
"""Seconds by which the start of a process may be told differently."""

End = Literal["", "finished", "stopped", "failed"]
Life = Literal["at work", "ended", "killed", "lost"]


@dataclass(frozen=True)
class Heartbeat:
    """What a process says of itself.

    Attributes:
        rank: of the process, from 0 on.
        host: name of its machine.
        pid: its number there.
        started: when it was started, in seconds since 1970: numbers of processes are used again.
        time: of this sign, in seconds since 1970.
        pause: seconds until the next sign, at most, if all goes on as before.
        batches: positions of its batches in the manifest.
        at_work: iterations done of each problem or tile that is not finished, by name.
        iteration: iterations that all of these have done.
        maximum: iterations asked for; ``None`` for no such number.
        rate: iterations per second, of all of them together; ``None`` if not known yet.
        deadline: when the time limit of the run is reached; ``None`` without one.
        log: the file that its messages go to; ``None`` if that is no file.
        end: how it has ended; empty while it is at work.
        reason: the signal that stopped it, or the error that it failed with.
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
        """Return whether the process is still there.

        On this machine its number tells. Of another machine, a lock that it holds does, where the file system shares
        them; without one, it is ``lost`` when it has given no sign for some time.

        Args:
            run: the folder of the run.
            now: seconds since 1970; by default the present time.
        """
        if self.end:
            return "ended"
        if self.host == socket.gethostname():
            return "at work" if _is_running(self.pid, self.started) else "killed"
        if self.batches and is_held(run / LOCK, self.batches[0]):
            return "at work"
        return "lost" if self.is_silent(now) else "at work"

    def is_silent(self, now: float | None = None) -> bool:
        """Return whether the next sign should have come long ago.

        Args:
            now: seconds since 1970; by default the present time.
        """
        silence = (time.time() if now is None else now) - self.time
        return not self.end and silence > max(SILENCE, 5 * self.pause)

    @property
    def seconds_left(self) -> float | None:
        """Seconds from this sign to the end of the run, by the present rate or by its time limit."""
        left = []
        if self.maximum is not None and self.rate:
            left.append((self.maximum - self.iteration) / self.rate)
        if self.deadline is not None:
            left.append(max(0.0, self.deadline - self.time))
        return min(left, default=None)


def start_time(pid: int) -> float:
    """Return when a process of this machine was started, in seconds since 1970.

    Raises:
        ProcessLookupError: there is no such process.
    """
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error as error:
        raise ProcessLookupError(f"there is no process {pid}") from error


def _is_running(pid: int, started: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - started) <= _SAME_START
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def write_heartbeat(run: Path, beat: Heartbeat) -> None:
    """Replace the file of a process.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(vars(beat))
    write_atomically(_file(run, beat.rank), lambda file: file.write(text.encode()), durable=False)


def read_heartbeats(run: Path) -> list[Heartbeat]:
    """Return the last sign of each process of a run, by rank. Files that are no signs of life are skipped."""
    beats = []
    known = set(Heartbeat.__dataclass_fields__)
    for path in (run / PROCESSES).glob("*.json"):
        try:
            content: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
            beats.append(Heartbeat(**{key: content[key] for key in known & content.keys()}))  # type: ignore[arg-type]
        except (OSError, ValueError, TypeError, AttributeError):  # removed at this very moment, or damaged
            continue
    return sorted(beats, key=lambda beat: beat.rank)


def remove_heartbeats(run: Path, processes: int) -> None:
    """Remove the files of an earlier start that had more processes than this one.

    Args:
        run: the folder.
        processes: of this start.
    """
    for beat in read_heartbeats(run):
        if beat.rank >= processes:
            _file(run, beat.rank).unlink(missing_ok=True)


class AtWork:
    """The batches that a process advances at this moment, in a small file that outlives it: one of them may kill it.

    A line is written before each block, without waiting for the disk.

    Args:
        run: the folder of the run.
        rank: of the process.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, run: Path, rank: int) -> None:
        self.path = _at_work_file(run, rank)
        make_folder(self.path.parent)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

    def write(self, batches: Sequence[int]) -> None:
        """Replace the line."""
        line = ",".join(map(str, batches)).encode() + b"\n"
        with suppress(OSError):  # such as a full disk
            os.pwrite(self._descriptor, line, 0)

    def close(self) -> None:
        """Remove the file."""
        os.close(self._descriptor)
        self.path.unlink(missing_ok=True)


def read_at_work(run: Path, rank: int) -> list[int]:
    """Return the batches that a dead process was advancing; empty if it had not begun, or had ended in order."""
    try:
        line = _at_work_file(run, rank).read_bytes().split(b"\n")[0].decode()
        return [int(number) for number in line.split(",") if number]
    except (OSError, ValueError):
        return []


def log_of_process() -> str | None:
    """Return the file that the standard error of this process goes to; ``None`` if that is no file, or not known."""
    try:
        path = Path("/proc/self/fd/2").readlink()  # Linux
    except OSError:
        return None
    return str(path) if path.is_file() else None


def _at_work_file(run: Path, rank: int) -> Path:
    return run / PROCESSES / f"{rank:04d}.at-work"


def _file(run: Path, rank: int) -> Path:
    return run / PROCESSES / f"{rank:04d}.json"
