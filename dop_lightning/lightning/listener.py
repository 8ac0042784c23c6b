"""Forward the events of a run to the callbacks and loggers of a Trainer."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dop_lightning.engine.evaluated import Ending, EvaluatedBatch
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.state import OutOfMemoryError, State
from dop_lightning.foundation.spread import spread
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.problems.scoring import CURVES

MAX_KEYS = 40
"""Maximum number of problems with separate metrics, such as ``psnr/photo``. If there are more, a sample is used."""

MAX_INTERRUPTED = 9
"""Maximum number of active tiles that are evaluated when a run is interrupted. If there are more, only their states are
saved."""

SHOWN = ("psnr", "relative_error", "loss")
"""Metrics of the progress bar: the first one that is known is displayed."""


class TrainerListener(Listener):
    """Forward evaluations and ends of problems to the callbacks and metrics of a module's trainer.

    Args:
        module: a :class:`~dop_lightning.lightning.module.DoubleOverparameterization`.

    Attributes:
        mean_scores: mean of each score over all problems for which it is known, at their last evaluations.
        metrics: the means, and scores of at most :data:`MAX_KEYS` problems, such as ``psnr/photo``.
        shown: metrics for the progress bar.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.mean_scores: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self.shown: dict[str, float] = {}

    @property
    def callbacks(self) -> Iterator[RecoveryCallback]:
        """Callbacks of the trainer that follow problems, in order."""
        return (callback for callback in self.module.trainer.callbacks if isinstance(callback, RecoveryCallback))

    def on_states_change(self, run: Run) -> None:
        """Register the active batches as parameters of the module and their optimizers with the trainer."""
        self.module.follow_states()

    def on_turn(self, run: Run, states: Sequence[State]) -> None:
        """Notify the callbacks that batches will be advanced."""
        for callback in self.callbacks:
            callback.on_turn(self.module.trainer, self.module, states)

    def on_block(self, run: Run, state: State, iterations: int) -> None:
        """Notify the callbacks of a finished block."""
        for callback in self.callbacks:
            callback.on_block(self.module.trainer, self.module, state, iterations)

    def on_evaluation(self, run: Run, batch: EvaluatedBatch) -> None:
        """Notify the callbacks of an evaluated batch."""
        for problem, scores in zip(batch.problems, batch.scores, strict=True):
            run.records[problem.name].scores = scores
        for callback in self.callbacks:
            callback.on_evaluation(self.module.trainer, self.module, batch)

    def on_evaluated(self, run: Run) -> None:
        """Update the metrics: means, and scores of single problems."""
        self.mean_scores = means(record.scores for record in run.records.values())
        names = list(run.records)
        single = {
            f"{tag}/{name}": value
            for name in (names[place] for place in spread(len(names), MAX_KEYS))
            for tag, value in run.records[name].scores.items()
        }
        shown = next(({tag: self.mean_scores[tag]} for tag in SHOWN if tag in self.mean_scores), {})
        self.metrics, self.shown = {**self.mean_scores, **single}, shown

    def on_end(self, run: Run, ending: Ending) -> None:
        """Notify the callbacks of the outcomes. Many interrupted tiles are skipped, to save time."""
        if "interrupted" in ending.ends.values() and _gets_no_result(run, ending):
            return
        for outcome in ending.outcomes():
            record = run.records[outcome.problem.name]
            record.scores |= {
                tag: value for tag, value in outcome.scores.items() if tag in CURVES or tag in record.scores
            }
            for callback in self.callbacks:
                callback.on_problem_end(self.module.trainer, self.module, outcome)

    def on_split(self, run: Run, state: State, error: OutOfMemoryError) -> None:
        """Print that a batch is split."""
        print(f"\n{error}: continuing with half of the problems at a time", file=sys.stderr)


def _gets_no_result(run: Run, ending: Ending) -> bool:
    """Return whether interrupted problems get no result: images that have not started, and large numbers of tiles."""
    if ending.state.is_sequential and ending.state.iteration == 0:
        return True
    if not all(problem.is_tile for problem in ending.problems):
        return False
    unfinished = sum(len(batch) for batch, _ in run.roster.unfinished())
    return unfinished > MAX_INTERRUPTED


def means(scores: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each score over the problems for which it is known.

    >>> means([{"loss": 1.0, "psnr": 20.0}, {"loss": 3.0}])
    {'loss': 2.0, 'psnr': 20.0}
    """
    values: dict[str, list[float]] = {}
    for of_problem in scores:
        for tag, value in of_problem.items():
            values.setdefault(tag, []).append(value)
    return {tag: sum(of_all) / len(of_all) for tag, of_all in values.items()}
