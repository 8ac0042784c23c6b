"""Validation, test and prediction steps, which return the recovered problems and their scores, one problem per step."""

from typing import Any
from weakref import WeakKeyDictionary

import pytorch_lightning as pl
import torch
from torch import Tensor

from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.run import Run
from dop_lightning.engine.state import State
from dop_lightning.images.mosaics import combine
from dop_lightning.lightning.clock import IterationClock
from dop_lightning.lightning.listener import means
from dop_lightning.problems.custom_metrics import CustomMetrics


class RecoveredModule(pl.LightningModule):
    """A module that returns the results of a run."""

    @property
    def run(self) -> Run:
        """The run."""
        raise NotImplementedError

    @property
    def data(self) -> Any:
        """Data module of the run."""
        raise NotImplementedError

    @property
    def clock(self) -> IterationClock:
        """Counters of the trainer."""
        raise NotImplementedError

    metrics: CustomMetrics

    def __init__(self) -> None:
        super().__init__()
        self._validated: dict[str, dict[str, float]] = {}
        self._evaluated: WeakKeyDictionary[State, EvaluatedBatch] = WeakKeyDictionary()

    def recovered(self, name: str | None = None) -> Outcome:
        """Return the current outcome of a problem, or of an image that is recovered in tiles.

        Args:
            name: name of the problem; optional if there is only one.

        Raises:
            ValueError: ``name`` is unknown, or is not given although there are several problems.
        """
        wholes = {whole.name: whole for whole in self.data.wholes}
        if name is None and len(wholes) == 1:
            name = next(iter(wholes))
        if name not in wholes and name not in self.run.records:
            known = ", ".join(map(repr, list(wholes)[:3])) + (" …" if len(wholes) > 3 else "")
            raise ValueError(f"name must be the name of a problem, such as {known}, got {name!r}")
        mosaic = self.data.mosaics.get(name)
        if mosaic is not None:
            outcomes = {place: self.recovered(tile.name) for place, tile in mosaic.tiles.items()}
            return combine(mosaic, outcomes, self.metrics)
        return self.run.outcome_of(str(name))

    def outcome_of(self, name: str) -> Outcome:
        """Deprecated name of :meth:`recovered`."""
        return self.recovered(name)

    @torch.no_grad()
    def forward(self, name: str | None = None) -> Tensor:
        """Return X̂ of a problem, ``(*n)``, on the CPU, see :meth:`recovered`."""
        return self.recovered(name).signal

    @torch.no_grad()
    def validation_step(self, batch: str, batch_idx: int) -> dict[str, Any]:
        """Return the scores of the problem named ``batch``; while fitting, those of the current evaluation."""
        if self.trainer.state.fn != "fit":
            return self._score(batch)
        if batch in self.run.records:
            scores, iteration = self._present_scores(batch), self.run.records[batch].iteration
        else:  # an image that is recovered in tiles
            whole = self.recovered(batch)
            scores, iteration = whole.scores, whole.iteration
        self._validated[batch] = scores
        return {"problem": batch, "iterations": iteration, **scores}

    def on_validation_epoch_start(self) -> None:
        """Reset the means."""
        self._validated = {}

    def on_validation_epoch_end(self) -> None:
        """Publish the means of a validation while fitting. Loggers already have them if there was an evaluation."""
        if self._validated and not self.trainer.sanity_checking:
            self.clock.publish(means(self._validated.values()), {}, logs=not self.run.has_evaluated)

    def _present_scores(self, name: str) -> dict[str, float]:
        """Return the current scores of a problem, reusing the last evaluation if possible."""
        record = self.run.records[name]
        state = next((state for state in self.run.states if name in state.problems.names), None)
        if state is None or record.evaluated == state.iteration:
            return record.scores
        batch = self._evaluated.get(state)
        if batch is None or batch.evaluation.iteration != state.iteration:
            batch = self._evaluated[state] = EvaluatedBatch(state, self.run.scorer)
            _ = batch.evaluation
        return batch.scores[state.problems.names.index(name)]

    def on_validation_model_eval(self) -> None:
        """Keep the mode of networks, which are scored as they are fitted."""

    def on_validation_model_train(self) -> None:
        """Keep the mode of networks, which was not switched."""

    @torch.no_grad()
    def test_step(self, batch: str, batch_idx: int) -> dict[str, Any]:
        """Return the scores of the problem named ``batch``."""
        return self._score(batch)

    def _score(self, name: str) -> dict[str, Any]:
        outcome = self.recovered(name)
        self.log_dict(outcome.scores, batch_size=1)
        return {"problem": name, "status": outcome.status, "iterations": outcome.iteration, **outcome.scores}

    @torch.no_grad()
    def predict_step(self, batch: str, batch_idx: int) -> Outcome:
        """Return the outcome of the problem named ``batch``."""
        return self.recovered(batch)

    def train_dataloader(self) -> Any:
        """Return the loader of the attached data, for a trainer without ``datamodule=…``."""
        return self.data.train_dataloader()

    def val_dataloader(self) -> Any:
        """Return the names of the attached problems."""
        return self.data.val_dataloader()

    def test_dataloader(self) -> Any:
        """Return the names of the attached problems."""
        return self.data.test_dataloader()

    def predict_dataloader(self) -> Any:
        """Return the names of the attached problems."""
        return self.data.predict_dataloader()
