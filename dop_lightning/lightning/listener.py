"""Pass a run on to the callbacks and loggers of a Trainer."""

import sys
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl

from dop_lightning.engine.look import Ending, Look
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.state import OutOfMemoryError, State
from dop_lightning.lightning.recovery_callback import RecoveryCallback


class TrainerListener(Listener):
    """Passes evaluations and ends of problems on to the callbacks of a module's trainer.

    Args:
        module: a :class:`~dop_lightning.lightning.module.DoubleOverparameterization`.

    Attributes:
        mean_scores: by tag, the mean over the problems at work at the last evaluation.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.mean_scores: dict[str, float] = {}
        self._sums: dict[str, list[float]] = {}

    @property
    def callbacks(self) -> Iterator[RecoveryCallback]:
        """The callbacks of the trainer that follow problems, in its order."""
        return (callback for callback in self.module.trainer.callbacks if isinstance(callback, RecoveryCallback))

    def on_states_change(self, run: Run) -> None:
        """The parts of the batches at work are the module's parameters, their optimizers the trainer's."""
        self.module.follow_states()

    def on_evaluating(self, run: Run) -> None:
        """Begin new means."""
        self._sums = {}

    def on_evaluation(self, run: Run, look: Look) -> None:
        """Let the callbacks look at a batch."""
        for of_problem in look.scores:
            for tag, value in of_problem.items():
                self._sums.setdefault(tag, []).append(value)
        for callback in self.callbacks:
            callback.on_evaluation(self.module.trainer, self.module, look)

    def on_evaluated(self, run: Run) -> None:
        """Log the means."""
        self.mean_scores = {tag: sum(values) / len(values) for tag, values in self._sums.items()}
        if self._has_readers():
            for tag, value in self.mean_scores.items():
                self.module.log(tag, value, batch_size=1)

    def _has_readers(self) -> bool:
        """Whether a logger or a foreign callback (early stopping, say) reads what is logged.

        Lightning's log takes a millisecond per value, as long as forty iterations of a small matrix.
        """
        ours = (RecoveryCallback, pl.callbacks.ProgressBar, pl.callbacks.Timer)
        trainer = self.module.trainer
        return bool(trainer.loggers) or not all(isinstance(callback, ours) for callback in trainer.callbacks)

    def on_end(self, run: Run, ending: Ending) -> None:
        """Hand out what is recovered."""
        for outcome in ending.outcomes():
            for callback in self.callbacks:
                callback.on_problem_end(self.module.trainer, self.module, outcome)

    def on_split(self, run: Run, state: State, error: OutOfMemoryError) -> None:
        """Print that the batch is split."""
        print(f"\n{error}: going on with half of them at a time", file=sys.stderr)
