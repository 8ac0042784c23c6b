"""Callbacks that follow problems rather than steps."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

import pytorch_lightning as pl

from dop_lightning.engine.look import Look
from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.state import State
from dop_lightning.foundation.signatures import require_part


class RecoveryCallback(pl.Callback):
    """A callback with hooks for evaluations and ends of problems, and with a state per problem.

    ``module`` is a :class:`~dop_lightning.lightning.module.DoubleOverparameterization` in all hooks.
    """

    @property
    def name(self) -> str:
        """The key of this callback's state in a checkpoint."""
        return type(self).__name__

    def on_turn(self, trainer: pl.Trainer, module: Any, states: Sequence[State]) -> None:
        """Before a block of iterations of batches that are advanced side by side.

        Args:
            trainer: the trainer.
            module: the module.
            states: the batches, to be read and not to be advanced.
        """

    def on_block(self, trainer: pl.Trainer, module: Any, state: State, iterations: int) -> None:
        """After a block of iterations of one batch; the other batches may be elsewhere.

        Args:
            trainer: the trainer.
            module: the module.
            state: the batch, to be read and not to be advanced.
            iterations: of the block.
        """

    def on_evaluation(self, trainer: pl.Trainer, module: Any, look: Look) -> None:
        """After every ``evaluate_every`` iterations, once per batch.

        Call ``module.stop_problem`` to end a problem of the batch here.

        Args:
            trainer: the trainer.
            module: the module.
            look: the batch, with ``problems``, ``iteration``, ``evaluation``, ``state``, and ``scores``, one mapping
                per problem.
        """

    def on_problem_end(self, trainer: pl.Trainer, module: Any, outcome: Outcome) -> None:
        """When a problem ends: done, stable, diverged or interrupted."""

    def problem_state(self, name: str) -> dict[str, Any]:
        """Return what this callback remembers of one problem: tensors and plain numbers."""
        return {}

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`problem_state` gave."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let callbacks with the arguments of version 0.1, (problems, evaluation, scores), go on until version 0.3."""
        super().__init_subclass__(**kwargs)
        hook = cls.__dict__.get("on_evaluation")
        if hook is not None and _takes_five(hook):
            warnings.warn(
                f"{cls.__name__}.on_evaluation(trainer, module, problems, evaluation, scores) is deprecated and goes "
                "in version 0.3; take (trainer, module, look) with look.problems, look.evaluation and look.scores",
                DeprecationWarning,
                stacklevel=2,
            )
            cls.on_evaluation = _with_look(hook)  # type: ignore[method-assign]


def require_hooks(callbacks: Iterable[pl.Callback]) -> None:
    """Check the arguments of the hooks of callbacks, ours and Lightning's.

    Raises:
        ValueError: a hook takes other arguments than it is called with.
    """
    for callback in callbacks:
        require_part("callbacks", callback, pl.Callback)
        if isinstance(callback, RecoveryCallback):
            require_part("callbacks", callback, RecoveryCallback)


def _takes_five(hook: Callable[..., None]) -> bool:
    """Whether a hook has the arguments of version 0.1: trainer, module, problems, evaluation, scores."""
    try:
        inspect.signature(hook).bind(*range(6))  # self as well
    except TypeError:
        return False
    return True


def _with_look(hook: Callable[..., None]) -> Any:
    @wraps(hook)
    def on_evaluation(self: RecoveryCallback, trainer: pl.Trainer, module: Any, look: Look) -> None:
        hook(self, trainer, module, look.problems, look.evaluation, look.scores)

    return on_evaluation
