"""Callback that sends hyperparameters, pictures and final scores to the loggers of a Trainer."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.engine.outcome import Outcome
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.spread import spread
from dop_lightning.images.pictures import observed, problem_pictures
from dop_lightning.lightning.listener import MAX_KEYS, means
from dop_lightning.lightning.loggers.adapters import Adapter, adapters_of
from dop_lightning.lightning.loggers.settings import RATES, merge, resolved_rates
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.lightning.sample import sample
from dop_lightning.problems.problem import Problem

if TYPE_CHECKING:
    from torch import Tensor


class RecoveryLogging(RecoveryCallback):
    """Log hyperparameters, pictures and final scores. Curves are logged without this callback.

    :class:`~dop_lightning.lightning.module.DoubleOverparameterization` adds it to every trainer with a logger. Pass
    an instance to the trainer to change the arguments.

    Args:
        images_every: number of evaluations between two pictures of X̂ and ŝ; 0 logs only the last ones.
        most_pictures: maximum number of problems with pictures, evenly spaced; 0 logs none.

    Raises:
        ValueError: an argument is negative.
    """

    def __init__(self, images_every: int = 10, most_pictures: int = 10) -> None:
        self.images_every = at_least("images_every", images_every, 0)
        self.most_pictures = at_least("most_pictures", most_pictures, 0)
        self._adapters: list[Adapter] = []
        self._pictured: set[str] = set()
        self._final: dict[str, dict[str, float]] = {}
        self._ended = False
        self._taken: list[Any] = []

    # -------------------------------------------------------------------------------------------- hyperparameters

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Log hyperparameters instead of Lightning, which would log them before the rates are known."""
        self._adapters = adapters_of(trainer.loggers) if trainer.is_global_zero else []
        parts: list[Any] = [pl_module, trainer.datamodule]  # type: ignore[attr-defined]
        self._taken = [part for part in parts if getattr(part, "_log_hyperparams", False)] if self._adapters else []
        for part in self._taken:
            part._log_hyperparams = False

    def _restore_loggers(self) -> None:
        for part in self._taken:
            part._log_hyperparams = True
        self._taken, self._adapters = [], []

    def _log_hyperparameters(self, trainer: pl.Trainer, module: Any) -> None:
        if not self._adapters or not trainer.enable_autolog_hparams:
            return
        model: dict[str, Any] = {}
        if module in self._taken:
            rates = resolved_rates(module.roster)
            saved = module.hparams_initial
            model = {key: value for key, value in saved.items() if key not in RATES or key in rates} | rates
        data = module.data
        parameters = merge(model, data.hparams_initial if data in self._taken else {})
        if parameters:
            for adapter in self._adapters:
                adapter.log_hyperparameters(parameters)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log hyperparameters, and choose the problems with pictures."""
        self._ended = False
        self._log_hyperparameters(trainer, pl_module)
        data: Any = pl_module.data
        most = self.most_pictures if self._adapters else 0
        self._pictured = {problem.name for problem, _ in sample(data.wholes, data.mosaics, most)}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log hyperparameters, unless the validation is part of a fit."""
        if trainer.state.fn == "validate":
            self._log_hyperparameters(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log hyperparameters."""
        self._log_hyperparameters(trainer, pl_module)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log hyperparameters."""
        self._log_hyperparameters(trainer, pl_module)

    # --------------------------------------------------------------------------------------------------- pictures

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log pictures of the observations."""
        states: Any = pl_module.states
        for state in states:
            for problem in state.problems:
                if problem.name in self._pictured:
                    self._log_pictures(problem, {"observation": observed(problem)}, state.iteration)

    def on_evaluation(self, trainer: pl.Trainer, module: Any, batch: EvaluatedBatch) -> None:
        """Log pictures every ``images_every`` evaluations. The last ones are logged at the end of each problem."""
        every = self.images_every * module.evaluate_every
        if every == 0 or batch.iteration % every != 0 or batch.iteration == module.maximum:
            return
        for k, problem in enumerate(batch.problems):
            if problem.name in self._pictured:
                seen = batch.evaluation
                tensors = {"recovered": seen.signal[k].cpu(), "corruption": seen.corruption[k].cpu()}
                self._log_pictures(problem, tensors, batch.iteration)

    def _log_pictures(self, problem: Problem, tensors: "Mapping[str, Tensor]", iteration: int) -> None:
        for label, picture in problem_pictures(problem, tensors).items():
            for adapter in self._adapters:
                adapter.log_picture(f"{label}/{problem.name}", picture, iteration)

    # ----------------------------------------------------------------------------------------------- final scores

    def on_problem_end(self, trainer: pl.Trainer, module: Any, outcome: Outcome) -> None:
        """Log the last pictures of a problem, and keep its scores."""
        self._ended = True
        self._final[outcome.problem.name] = dict(outcome.scores)
        if outcome.problem.name in self._pictured:
            self._log_outcome(outcome, outcome.iteration)

    def problem_state(self, name: str) -> dict[str, Any]:
        """Return the final scores of a problem that has ended."""
        return dict(self._final.get(name, {}))

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Load the final scores of a problem that has ended."""
        self._final[name] = dict(state)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log final scores, iterations and statuses: the means, and those of at most 40 problems.

        Images in tiles are logged as a whole in addition.
        """
        if not self._ended or not self._adapters:
            return
        records: Any = pl_module.records
        scores = {
            name: {**record.scores, **self._final.get(name, {}), "iterations": record.iteration}
            for name, record in records.items()
        }
        logged = means(scores.values())
        statuses = {"status": _common_status([record.status for record in records.values()])}
        for name in (list(records)[place] for place in spread(len(records), MAX_KEYS)):
            logged |= {f"{tag}/{name}": value for tag, value in scores[name].items()}
            statuses[f"status/{name}"] = records[name].status
        for outcome in self._whole_images(pl_module):
            name = outcome.problem.name
            self._log_outcome(outcome, trainer.global_step)
            logged |= {f"{tag}/{name}": value for tag, value in outcome.scores.items()}
            logged[f"iterations/{name}"] = outcome.iteration
            statuses[f"status/{name}"] = outcome.status
        known = trainer.logged_metrics
        for adapter in self._adapters:
            adapter.log_final(logged, known, statuses, trainer.global_step)

    def _whole_images(self, module: Any) -> Iterator[Outcome]:
        """Yield the outcomes of a sample of images in tiles, if all of their tiles belong to this process."""
        mosaics = module.data.mosaics
        for place in spread(len(mosaics), self.most_pictures):
            name = list(mosaics)[place]
            if all(tile.name in module.records for tile in mosaics[name].tiles.values()):
                yield module.recovered(name)

    def _log_outcome(self, outcome: Outcome, step: int) -> None:
        tensors = {"recovered": outcome.signal, "corruption": outcome.corruption}
        self._log_pictures(outcome.problem, tensors, step)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore the settings of module and data module."""
        self._restore_loggers()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the settings of module and data module."""
        self._restore_loggers()


def _common_status(statuses: list[str]) -> str:
    """Return the common status of all problems, or the number of problems with each status.

    >>> _common_status(["done", "done"]), _common_status(["done", "diverged", "done"])
    ('done', '2 done, 1 diverged')
    """
    counts = Counter(statuses)
    if len(counts) == 1:
        return statuses[0]
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())
