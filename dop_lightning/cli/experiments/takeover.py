"""Take over the work of processes that died, after the own work of this process."""

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
from dop_lightning.foundation.launched import BATCHES_VARIABLE, CHILD, RUN_FOLDER, is_child, is_orphan, taken_batches
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher, format_exit, handling
from dop_lightning.lightning.strategies.plan import Plan
from dop_lightning.lightning.strategies.problem_parallel import ProblemParallelStrategy
from dop_lightning.runs.folder import LOCK
from dop_lightning.runs.heartbeat import Heartbeat, read_active_batches, read_heartbeats, start_time, write_heartbeat
from dop_lightning.runs.locks import Claims

TAKEOVER_LOCK = 2**30
"""Number in the lock file of a run that is claimed by the only process that takes over work."""

MAX_DEATHS = 2
"""Number of processes that may die while they advance a batch; then the batch is skipped and reported."""

MAX_NAMED = 3
"""Maximum number of problems of such a batch that are named."""


@dataclass
class Takeover:
    """Result of taking over the work of dead processes.

    Attributes:
        ranks: ranks of the dead processes whose work was finished.
        left: reasons for skipped batches, by number.
        failures: messages about processes that took over work and failed otherwise.
        stopped_by: signal that stopped the takeover.
    """

    ranks: list[int] = field(default_factory=list)
    left: dict[int, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    stopped_by: Literal["", "SIGINT", "SIGTERM"] = ""

    @property
    def is_complete(self) -> bool:
        """Whether all work is done."""
        return not (self.left or self.failures or self.stopped_by)


def take_over(trainer: pl.Trainer, run: Path) -> Takeover:
    """Finish the batches of processes that died, in new processes, since a batch may kill its process again.

    The first process does this for the processes that it started, once all of them have ended. If SLURM started the
    processes, or the first one died, another process does it for those that were killed by then. torchrun ends all
    processes instead. Batches are not changed, so results are the same.

    A batch is skipped if its process died while advancing it, and the next one did too. This is recorded in the
    heartbeat of its process, for ``dop status``; the next start of the run tries the batch again.

    Args:
        trainer: trainer whose run has ended in this process.
        run: folder of the run.
    """
    strategy, result = trainer.strategy, Takeover()
    if not isinstance(strategy, ProblemParallelStrategy) or trainer.world_size == 1 or strategy.plan is None:
        return result
    if taken_batches() is not None or "TORCHELASTIC_RUN_ID" in os.environ or (is_child() and not is_orphan()):
        return result
    claims, lock = Claims(run / LOCK), FolderLock(run)
    dead = _dead_batches(trainer, strategy.plan, run)
    if not any(dead.values()) or claims.take([TAKEOVER_LOCK]):
        return result
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.empty_cache()  # for the new process
    try:
        if lock.acquire(first=False):  # otherwise, another start is active and finishes the rest
            for rank, batches in dead.items():
                if batches and not result.stopped_by:
                    _Work(trainer, strategy.plan, run, rank, result).finish(batches)
    finally:
        lock.release()
        claims.release()
    return result


def _dead_batches(trainer: pl.Trainer, plan: Plan, run: Path) -> dict[int, list[int]]:
    """Return the batches of dead processes, by rank."""
    launcher = trainer.strategy.launcher
    own = [trainer.global_rank]
    dead: dict[int, list[int]] = {}
    if isinstance(launcher, ChildProcessLauncher) and launcher.procs:
        base = trainer.global_rank  # the first process of a machine started the others
        own += [base + local for local in range(1, len(launcher.procs) + 1)]
        dead = {base + local: plan.ranks[base + local] for local in launcher.deaths()}
    begin = start_time(os.getpid())
    for beat in read_heartbeats(run):  # heartbeats of earlier starts do not count
        if beat.rank not in own and beat.time >= begin and beat.life(run) in ("killed", "lost"):
            dead[beat.rank] = beat.batches
    return dead


class Deaths:
    """Counts deaths of processes per batch.

    Args:
        plan: plan of the run.
        run: folder of the run.
        result: receives the skipped batches.

    Attributes:
        left: numbers of the skipped batches.
    """

    def __init__(self, plan: Plan, run: Path, result: Takeover) -> None:
        self.plan = plan
        self.run = run
        self.result = result
        self.left: list[int] = []
        self._deaths: Counter[int] = Counter()

    def count(self, rank: int, batches: Sequence[int]) -> None:
        """Count a death for the batches that the process was advancing, or for all if it had not started any."""
        advanced = [number for number in read_active_batches(self.run, rank) if number in batches]
        self._deaths.update(advanced or batches)

    def without_deadly(self, batches: Sequence[int], how: str) -> list[int]:
        """Return the batches that can be tried again.

        Args:
            batches: batches of the process that died.
            how: description of its death.
        """
        deadly = [number for number in batches if self._deaths[number] >= MAX_DEATHS]
        labels = batch_labels(range(len(self.plan.batches)))
        for number in deadly:
            names = self.plan.batches[number]
            named = ", ".join(names[:MAX_NAMED]) + (", …" if len(names) > MAX_NAMED else "")
            reason = f"{labels[number]} ({named}): two processes died while they worked on it, the last one {how}"
            self.result.left[number] = reason
        self.left += deadly
        return [number for number in batches if number not in deadly]

    def report(self, rank: int, numbers: Sequence[int]) -> None:
        """Record skipped batches of a process for ``dop status``."""
        known = {beat.rank: beat for beat in read_heartbeats(self.run)}
        now = time.time()
        beat = known.get(rank) or Heartbeat(rank, socket.gethostname(), os.getpid(), now, now)
        names = [name for number in numbers for name in self.plan.batches[number]]
        at_work = {name: beat.at_work.get(name, 0) for name in names}
        reason = "; ".join(self.result.left[number] for number in numbers)
        with suppress(OSError):  # it is printed as well
            write_heartbeat(
                self.run, replace(beat, time=now, batches=list(numbers), at_work=at_work, end="failed", reason=reason)
            )


class _Work:
    """Takes over the batches of one dead process.

    Args:
        trainer: trainer of this process.
        plan: plan of the run.
        run: folder of the run.
        rank: rank of the dead process.
        result: receives the result.
    """

    def __init__(self, trainer: pl.Trainer, plan: Plan, run: Path, rank: int, result: Takeover) -> None:
        self.trainer = trainer
        self.plan = plan
        self.run = run
        self.rank = rank
        self.result = result
        self._deaths = Deaths(plan, run, result)
        # never rank 0, because that takes an exclusive lock and prints the results
        self._rank_of_taker = trainer.global_rank or rank

    def finish(self, batches: Sequence[int]) -> None:
        """Finish batches, in as many processes as necessary."""
        try:
            self._finish(batches)
        finally:
            if self._deaths.left:
                self._deaths.report(self.rank, self._deaths.left)

    def _finish(self, batches: Sequence[int]) -> None:
        left = list(batches)
        many = f"{len(left)} batch{'es' * (len(left) > 1)}"
        print(f"The process of rank {self.rank} died; another process takes over its {many}", file=sys.stderr)
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
                    self.result.failures.append(f"The process that took over the work of rank {self.rank} {how}")
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
            BATCHES_VARIABLE: ",".join(map(str, batches)),
        }
        launcher = self.trainer.strategy.launcher
        if isinstance(launcher, ChildProcessLauncher) and launcher.procs:
            own = {**launcher.environment(self.run), "LOCAL_RANK": str(self.rank - self.trainer.global_rank), **own}
        elif "SLURM_PROCID" in os.environ:
            own["SLURM_PROCID"] = str(self._rank_of_taker)
        return {**os.environ, **own}

    def _wait(self, process: subprocess.Popen) -> int:
        """Wait for a process to end, and forward signals to it."""

        def handle(number: int, _: FrameType | None) -> None:
            self.result.stopped_by = "SIGINT" if number == signal.SIGINT else "SIGTERM"
            process.send_signal(number)

        with handling(handle):
            return process.wait()
