"""Handle Ctrl-C and SIGTERM: end the current iteration and save the state, so that the run can be resumed."""

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

DUPLICATE_SIGNAL_SECONDS = 1.0
"""Seconds within which a second signal counts as a copy of the first: Ctrl-C reaches a process from the terminal and
from its parent process."""


class GracefulStop(RecoveryCallback):
    """Stop the run at the first SIGINT or SIGTERM. A second one ends it immediately, or when the state is saved.

    On a CPU, the first signal cuts the current block short; a resumed run repeats the block. If the last checkpoint has
    been saved and only files remain to be written, the first signal ends the run immediately as well.

    ``module.stopped_by`` records the signal, for the exit status. After training, Lightning restores all previous
    handlers, so this callback does not. Signals are forwarded to processes started by this one. Under SLURM,
    SIGUSR1 counts as SIGTERM.
    """

    def __init__(self) -> None:
        self._is_saved = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers, also instead of Lightning's, which would exit with status 0."""
        module = recovery_module(pl_module)
        module.stopped_by, self._is_saved = "", False
        handler = self._handler(trainer, module)
        if trainer.received_sigterm:  # received before our handler was installed
            trainer._signal_connector.received_sigterm = False
            handler(signal.SIGTERM, None)
        slurm = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
        for number in (signal.SIGINT, signal.SIGTERM, *slurm):
            try:
                signal.signal(number, handler)
            except ValueError:  # not the main thread, which alone receives signals
                return

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record that the checkpoint has been saved, after a signal."""
        self._is_saved = bool(recovery_module(pl_module).stopped_by)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record that the last checkpoint has been saved, so that ending immediately loses nothing."""
        self._is_saved = True

    def _handler(
        self, trainer: pl.Trainer, module: DoubleOverparameterization
    ) -> Callable[[int, FrameType | None], None]:
        first = 0.0

        def handle(number: int, _: FrameType | None) -> None:
            nonlocal first
            if module.stopped_by and is_child() and time.monotonic() - first < DUPLICATE_SIGNAL_SECONDS:
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
                print("\nStopping: saving the current state (press again to stop immediately)", file=sys.stderr)
            module.run.abort_block()

        return handle
