"""Prune unpromising trials of an Optuna study."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import pytorch_lightning as pl

if TYPE_CHECKING:
    import optuna


class OptunaPruning(pl.Callback):
    """Report a score to an Optuna trial at every evaluation, and end the run if the trial should be pruned.

    Optuna's callback is for ``lightning.pytorch`` and only reports after validations. This one reports after each
    validation if validation is enabled, and otherwise at the end of each training epoch, which is an evaluation. The
    step of a report is the number of gradient iterations.
    A pruned run ends like one that reached ``max_steps``: all callbacks finish their work. Then :meth:`value` raises
    ``optuna.TrialPruned``, so return it from the objective::

        def objective(trial):
            pruning = OptunaPruning(trial, monitor="psnr")
            trainer = Trainer(max_steps=1000, callbacks=[pruning])
            trainer.fit(DoubleOverparameterization(alpha=trial.suggest_float("alpha", 1, 100)), datamodule=data)
            return pruning.value()

    Args:
        trial: trial of a study with one objective. Create a new callback for each trial.
        monitor: key of the score in ``trainer.callback_metrics``, such as ``psnr``, ``relative_error`` or ``loss``.
    """

    def __init__(self, trial: optuna.trial.BaseTrial, monitor: str) -> None:
        self.trial = trial
        self.monitor = monitor
        self._step = -1
        self._value: float | None = None
        self._known: list[str] = []
        self._has_validation = self._is_pruned = self._is_interrupted = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse several processes.

        Raises:
            ValueError: the trainer has several processes, which have different scores.
        """
        if trainer.world_size > 1:
            raise ValueError(
                f"OptunaPruning supports one process, got a trainer with {trainer.world_size}, each with scores of "
                "different problems; run one trial per device instead"
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the score of a validation during fit."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._has_validation = True
            self._report(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the score of an evaluation, unless validations do."""
        is_expected = self.monitor in trainer.callback_metrics or not trainer.enable_validation
        if is_expected and not self._has_validation and trainer.callback_metrics:
            self._report(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the available scores, and whether a signal ended the run."""
        self._known = sorted(trainer.callback_metrics)
        self._is_interrupted = bool(getattr(pl_module, "stopped_by", ""))

    def value(self) -> float:
        """Return the last reported score, as the value of the objective.

        Raises:
            optuna.TrialPruned: the trial was pruned, or ended without an evaluation, for example because all problems
                diverged.
            KeyboardInterrupt: a signal ended the run. Optuna then ends the study.
            ValueError: there is no score named ``monitor``.
        """
        import optuna

        if self._is_interrupted:
            raise KeyboardInterrupt
        if self._value is None:
            if self._known:
                self._check_monitor(self._known)
            raise optuna.TrialPruned("the run ended without an evaluation")
        if self._is_pruned:
            raise optuna.TrialPruned(f"pruned at iteration {self._step} with {self.monitor} = {self._value:.6g}")
        return self._value

    def _report(self, trainer: pl.Trainer) -> None:
        self._check_monitor(sorted(trainer.callback_metrics))
        if trainer.global_step <= self._step:
            return
        self._step, self._value = trainer.global_step, float(trainer.callback_metrics[self.monitor])
        self.trial.report(self._value, self._step)
        if self.trial.should_prune():
            self._is_pruned = True
            trainer.should_stop = True

    def _check_monitor(self, known: list[str]) -> None:
        if self.monitor not in known:
            close = difflib.get_close_matches(self.monitor, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"monitor must be one of {', '.join(known)}, got {self.monitor!r}{meant}")
