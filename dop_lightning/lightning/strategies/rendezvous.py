"""What the first process of a run decides for all of them, passed on by files in the folder of the run.

No process listens on a network: whoever may write to the folder of a run may take part in it, and nobody else.
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
"""Where questions and answers are, in the folder of the run."""

PATIENCE = 600.0
"""Seconds that a process waits for the first one: it may read many files before it decides."""

FAREWELL = 60.0
"""Seconds that the first one waits at its end for those that have not asked yet."""

PAUSE = 0.05
"""Seconds between two looks into the folder, at first; at most twenty times as long later."""


class Rendezvous:
    """Questions of the processes of a run, and the answers of the first one.

    A question is an empty file with a random name; its answer has the same name and another suffix. So nobody takes an
    answer that an earlier start has left. The first process answers until :meth:`close`, in a thread: processes may
    come late, or be started again. Once all have been told, nobody waits for anybody, and any of them may die.

    Args:
        environment: knows the ranks.
        run: the folder of the run, the same one for all processes.
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
        """Return what the first process decides; all processes call this equally often.

        Args:
            name: of the decision, of letters.
            decide: called by the first process alone; returns what JSON can hold.

        Raises:
            ValueError: the first process has ended, or has not decided in time.
            OSError: the folder cannot be written.
        """
        count = self._asked[name] = self._asked.get(name, 0) + 1
        key = f"{name}{count}"
        if self.rank == 0:
            text = json.dumps(decide())
            self.folder.mkdir(parents=True, exist_ok=True)
            self._decided[key] = text
            self._answer()
            return json.loads(text)
        return json.loads(self._ask(name, key))

    def _ask(self, name: str, key: str) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        question = self.folder / f"{self._start}.{key}.{self.rank}.{secrets.token_hex(16)}.ask"
        answer = question.with_suffix(".told")
        end, pause = time.monotonic() + PATIENCE, PAUSE
        question.touch(exist_ok=False)
        try:
            # a listing, since network file systems remember that a name was not there
            while answer.name not in _names(self.folder):
                if is_orphan():
                    raise ValueError(f"rank {self.rank}: the first process has ended before it has told the {name}")
                if time.monotonic() >= end:
                    raise ValueError(
                        f"rank {self.rank}: the first process has not told the {name} within {PATIENCE:.0f} s in "
                        f"{self.folder}; has it failed, or does it see another folder?"
                    )
                time.sleep(pause)
                pause = min(1.1 * pause, 20 * PAUSE)
            return answer.read_text(encoding="utf-8")
        finally:
            answer.unlink(missing_ok=True)
            question.unlink(missing_ok=True)  # last: the first process takes it for a sign that the answer was read

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
            except OSError as error:  # such as a full disk, which may have room later
                if str(error) != failed:
                    failed = str(error)
                    print(f"{self.folder}: cannot answer the other processes ({error})", file=sys.stderr)

    def _answer_new(self) -> bool:
        """Answer the questions of this start that have no answer yet, and return whether there was one."""
        names = _names(self.folder)
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
        """Answer no more, and remove what is left of this start.

        Args:
            wait: whether the first process waits until the others have been told, at most :data:`FAREWELL` seconds.
        """
        if self._thread is None:
            return
        end = time.monotonic() + FAREWELL
        while wait and len(self._told) < len(self._decided) * (self.ranks - 1) and time.monotonic() < end:
            time.sleep(PAUSE)
        self._stop.set()
        self._thread.join()
        self._thread = None
        for left in self.folder.glob(f"{self._start}.*"):
            left.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: questions of another start
            self.folder.rmdir()


def _write(text: bytes, file: BinaryIO) -> None:
    file.write(text)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
