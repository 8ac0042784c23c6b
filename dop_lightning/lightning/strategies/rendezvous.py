"""Send decisions of the first process of a run to the others, by files in the folder of the run.

No network ports are used: only those who can write to the folder of a run can take part in it.
"""

import hashlib
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

from dop_lightning.foundation.atomic import write_atomically
from dop_lightning.foundation.launched import is_orphan, start_name

FOLDER = Path("checkpoints") / "rendezvous"
"""Folder of questions and answers, relative to the folder of the run."""

FIRST_PROCESS_TIMEOUT = 600.0
"""Maximum waiting time for the first process in seconds; it may read many files before it decides."""

EXIT_TIMEOUT = 60.0
"""Maximum time in seconds that the first process waits at its end for those that have not asked yet."""

PAUSE = 0.05
"""Initial time between two listings of the folder in seconds; it increases up to twenty times."""


class Rendezvous:
    """Questions of the processes of a run, and the answers of the first process.

    A question is an empty file with a random name. Its answer has the same name with another suffix, so that answers
    left by an earlier start are ignored. The first process answers in a thread until :meth:`close`, since processes may
    start late or restart. After all processes have received the answers, none waits for another, and any may die.

    Args:
        environment: cluster environment, which provides the ranks.
        run: folder of the run, shared by all processes.
    """

    def __init__(self, environment: ClusterEnvironment, run: Path) -> None:
        self.rank, self.ranks = environment.global_rank(), environment.world_size()
        self.folder = run / FOLDER
        name = f"{start_name()}/{self.ranks}"
        self._start = hashlib.sha256(name.encode()).hexdigest()[:16]
        self._asked: dict[str, int] = {}
        self._decided: dict[str, str] = {}
        self._told: set[tuple[str, int]] = set()
        self._answered: dict[str, tuple[str, int]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def share(self, name: str, decide: Callable[[], Any]) -> Any:
        """Return a decision of the first process. All processes must call this the same number of times.

        Args:
            name: name of the decision, of letters only.
            decide: called in the first process only; returns a JSON-serializable value.

        Raises:
            ValueError: the first process has ended, or has not decided in time.
            OSError: the folder is not writable.
        """
        count = self._asked[name] = self._asked.get(name, 0) + 1
        key = f"{name}{count}"
        if self.rank == 0:
            text = json.dumps(decide())
            self.folder.mkdir(parents=True, exist_ok=True)
            self._decided[key] = text
            self._answer()
            return json.loads(text)
        return json.loads(self._request(name, key))

    def _request(self, name: str, key: str) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        question = self.folder / f"{self._start}.{key}.{self.rank}.{secrets.token_hex(16)}.ask"
        answer = question.with_suffix(".told")
        end, pause = time.monotonic() + FIRST_PROCESS_TIMEOUT, PAUSE
        question.touch(exist_ok=False)
        try:
            # by a listing, since network file systems cache that a name does not exist
            while answer.name not in _file_names(self.folder):
                if is_orphan():
                    raise ValueError(f"rank {self.rank}: the first process ended before it sent the {name}")
                if time.monotonic() >= end:
                    raise ValueError(
                        f"rank {self.rank}: the first process has not sent the {name} within "
                        f"{FIRST_PROCESS_TIMEOUT:.0f} s in {self.folder}; "
                        "check that it is running and uses the same folder"
                    )
                time.sleep(pause)
                pause = min(1.1 * pause, 20 * PAUSE)
            return answer.read_text(encoding="utf-8")
        finally:
            answer.unlink(missing_ok=True)
            question.unlink(missing_ok=True)  # last: this signals the first process that the answer was read

    def _answer(self) -> None:
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._answer_all, name="rendezvous", daemon=True)
            self._thread.start()

    def _answer_all(self) -> None:
        pause, failed = PAUSE, ""
        while not self._stop.wait(pause):
            try:
                pause = PAUSE if self._answer_new() else min(1.1 * pause, 20 * PAUSE)
            except OSError as error:  # for example a full disk, which may have space later
                if str(error) != failed:
                    failed = str(error)
                    print(f"{self.folder}: cannot answer the other processes ({error})", file=sys.stderr)

    def _answer_new(self) -> bool:
        """Answer new questions of this start, and return whether there were any."""
        names = _file_names(self.folder)
        for question in self._answered.keys() - names:
            self._told.add(self._answered.pop(question))
        new = False
        for question in names - self._answered.keys():
            start, *rest = question.split(".")
            if start != self._start or len(rest) != 4 or rest[-1] != "ask" or rest[0] not in self._decided:
                continue
            text = self._decided[rest[0]].encode()
            answer = (self.folder / question).with_suffix(".told")
            write_atomically(answer, partial(_write, text), durable=False)
            self._answered[question] = (rest[0], int(rest[1]))
            new = True
        return new

    def close(self, wait: bool = True) -> None:
        """Stop answering, and remove the files of this start.

        Args:
            wait: whether the first process waits at most :data:`EXIT_TIMEOUT` seconds for the others to read answers.
        """
        if self._thread is None:
            return
        end = time.monotonic() + EXIT_TIMEOUT
        while wait and len(self._told) < len(self._decided) * (self.ranks - 1) and time.monotonic() < end:
            time.sleep(PAUSE)
        self._stop.set()
        self._thread.join()
        self._thread = None
        for left in self.folder.glob(f"{self._start}.*"):
            left.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: another start has questions
            self.folder.rmdir()


def _write(text: bytes, file: BinaryIO) -> None:
    file.write(text)


def _file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
