"""Write heartbeats of a process, which ``dop status`` reads."""

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dop_lightning.engine.roster import batch_labels
from dop_lightning.engine.state import State
from dop_lightning.foundation.checks import positive
from dop_lightning.lightning.data.base import data_of
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.runs.heartbeat import (
    ActiveBatches,
    End,
    Heartbeat,
    log_of_process,
    remove_heartbeats,
    start_time,
    write_heartbeat,
)

_WINDOW = 30
"""Number of heartbeats over which the rate is measured."""

_TIME_DIVISOR = 200
"""Heartbeats take at most 1/200 of the time."""


class ProcessHeartbeat(RecoveryCallback):
    """Write ``RUN/checkpoints/processes/<rank>.json``: the progress of the problems of this process, and how it ends.

    Heartbeats are written between blocks. If writing one takes long, because of many problems or a slow disk, they are
    written less often. Errors of writing are ignored.

    Args:
        every: time between two heartbeats in seconds, positive.
    """

    def __init__(self, every: float = 1.0) -> None:
        self.every = positive("every", every)
        self._due = float("inf")
        self._pause = self.every
        self._run: Path | None = None
        self._process: dict[str, Any] = {}
        self._at_work: ActiveBatches | None = None
        self._labels: dict[str, int] = {}
        self._course: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the first heartbeat. Runs after a second start of an active run has been refused."""
        module, data = recovery_module(pl_module), data_of(trainer)
        self._run, self._pause = Path(trainer.default_root_dir), self.every
        own, labels = set(module.roster.labels), batch_labels(range(len(data.batches)))
        self._process = {
            "rank": trainer.global_rank,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": start_time(os.getpid()),
            "batches": [k for k, label in enumerate(labels) if label in own],
            "log": log_of_process(),
        }
        if trainer.is_global_zero:
            with suppress(OSError):
                remove_heartbeats(self._run, trainer.world_size)
        if trainer.world_size > 1:  # other processes may need to know which batch killed this one
            with suppress(OSError):
                self._at_work = ActiveBatches(self._run, trainer.global_rank)
        self._labels = {label: place for place, label in enumerate(labels)}
        self._write_heartbeat(trainer, module)

    def on_turn(self, trainer: pl.Trainer, module: DoubleOverparameterization, states: Sequence[State]) -> None:
        """Record the batches that are advanced."""
        if self._at_work is not None:
            roster = module.roster
            self._at_work.write([self._labels[roster.label_of(state.problems.names[0])] for state in states])

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the record of active batches, since the process ends normally."""
        if self._at_work is not None:
            self._at_work.close()
            self._at_work = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to measure the rate."""
        self._course.clear()
        self._write_heartbeat(trainer, recovery_module(pl_module))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a heartbeat if one is due."""
        if time.monotonic() >= self._due:
            self._write_heartbeat(trainer, recovery_module(pl_module))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last heartbeat, which records the end of the process."""
        module = recovery_module(pl_module)
        self._write_heartbeat(trainer, module, "stopped" if module.states else "finished", module.stopped_by)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write the error that ended the process."""
        if self._run is None:  # refused before it started; the file may belong to another process
            return
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        message = " ".join(str(exception).split()) or type(exception).__name__
        known = isinstance(exception, ValueError | OSError)
        reason = "Ctrl-C" if stopped else message if known else f"{type(exception).__name__}: {message}"
        self._write_heartbeat(trainer, recovery_module(pl_module), "stopped" if stopped else "failed", reason[:500])

    def _write_heartbeat(
        self, trainer: pl.Trainer, module: DoubleOverparameterization, end: End = "", reason: str = ""
    ) -> None:
        if self._run is None or not self._run.is_dir():  # moved; do not create it again
            return
        before, iteration = time.monotonic(), module.iteration
        if not end and trainer.training:
            self._course.append((before, iteration))
        with suppress(OSError):  # the run continues without heartbeats
            write_heartbeat(
                self._run,
                Heartbeat(
                    **self._process,
                    time=time.time(),
                    pause=self._pause,
                    at_work={name: done for batch, done in module.roster.unfinished() for name in batch.names},
                    iteration=iteration,
                    maximum=module.maximum if module.maximum > 0 else None,
                    rate=self._rate(),
                    deadline=_deadline(trainer),
                    end=end,
                    reason=reason,
                ),
            )
        now = time.monotonic()
        wait = max(self.every, _TIME_DIVISOR * (now - before))
        # blocks may take longer than the pause
        self._pause = max(wait, before - self._course[-2][0] if len(self._course) > 1 else 0.0)
        self._due = now + wait

    def _rate(self) -> float | None:
        """Return iterations per second over the last heartbeats."""
        if len(self._course) < 2:
            return None
        (begin, first), (now, last) = self._course[0], self._course[-1]
        return (last - first) / (now - begin) if last > first and now > begin else None


def _deadline(trainer: pl.Trainer) -> float | None:
    """Return the time at which the time limit of a trainer is reached."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, pl.callbacks.Timer)]  # type: ignore[attr-defined]
    left = [seconds for timer in timers if (seconds := timer.time_remaining()) is not None]
    return time.time() + min(left) if left else None
