"""All jobs of a server, with a queue that runs one job at a time."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dop_lightning.cli.app.child import STOPPED, Child
from dop_lightning.cli.app.correction import read_layer, write_masks
from dop_lightning.cli.app.examiner import Examiner
from dop_lightning.cli.app.job import RECORD, Job, new_id
from dop_lightning.cli.app.results import REPORT, files_of, problem_folder, summary_of
from dop_lightning.cli.app.settings import SETTINGS, Choice, Kind, checked_settings

MAX_JOBS = 200
"""Maximum number of jobs of a page."""

PAUSE = 0.2
"""Seconds between two checks of the running process."""


class Manager:
    """Manages the jobs in a folder, each with a subfolder.

    Unless noted otherwise, methods run in the event loop of the server.

    Args:
        folder: folder of all jobs.
        examiner: client of the process that reads uploaded files.
        start_child: function that starts the process of a job.
        report: function that writes the report of a finished job, and blocks; by default :func:`write_report`.
    """

    def __init__(
        self,
        folder: Path,
        examiner: Examiner | None = None,
        start_child: Callable[[Job], Child] = Child,
        report: Callable[[Job], None] | None = None,
    ) -> None:
        self.folder = folder
        self.examiner = examiner or Examiner(folder / "examiner.log")
        self._start_child = start_child
        self._report = report or write_report
        self.jobs: dict[str, Job] = {}
        self._queue: list[str] = []
        self._child: Child | None = None
        self._measured: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_closing = False
        for record in sorted(folder.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime):
            try:
                job = Job.load(record.parent.parent)
            except (ValueError, OSError, KeyError, TypeError):
                continue  # not a job, or one of another version
            self.jobs[job.id] = job

    # ------------------------------------------------------------------------------------------------------------ jobs

    def of_session(self, session: str) -> list[Job]:
        """Return the jobs of a page, oldest first."""
        return [job for job in self.jobs.values() if job.session == session]

    def earlier(self) -> list[Job]:
        """Return the jobs of an earlier start that no page has adopted."""
        return self.of_session("")

    def adopt(self, session: str) -> None:
        """Assign the jobs of an earlier start to a page."""
        for job in self.earlier():
            job.session = session

    def job(self, session: str, name: str) -> Job:
        """Return a job of a page.

        Raises:
            KeyError: the page has no such job.
        """
        job = self.jobs.get(name)
        if job is None or job.session != session or not session:
            raise KeyError(name)
        return job

    def new_folder(self, session: str) -> Path:
        """Create the folder of a new job.

        Raises:
            ValueError: the page has too many jobs.
        """
        if len(self.of_session(session)) >= MAX_JOBS:
            raise ValueError(f"a page has at most {MAX_JOBS} files; remove some first")
        path = self.folder / new_id()
        path.mkdir(mode=0o700)
        return path

    async def add(self, folder: Path, session: str, kind: Kind, name: str) -> Job:
        """Add a job for an uploaded file in a separate folder.

        Raises:
            ValueError: the file cannot be read; its folder is removed.
        """
        job = Job(folder, session, kind, name)
        try:
            job.found = await asyncio.to_thread(self.examiner.file, kind, job.file)
            job.save()
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
        self.jobs[job.id] = job
        if kind == "recover":
            task = asyncio.create_task(self._measure(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return job

    async def _measure(self, job: Job) -> None:
        """Estimate the damage of a photograph, and the time of each preset."""
        preset = SETTINGS["recover"]["preset"]
        assert isinstance(preset, Choice)
        job.found = {**job.found, **await asyncio.to_thread(self.examiner.estimate, job.file)}
        times = await asyncio.to_thread(self.examiner.times, job.found["shape"], preset.values)
        job.found = {**job.found, "times": times}
        if job.id in self.jobs:
            job.save()

    # ----------------------------------------------------------------------------------------------------------- queue

    def start(self, job: Job, settings: object) -> None:
        """Queue a job. It resumes if its settings are unchanged, and otherwise starts from scratch.

        Args:
            job: a job that is not queued or running.
            settings: see :func:`~dop_lightning.cli.app.settings.checked_settings`.

        Raises:
            ValueError: a setting is not allowed, or the job is queued, running, or done with these settings.
        """
        checked = checked_settings(job.kind, settings)
        self._require_idle(job)
        if checked != job.settings and job.has_run:
            self._next_attempt(job)
        elif job.state == "done":
            raise ValueError(f"{job.name} is already done with these settings")
        job.settings = checked
        self._enqueue(job)

    def correct(self, job: Job, data: bytes, height: int, width: int, settings: object) -> None:
        """Queue a job with a corrected map.

        Args:
            job: a photograph that is not queued or running.
            data: see :func:`~dop_lightning.cli.app.correction.read_layer`.
            height: height of the layer.
            width: width of the layer.
            settings: see :meth:`start`.

        Raises:
            ValueError: the layer has the wrong size or is empty; or see :meth:`start`.
        """
        if job.kind != "recover":
            raise ValueError(f"{job.name} has no map to correct")
        checked = checked_settings(job.kind, settings)
        self._require_idle(job)
        layer = read_layer(data, height, width, (job.found["shape"][1], job.found["shape"][2]))
        if not layer.any():
            raise ValueError("the corrected map is empty: mark pixels as damaged or as clean first")
        attempt = job.attempt
        if job.has_run:
            self._next_attempt(job)
        try:
            job.corrected = write_masks(layer, job.mask("mask"), job.mask("undamaged"))
        except ValueError:
            job.attempt = attempt
            raise
        job.settings = checked
        self._enqueue(job)

    def _require_idle(self, job: Job) -> None:
        if job.state in ("waiting", "running", "stopping"):
            raise ValueError(f"{job.name} is {job.state}: stop it first")

    def _next_attempt(self, job: Job) -> None:
        """Start a new attempt, with the same masks and a new folder of results."""
        before = {what: job.mask(what) for what in ("mask", "undamaged")}
        job.attempt += 1
        job.has_run = False
        for what, is_corrected in zip(before, job.corrected, strict=True):
            if is_corrected:
                shutil.copyfile(before[what], job.mask(what))

    def _enqueue(self, job: Job) -> None:
        job.state, job.line = "waiting", ""
        job.save()
        self._queue.append(job.id)

    def stop(self, job: Job) -> None:
        """Remove a job from the queue, or ask its process to save its state and end."""
        if job.state == "waiting":
            self._queue.remove(job.id)
            job.state = "stopped" if job.has_run else "ready"
            job.save()
        elif job.state == "running" and self._child is not None:
            job.state = "stopping"
            self._child.stop()

    async def remove(self, job: Job) -> None:
        """Stop a job, and remove its file and results."""
        self.stop(job)
        del self.jobs[job.id]
        child = self._child
        if child is not None and child.job is job:
            await asyncio.to_thread(child.wait)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    async def work(self) -> None:
        """Process the queue until the server ends."""
        while not self.is_closing:
            if self._child is not None and self._child.status is not None:
                child, self._child = self._child, None
                await self._finish(child)
            elif self._child is not None and self._child.job.state == "stopping":
                self._child.stop()  # kills it if it takes too long
            elif self._child is None and self._queue:
                job = self.jobs[self._queue.pop(0)]
                self._child = self._start_child(job)
                job.state, job.has_run = "running", True
                job.save()
            await asyncio.sleep(PAUSE)

    async def _finish(self, child: Child) -> None:
        """Update the job of a process that ended."""
        job, status = child.job, child.status
        if job.id not in self.jobs:
            return
        if status == 0:
            job.state = "done"
        elif job.state == "stopping" and (status in STOPPED or (status or 0) < 0):
            job.state = "stopped"
        else:
            job.state, job.line = "failed", child.error()
            if not (job.run / "manifest.json").is_file():
                job.has_run = False  # failed before files were written
        job.save()
        if job.state == "done":
            await asyncio.to_thread(self._report, job)

    def close(self) -> None:
        """Stop the running process after it saved its state. Blocks, and may be called from any thread."""
        self.is_closing = True
        child, self._child = self._child, None
        if child is not None:
            child.stop()
            child.wait()
            child.job.state = "done" if child.status == 0 else "stopped"
        for job in self.jobs.values():
            if job.state == "waiting":
                job.state = "stopped" if job.has_run else "ready"
            if job.folder.is_dir():
                job.save()
        self.examiner.close()

    # ----------------------------------------------------------------------------------------------------------- state

    def shown(self, job: Job) -> dict[str, Any]:
        """Return the description of a job for the page."""
        progress: Mapping[str, Any] = {}
        if self._child is not None and self._child.job is job:
            progress = self._child.progress()
        return {
            "id": job.id,
            "kind": job.kind,
            "name": job.name,
            "state": job.state,
            "line": job.line,
            "before": self._queue.index(job.id) + (self._child is not None) if job.id in self._queue else 0,
            "settings": job.settings,
            "command": job.command,
            "attempt": job.attempt,
            "found": job.found,
            "progress": progress,
            "files": _versions(files_of(job)),
            "summary": summary_of(job) if job.state in ("done", "stopped") else {},
            "can_resume": job.state == "stopped" and problem_folder(job) is not None,
        }


def _versions(files: Mapping[str, Path]) -> dict[str, str]:
    """Return a version of each file that changes with its content, except for files that were removed meanwhile."""
    found = {}
    for name, path in files.items():
        with suppress(OSError):
            found[name] = f"{path.stat().st_mtime_ns:x}"
    return found


def write_report(job: Job) -> None:
    """Write the report of a run with ``dop report``; failures are ignored."""
    command = [sys.executable, "-m", "dop_lightning", "report", job.out, "--out", f"{job.out}/{REPORT}"]
    subprocess.run(
        command,
        cwd=job.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
        start_new_session=True,
    )
