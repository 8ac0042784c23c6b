"""Count gradient iterations in a Trainer.

A training step is a block of iterations, and an epoch ends with an evaluation. Lightning's counters count training
steps instead, and an endless loader has no last batch. These counters are attributes of Lightning's loops without a
public setter (pytorch_lightning 2.6); this is the only module that accesses them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

from dop_lightning.lightning.loggers.adapters import adapters_of


class _EpochLoop(_TrainingEpochLoop):
    """Training loop whose step, as seen by loggers and monitors, is ``global_step``."""

    blocks: Callable[[int], int]
    block_start = 0
    block_end = 0

    def advance(self, data_fetcher: Any) -> None:
        """Record the iterations of the training step, which determine what is logged before and after it."""
        self.block_start = self.global_step
        self.block_end = self.blocks(self.block_start)
        super().advance(data_fetcher)

    @property
    def _batches_that_stepped(self) -> int:
        return self.global_step

    @_batches_that_stepped.setter
    def _batches_that_stepped(self, value: int) -> None:
        """Ignore Lightning's count of training steps; ``global_step`` is used instead."""


class _Connector(_LoggerConnector):
    """Logger connector for which ``log_every_n_steps`` counts iterations."""

    @property
    def should_update_logs(self) -> bool:
        loop = self.trainer.fit_loop.epoch_loop
        if not isinstance(loop, _EpochLoop) or self.trainer._active_loop is not self.trainer.fit_loop:
            return super().should_update_logs
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every == 0:
            return False
        # before a block, this refers to the following block; after it, to that block
        return loop.block_end // every > loop.block_start // every or self.trainer.should_stop


class IterationClock:
    """Make a Trainer count gradient iterations while it fits.

    Args:
        trainer: the trainer, modified until :meth:`restore` is called.
        blocks: returns the iteration at which a training step ends, given the one at which it begins.
    """

    def __init__(self, trainer: pl.Trainer, blocks: Callable[[int], int]) -> None:
        self.trainer = trainer
        loop: Any = trainer.fit_loop.epoch_loop
        loop.__class__ = _EpochLoop
        loop.blocks = blocks
        self._loop = loop
        trainer._logger_connector.__class__ = _Connector

    def restore(self) -> None:
        """Restore the original counters, so that the trainer can fit another module."""
        step = self._loop.global_step
        self._loop.blocks = None
        self._loop.__class__ = _TrainingEpochLoop
        self._loop._batches_that_stepped = step
        self.trainer._logger_connector.__class__ = _LoggerConnector

    def set(self, iteration: int, epochs: int) -> None:
        """Set the counters at the start of a run, new or resumed.

        Args:
            iteration: gradient iterations done.
            epochs: evaluations done.
        """
        progress = self._loop.manual_optimization.optim_step_progress
        progress.total.completed = progress.total.ready = iteration
        of_epochs: Any = self.trainer.fit_loop.epoch_progress
        for count in (of_epochs.total, of_epochs.current):
            count.ready = count.started = count.processed = count.completed = epochs

    def advance(self, iterations: int) -> None:
        """Advance ``trainer.global_step``, which is compared with ``max_steps``."""
        progress = self._loop.manual_optimization.optim_step_progress
        progress.total.increment_by(iterations)
        progress.current.increment_by(iterations)

    @property
    def has_reached_max_epochs(self) -> bool:
        """Whether ``max_epochs`` epochs have ended."""
        progress: Any = self.trainer.fit_loop.epoch_progress
        return 0 < (self.trainer.max_epochs or -1) <= progress.current.processed

    def begin_epoch(self, blocks: int) -> None:
        """Set the number of training steps of the coming epoch, for progress bars."""
        limit = self.trainer.limit_train_batches
        blocks = max(blocks, 1)  # after the last epoch, 0 would mean "no training batches"
        self.trainer.fit_loop.max_batches = min(blocks, limit) if isinstance(limit, int) else blocks

    def lengthen_epoch(self) -> None:
        """Add a training step to the current epoch."""
        self.trainer.fit_loop.max_batches += 1

    def end_epoch(self) -> None:
        """End the epoch after the current training step."""
        self._loop.batch_progress.is_last_batch = True

    def publish(self, metrics: Mapping[str, float], shown: Mapping[str, float], logs: bool = True) -> None:
        """Update ``callback_metrics``, the metrics of progress bars, and loggers.

        ``self.log`` would take a millisecond per value, as long as forty iterations of a small matrix.

        Args:
            metrics: metrics by key.
            shown: metrics for the progress bar.
            logs: whether to send the metrics to loggers.
        """
        connector: Any = self.trainer._logger_connector
        connector._callback_metrics.update({key: torch.tensor(value) for key, value in metrics.items()})
        connector._progress_bar_metrics.update(shown)
        if logs and self.trainer.loggers:
            logged = {**metrics, "epoch": self.trainer.current_epoch}
            connector._logged_metrics.update(logged)
            for adapter in adapters_of(self.trainer.loggers):
                adapter.log_metrics(logged, self._loop.global_step)
