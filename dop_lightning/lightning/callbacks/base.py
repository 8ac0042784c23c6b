"""Callbacks that follow problems rather than steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

if TYPE_CHECKING:
    from dop_lightning.engine.outcome import Outcome
    from dop_lightning.engine.state import Evaluation
    from dop_lightning.lightning.module import DoubleOverparameterization
    from dop_lightning.problems.problem import ProblemBatch


class RecoveryCallback(pl.Callback):
    """A callback with hooks for evaluations and ends of problems, and with a state a problem."""

    @property
    def name(self) -> str:
        """The key of this callback's state in a checkpoint."""
        return type(self).__name__

    def on_evaluation(
        self,
        trainer: pl.Trainer,
        module: DoubleOverparameterization,
        problems: ProblemBatch,
        evaluation: Evaluation,
        scores: Sequence[Mapping[str, float]],
    ) -> None:
        """After every ``evaluate_every`` iterations, once a batch; ``scores`` has one mapping a problem."""

    def on_problem_end(self, trainer: pl.Trainer, module: DoubleOverparameterization, outcome: Outcome) -> None:
        """When a problem ends: done, stable, diverged or interrupted."""

    def problem_state(self, name: str) -> dict[str, Any]:
        """What this callback remembers of one problem: tensors and plain numbers."""
        return {}

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`problem_state` gave."""
