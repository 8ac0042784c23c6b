"""Ctrl-C and SIGTERM: the block in progress ends, what there is is written, and the run can be resumed."""

import signal
import sys
from collections.abc import Callable
from types import FrameType

import pytorch_lightning as pl

from dop_lightning.module import DoubleOverparameterization
from dop_lightning.recovery_callback import RecoveryCallback


class GracefulStop(RecoveryCallback):
    """Turns the first SIGINT or SIGTERM into a stop at the end of the block; a second one acts at once.

    ``module.stopped_by`` says which it was, for the exit status. When training has ended Lightning puts back all the
    handlers that it found, so that there is nothing to give back here.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over (from Lightning too, which would leave with status 0)."""
        assert isinstance(pl_module, DoubleOverparameterization)
        pl_module.stopped_by = ""
        handler = self._handler(trainer, pl_module)
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                signal.signal(number, handler)
            except ValueError:  # not the main thread: nobody sends it signals
                return

    def _handler(
        self, trainer: pl.Trainer, module: DoubleOverparameterization
    ) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, _: FrameType | None) -> None:
            if module.stopped_by:
                raise KeyboardInterrupt
            module.stopped_by = "SIGINT" if number == signal.SIGINT else "SIGTERM"
            trainer.should_stop = True
            print("\nStopping: writing what is recovered so far (again: stop at once)", file=sys.stderr)

        return handle
