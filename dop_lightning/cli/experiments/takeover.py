"""Work of processes that have died, taken over by another process of the run after its own work."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Literal

import pytorch_lightning as pl
import torch

from dop_lightning.engine.roster import batch_labels
from dop_lightning.foundation.folder_lock import FolderLock
from dop_lightning.foundation.launched import CHILD, RUN_FOLDER, TAKEN, is_child, is_orphan, taken_batches
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher, format_exit, handling
from dop_lightning.lightning.strategies.plan import Plan
from dop_lightning.lightning.strategies.problem_parallel import ProblemParallelStrategy
from dop_lightning.runs.folder import LOCK
from dop_lightning.runs.heartbeat import Heartbeat, read_at_work, read_heartbeats, start_time, write_heartbeat
from dop_lightning.runs.locks import Claims

TAKER = 2**30
"""The number in the lock file of a run that is held by the one process that takes work over."""

MOST_DEATHS = 2
"""A batch that was advanced when so many processes died is left, and reported."""

MOST_NAMED = 3
"""Problems of such a batch that are named."""


@dataclass
class Takeover:
    """What became of the work of dead processes.

    Attributes:
        ranks: of the dead processes whose work was taken over.
        left: why a batch was left, by its number.
        failures: how processes ended that took work over and failed otherwise.
        stopped_by: the signal that stopped it.
    """

    ranks: list[int] = field(default_factory=list)
    left: dict[int, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    stopped_by: Literal["", "SIGINT", "SIGTERM"] = ""

    @property
    def is_complete(self) -> bool:
        """Whether all of the work is done."""
        return not (self.left or self.failures or self.stopped_by)


def take_over(trainer: pl.Trainer, run: Path) -> Takeover:
    """Finish the batches of processes that have died, each in a new process, which a batch may kill as well.

    The first process does so for those that it has started, when all of them have ended. Where SLURM has started the
    processes, or the first one has died, another process does so for those that were killed by then. torchrun ends all
    processes instead. The batches are the same, and so are the results.

    A batch that was advanced when its process died, and again when the next one died, is left. The heartbeat of its
    process says so, for ``dop status``; the next start of the run tries it again.

    Args:
        trainer: whose run has ended in this process.
        run: its folder.
    """
    strategy, result = trainer.strategy, Takeover()
    if not isinstance(strategy, ProblemParallelStrategy) or trainer.world_size == 1 or strategy.plan is None:
        return result
    if taken_batches() is not None or "TORCHELASTIC_RUN_ID" in os.environ or (is_child() and not is_orphan()):
        return result
    claims, lock = Claims(run / LOCK), FolderLock(run)
    dead = _dead(trainer, strategy.plan, run)
    if not any(dead.values()) or claims.take([TAKER]):
        return result
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.empty_cache()  # for the new process
    try:
        if lock.acquire(first=False):  # else another start is at work, which does all that is left
            for rank, batches in dead.items():
                if batches and not result.stopped_by:
                    _Work(trainer, strategy.plan, run, rank, result).finish(batches)
    finally:
        lock.release()
        claims.release()
    return result


def _dead(trainer: pl.Trainer, plan: Plan, run: Path) -> dict[int, list[int]]:
    """Return the batches of dead processes, by rank."""
    launcher = trainer.strategy.launcher
    own = [trainer.global_rank]
    dead: dict[int, list[int]] = {}
    if isinstance(launcher, ChildProcessLauncher) and launcher.procs:
        base = trainer.global_rank  # the first process of a machine has started the others
        own += [base + local for local in range(1, len(launcher.procs) + 1)]
        dead = {base + local: plan.ranks[base + local] for local in launcher.deaths()}
    begin = start_time(os.getpid())
    for beat in read_heartbeats(run):  # a sign of an earlier start says nothing of this one
        if beat.rank not in own and beat.time >= begin and beat.life(run) in ("killed", "lost"):
            dead[beat.rank] = beat.batches
    return dead


class Deaths:
    """Which batches processes have died of.

    Args:
        plan: of the run.
        run: its folder.
        result: gets the batches that are left.

    Attributes:
        left: these batches.
    """

    def __init__(self, plan: Plan, run: Path, result: Takeover) -> None:
        self.plan = plan
        self.run = run
        self.result = result
        self.left: list[int] = []
        self._deaths: Counter[int] = Counter()

    def count(self, rank: int, batches: Sequence[int]) -> None:
        """Count a death for the batches that were advanced; for all of them if the process had not come so far."""
        advanced = [number for number in read_at_work(self.run, rank) if number in batches]
        self._deaths.update(advanced or batches)

    def without_deadly(self, batches: Sequence[int], how: str) -> list[int]:
        """Return the batches that can be tried again.

        Args:
            batches: of the process that has died.
            how: it has died, in words.
        """
        deadly = [number for number in batches if self._deaths[number] >= MOST_DEATHS]
        labels = batch_labels(range(len(self.plan.batches)))
        for number in deadly:
            names = self.plan.batches[number]
            named = ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")
            reason = f"{labels[number]} ({named}): two processes died while they worked on it, the last one {how}"
            self.result.left[number] = reason
        self.left += deadly
        return [number for number in batches if number not in deadly]

    def report(self, rank: int, numbers: Sequence[int]) -> None:
        """Let ``dop status`` know that a process has left batches."""
        known = {beat.rank: beat for beat in read_heartbeats(self.run)}
        now = time.time()
        beat = known.get(rank) or Heartbeat(rank, socket.gethostname(), os.getpid(), now, now)
        names = [name for number in numbers for name in self.plan.batches[number]]
        at_work = {name: beat.at_work.get(name, 0) for name in names}
        reason = "; ".join(self.result.left[number] for number in numbers)
        with suppress(OSError):  # it is printed, too
            write_heartbeat(
                self.run, replace(beat, time=now, batches=list(numbers), at_work=at_work, end="failed", reason=reason)
            )


class _Work:
    """The batches of one dead process.

    Args:
        trainer: of the process that takes them over.
        plan: of the run.
        run: its folder.
        rank: of the dead process.
        result: is filled in.
    """

    def __init__(self, trainer: pl.Trainer, plan: Plan, run: Path, rank: int, result: Takeover) -> None:
        self.trainer = trainer
        self.plan = plan
        self.run = run
        self.rank = rank
        self.result = result
        self._deaths = Deaths(plan, run, result)
        # the first process is alone with an exclusive lock and with what it prints: a taker has another rank
        self._rank_of_taker = trainer.global_rank or rank

    def finish(self, batches: Sequence[int]) -> None:
        """Finish them, in as many processes as it takes."""
        try:
            self._finish(batches)
        finally:
            if self._deaths.left:
                self._deaths.report(self.rank, self._deaths.left)

    def _finish(self, batches: Sequence[int]) -> None:
        left = list(batches)
        many = f"{len(left)} batch{'es' * (len(left) > 1)}"
        print(f"The process of rank {self.rank} has died; taking its {many} over", file=sys.stderr)
        self._deaths.count(self.rank, left)
        how = ""
        while left := self._deaths.without_deadly(left, how):
            process = subprocess.Popen(self._command(), env=self._environment(left))
            code = self._wait(process)
            if self.result.stopped_by:
                return
            how = format_exit(code)
            if code >= 0:
                if code:
                    self.result.failures.append(f"The process that took the work of rank {self.rank} over {how}")
                else:
                    self.result.ranks.append(self.rank)
                return
            self._deaths.count(self._rank_of_taker, left)

    def _command(self) -> list[str]:
        launcher = self.trainer.strategy.launcher
        assert isinstance(launcher, ChildProcessLauncher)  # that of the strategy
        return launcher.start_command

    def _environment(self, batches: Sequence[int]) -> Mapping[str, str]:
        own = {
            CHILD: str(os.getpid()),
            RUN_FOLDER: os.fspath(self.run),
            TAKEN: ",".join(map(str, batches)),
        }
        launcher = self.trainer.strategy.launcher
        if isinstance(launcher, ChildProcessLauncher) and launcher.procs:
            own = {**launcher.environment(self.run), "LOCAL_RANK": str(self.rank - self.trainer.global_rank), **own}
        elif "SLURM_PROCID" in os.environ:
            own["SLURM_PROCID"] = str(self._rank_of_taker)
        return {**os.environ, **own}

    def _wait(self, process: subprocess.Popen) -> int:
        """Wait for the end of a process, and pass signals on."""

        def handle(number: int, _: FrameType | None) -> None:
            self.result.stopped_by = "SIGINT" if number == signal.SIGINT else "SIGTERM"
            process.send_signal(number)

        with handling(handle):
            return process.wait()
