"""Callbacks with hooks for problems instead of steps."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

import pytorch_lightning as pl

from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.state import State
from dop_lightning.foundation.signatures import require_part


class RecoveryCallback(pl.Callback):
    """A callback with hooks for evaluations and ends of problems, and a state for each problem.

    In all hooks, ``module`` is a :class:`~dop_lightning.lightning.module.DoubleOverparameterization`.
    """

    @property
    def name(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return type(self).__name__

    def on_turn(self, trainer: pl.Trainer, module: Any, states: Sequence[State]) -> None:
        """Called before a block of iterations of batches that are advanced together.

        Args:
            trainer: the trainer.
            module: the module.
            states: the batches; do not advance them.
        """

    def on_block(self, trainer: pl.Trainer, module: Any, state: State, iterations: int) -> None:
        """Called after a block of iterations of one batch. Other batches may be at other iterations.

        Args:
            trainer: the trainer.
            module: the module.
            state: the batch; do not advance it.
            iterations: number of iterations of the block.
        """

    def on_evaluation(self, trainer: pl.Trainer, module: Any, batch: EvaluatedBatch) -> None:
        """Called every ``evaluate_every`` iterations, once per batch.

        Call ``module.stop_problem`` here to end a problem of the batch.

        Args:
            trainer: the trainer.
            module: the module.
            batch: the evaluated batch, with ``problems``, ``iteration``, ``evaluation``, ``state``, and ``scores``, one
                mapping per problem.
        """

    def on_problem_end(self, trainer: pl.Trainer, module: Any, outcome: Outcome) -> None:
        """Called when a problem ends: done, stable, diverged or interrupted."""

    def problem_state(self, name: str) -> dict[str, Any]:
        """Return the state of this callback for a problem, as tensors and plain numbers."""
        return {}

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Load a state returned by :meth:`problem_state`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Support callbacks with the arguments of version 0.1, (problems, evaluation, scores), until version 0.3."""
        super().__init_subclass__(**kwargs)
        hook = cls.__dict__.get("on_evaluation")
        if hook is not None and _has_old_arguments(hook):
            warnings.warn(
                f"{cls.__name__}.on_evaluation(trainer, module, problems, evaluation, scores) is deprecated and will "
                "be removed in version 0.3; use (trainer, module, batch) with batch.problems, batch.evaluation and "
                "batch.scores",
                DeprecationWarning,
                stacklevel=2,
            )
            cls.on_evaluation = _adapt_old_hook(hook)  # type: ignore[method-assign]


def require_hooks(callbacks: Iterable[pl.Callback]) -> None:
    """Check the signatures of the hooks of callbacks, those of this package and of Lightning.

    Raises:
        ValueError: a hook has a signature that does not match its call.
    """
    for callback in callbacks:
        require_part("callbacks", callback, pl.Callback)
        if isinstance(callback, RecoveryCallback):
            require_part("callbacks", callback, RecoveryCallback)


def _has_old_arguments(hook: Callable[..., None]) -> bool:
    """Return whether a hook has the arguments of version 0.1: trainer, module, problems, evaluation, scores."""
    try:
        inspect.signature(hook).bind(*range(6))  # including self
    except TypeError:
        return False
    return True


def _adapt_old_hook(hook: Callable[..., None]) -> Any:
    @wraps(hook)
    def on_evaluation(self: RecoveryCallback, trainer: pl.Trainer, module: Any, batch: EvaluatedBatch) -> None:
        hook(self, trainer, module, batch.problems, batch.evaluation, batch.scores)

    return on_evaluation
