"""Ctrl-C and SIGTERM: the iteration in progress ends, the state is saved, and the run can be resumed."""

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import pytorch_lightning as pl

from dop_lightning.foundation import interrupts
from dop_lightning.foundation.launched import is_child
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher

ECHO = 1.0
"""Seconds within which a second signal is the same one: Ctrl-C reaches a process from the terminal, and from the one
that has started it."""


class GracefulStop(RecoveryCallback):
    """Turns the first SIGINT or SIGTERM into a stop; a second one acts at once, or when the state is saved.

    On a CPU the first one cuts the block in progress, which a resumed run repeats. If the last checkpoint is saved and
    files are still to be written, it acts at once, too.

    ``module.stopped_by`` says which it was, for the exit status. When training has ended Lightning puts back all the
    handlers that it found, so that there is nothing to give back here. The processes that this one has started are
    told; under SLURM, SIGUSR1 counts as SIGTERM.
    """

    def __init__(self) -> None:
        self._is_saved = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over (from Lightning too, which would leave with status 0)."""
        module = recovery_module(pl_module)
        module.stopped_by, self._is_saved = "", False
        handler = self._handler(trainer, module)
        if trainer.received_sigterm:  # between Lightning's handler and ours
            trainer._signal_connector.received_sigterm = False
            handler(signal.SIGTERM, None)
        slurm = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
        for number in (signal.SIGINT, signal.SIGTERM, *slurm):
            try:
                signal.signal(number, handler)
            except ValueError:  # not the main thread: nobody sends it signals
                return

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After a signal the checkpoint is saved already."""
        self._is_saved = bool(recovery_module(pl_module).stopped_by)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last checkpoint is saved: nothing is lost by ending at once."""
        self._is_saved = True

    def _handler(
        self, trainer: pl.Trainer, module: DoubleOverparameterization
    ) -> Callable[[int, FrameType | None], None]:
        first = 0.0

        def handle(number: int, _: FrameType | None) -> None:
            nonlocal first
            if module.stopped_by and is_child() and time.monotonic() - first < ECHO:
                return
            if isinstance(trainer.strategy.launcher, ChildProcessLauncher):
                trainer.strategy.launcher.kill(number)
            if module.stopped_by or self._is_saved:
                interrupts.interrupt(number)
                return
            interrupts.note(number)
            first = time.monotonic()
            module.stopped_by = "SIGINT" if number == signal.SIGINT else "SIGTERM"
            trainer.should_stop = True
            if trainer.is_global_zero:
                print("\nStopping: writing what is recovered so far (again: stop at once)", file=sys.stderr)
            module.run.cut()

        return handle
