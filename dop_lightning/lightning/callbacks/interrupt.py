"""Ctrl-C and SIGTERM: the block in progress ends, what there is is written, and the run can be resumed."""

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import pytorch_lightning as pl

from dop_lightning.foundation.launched import is_child
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher

ECHO = 1.0
"""Seconds within which a second signal is the same one: Ctrl-C reaches a process from the terminal, and from the one
that has started it."""


class GracefulStop(RecoveryCallback):
    """Turns the first SIGINT or SIGTERM into a stop at the end of the block; a second one acts at once.

    ``module.stopped_by`` says which it was, for the exit status. When training has ended Lightning puts back all the
    handlers that it found, so that there is nothing to give back here. The processes that this one has started are
    told; under SLURM, SIGUSR1 counts as SIGTERM.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over (from Lightning too, which would leave with status 0)."""
        module = recovery_module(pl_module)
        module.stopped_by = ""
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
            if module.stopped_by:
                raise KeyboardInterrupt
            first = time.monotonic()
            module.stopped_by = "SIGINT" if number == signal.SIGINT else "SIGTERM"
            trainer.should_stop = True
            if trainer.is_global_zero:
                print("\nStopping: writing what is recovered so far (again: stop at once)", file=sys.stderr)
            for state in module.states:  # a filter, or a first look, may take seconds for an image, which starts anew
                state.interrupt()

        return handle
