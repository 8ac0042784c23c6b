"""Process of a job. It runs the command that the page shows, so results are those of the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dop_lightning.cli.app.job import PAGE_FOLDER, Job

STOP_TIMEOUT = 60.0
"""Seconds after which a process that does not stop is killed."""

STOPPED = (130, 143)
"""Exit statuses of a command that saved its state after a signal."""


class Child:
    """Process of a job in a separate session, so that Ctrl-C in the terminal only reaches the server.

    Args:
        job: the job.
        command: program and first arguments; by default this Python with ``-m dop_lightning``.
    """

    def __init__(self, job: Job, command: tuple[str, ...] = (sys.executable, "-m", "dop_lightning")) -> None:
        self.job = job
        self.log = job.log
        self.progress_file = job.folder / PAGE_FOLDER / "progress.json"
        self.progress_file.parent.mkdir(exist_ok=True)
        self.progress_file.unlink(missing_ok=True)
        self._stopped_at = 0.0
        environment = {**os.environ, "DOP_PROGRESS": str(self.progress_file), "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *job.arguments],
                cwd=job.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """Exit status; ``None`` while the process runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask the process to save its state and end; kill it if that was :data:`STOP_TIMEOUT` seconds ago."""
        if self.status is not None:
            return
        if not self._stopped_at:
            self._stopped_at = time.monotonic()
            self._process.send_signal(signal.SIGTERM)
        elif time.monotonic() - self._stopped_at > STOP_TIMEOUT:
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the process to end after :meth:`stop`, and kill it if it takes too long."""
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def progress(self) -> dict[str, Any]:
        """Return ``done``, ``maximum`` and ``seconds_left``; empty before the first iteration."""
        return read_progress(self.progress_file)

    def error(self) -> str:
        """Return the error message of the command in one line, without the folder of the job."""
        return error_line(self.log, self.job.folder)


def read_progress(path: Path) -> dict[str, Any]:
    """Return the content of a progress file, or an empty dictionary if it does not exist."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def error_line(log: Path, folder: Path) -> str:
    """Return the last line of a log that reports an error, or its last line if there is no such line."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    lines = [line for line in lines if line]
    errors = [line for line in lines if "error: " in line]
    found = (errors or lines or ["the process was killed"])[-1]
    return found.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")
