"""The counters of a Trainer in gradient iterations.

A training step is a block of iterations and an epoch ends where an evaluation ends. Lightning counts training steps
instead wherever it logs, and an endless loader has no last batch. The counters concerned are attributes of Lightning's
loops without a public setter (pytorch_lightning 2.6); this module is the only place that touches them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

from dop_lightning.lightning.loggers.adapters import adapters_of


class _EpochLoop(_TrainingEpochLoop):
    """A training loop whose step, as loggers and monitors see it, is ``global_step``."""

    blocks: Callable[[int], int]
    block_start = 0
    block_end = 0

    def advance(self, data_fetcher: Any) -> None:
        """Note which iterations the training step is about, for what is logged before and after it."""
        self.block_start = self.global_step
        self.block_end = self.blocks(self.block_start)
        super().advance(data_fetcher)

    @property
    def _batches_that_stepped(self) -> int:
        return self.global_step

    @_batches_that_stepped.setter
    def _batches_that_stepped(self, value: int) -> None:
        """Lightning counts training steps here: ``global_step`` says more."""


class _Connector(_LoggerConnector):
    """Decides by iterations what ``log_every_n_steps`` means."""

    @property
    def should_update_logs(self) -> bool:
        loop = self.trainer.fit_loop.epoch_loop
        if not isinstance(loop, _EpochLoop) or self.trainer._active_loop is not self.trainer.fit_loop:
            return super().should_update_logs
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every == 0:
            return False
        # before a block, of the block to come; after it, of that block
        return loop.block_end // every > loop.block_start // every or self.trainer.should_stop


class IterationClock:
    """Lets a Trainer count gradient iterations while it fits.

    Args:
        trainer: it counts so until :meth:`restore`.
        blocks: returns where a training step ends that begins at an iteration.
    """

    def __init__(self, trainer: pl.Trainer, blocks: Callable[[int], int]) -> None:
        self.trainer = trainer
        loop: Any = trainer.fit_loop.epoch_loop
        loop.__class__ = _EpochLoop
        loop.blocks = blocks
        self._loop = loop
        trainer._logger_connector.__class__ = _Connector

    def restore(self) -> None:
        """Let the trainer count as it did before, so that it may fit another module."""
        step = self._loop.global_step
        self._loop.blocks = None
        self._loop.__class__ = _TrainingEpochLoop
        self._loop._batches_that_stepped = step
        self.trainer._logger_connector.__class__ = _LoggerConnector

    def set(self, iteration: int, epochs: int) -> None:
        """Set the counters of a run that begins, or continues.

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
        """Count iterations: ``trainer.global_step``, which ``max_steps`` is compared with."""
        progress = self._loop.manual_optimization.optim_step_progress
        progress.total.increment_by(iterations)
        progress.current.increment_by(iterations)

    @property
    def has_reached_max_epochs(self) -> bool:
        """Whether as many epochs have ended as the trainer was to do."""
        progress: Any = self.trainer.fit_loop.epoch_progress
        return 0 < (self.trainer.max_epochs or -1) <= progress.current.processed

    def begin_epoch(self, blocks: int) -> None:
        """Say how many training steps the coming epoch has, for progress bars."""
        limit = self.trainer.limit_train_batches
        blocks = max(blocks, 1)  # after the last epoch, 0 would read as "no training batches"
        self.trainer.fit_loop.max_batches = min(blocks, limit) if isinstance(limit, int) else blocks

    def lengthen_epoch(self) -> None:
        """Add a training step to the present epoch."""
        self.trainer.fit_loop.max_batches += 1

    def end_epoch(self) -> None:
        """End the epoch of training after the present training step."""
        self._loop.batch_progress.is_last_batch = True

    def publish(self, metrics: Mapping[str, float], shown: Mapping[str, float], logs: bool = True) -> None:
        """Fill ``callback_metrics``, the metrics of progress bars, and loggers.

        ``self.log`` takes a millisecond per value, as long as forty iterations of a small matrix.

        Args:
            metrics: by key.
            shown: those of them that a progress bar shows.
            logs: whether loggers get them.
        """
        connector: Any = self.trainer._logger_connector
        connector._callback_metrics.update({key: torch.tensor(value) for key, value in metrics.items()})
        connector._progress_bar_metrics.update(shown)
        if logs and self.trainer.loggers:
            logged = {**metrics, "epoch": self.trainer.current_epoch}
            connector._logged_metrics.update(logged)
            for adapter in adapters_of(self.trainer.loggers):
                adapter.log_metrics(logged, self._loop.global_step)
