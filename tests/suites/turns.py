"""Helpers for tests of images and tiles that take turns."""

import pytorch_lightning as pl

from dop_lightning.lightning.recovery_callback import RecoveryCallback


class Follow(RecoveryCallback):
    """Record the number of active batches, and stop the run after a number of blocks."""

    def __init__(self, stop_after: int = -1) -> None:
        self.at_work: list[int] = []
        self.left = stop_after

    def on_block(self, trainer: pl.Trainer, module, state, iterations: int) -> None:
        self.at_work.append(len(module.states))
        self.left -= 1
        if self.left == 0:
            module.stopped_by = "SIGINT"
            trainer.should_stop = True
