"""Check that a Trainer can fit this module. Unsupported settings and callbacks are refused by name."""

import warnings
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks
from pytorch_lightning.strategies import SingleDeviceStrategy

from dop_lightning.lightning.strategies import ProblemParallelStrategy

_RATES = "set model.tau, model.alpha and model.theta_optimizer"
_BATCHES = "set batch_size of the data module, which can be auto"
_OUTPUTS = "use steps=Refinement(average=…), which averages outputs"

REFUSED_CALLBACKS: dict[type[pl.Callback], str] = {
    callbacks.StochasticWeightAveraging: f"the weights of a problem are discarded at its end; {_OUTPUTS}",
    callbacks.WeightAveraging: f"the weights of a problem are discarded at its end; {_OUTPUTS}",
    callbacks.BatchSizeFinder: f"a training step has no samples; {_BATCHES}",
    callbacks.LearningRateFinder: f"each problem has separate rates; {_RATES} (tau can be auto)",
    callbacks.GradientAccumulationScheduler: "every iteration uses the whole observation; remove the callback",
    callbacks.BaseFinetuning: "parameters cannot be frozen; make the fixed part a buffer of the network",
    callbacks.ModelPruning: "parameters cannot be masked; use a smaller network",
    callbacks.SpikeDetection: "divergence is already detected and ends the problem; remove the callback",
}
"""Lightning callbacks that would have no effect or cause errors, with alternatives."""

REFUSED_ON_SEVERAL: dict[type[pl.Callback], str] = {
    callbacks.EarlyStopping: "use StableOutput or VarianceStopping, which end each problem separately",
    callbacks.Checkpoint: "use CheckpointFolder, which all processes share, and Trainer(enable_checkpointing=False)",
}
"""Lightning callbacks that require all problems in one process."""


def suppress_irrelevant_warnings() -> None:
    """Silence Lightning's warning about manual optimization: checkpoints here include the state of the step rule."""
    warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization", category=UserWarning)


def check_trainer(trainer: Any, module: pl.LightningModule) -> None:
    """Check that a trainer can run this module.

    Raises:
        ValueError: a setting or callback of the trainer is not supported, or the run would never end.
    """
    if getattr(module, "_compiler_ctx", None) is not None:
        raise ValueError(
            "torch.compile cannot compile this module, because its training step is a loop; compile the network inside "
            "the signal instead"
        )
    _check_strategy(trainer)
    if trainer.state.fn == "fit":
        _check_fit(trainer)


def _check_strategy(trainer: Any) -> None:
    if isinstance(trainer.strategy, ProblemParallelStrategy | SingleDeviceStrategy):
        return
    given = getattr(trainer.strategy, "strategy_name", None) or type(trainer.strategy).__name__
    raise ValueError(
        f'strategy must be "problem_parallel" for several devices, got {given!r}; use '
        f'Trainer(strategy="problem_parallel", devices={trainer.num_devices})'
    )


def _check_fit(trainer: Any) -> None:
    every: list[pl.Callback] = trainer.callbacks
    for callback in every:
        for kind, instead in REFUSED_CALLBACKS.items():
            if isinstance(callback, kind):
                raise ValueError(f"{type(callback).__name__} does not work with this module: {instead}")
        if isinstance(callback, callbacks.ModelCheckpoint) and callback._train_time_interval is not None:
            raise ValueError(
                "ModelCheckpoint(train_time_interval=…) never saves under manual optimization; use "
                "every_n_train_steps, or CheckpointFolder(every_minutes=…)"
            )
    if trainer.world_size > 1:
        for callback in every:
            for kind, instead in REFUSED_ON_SEVERAL.items():
                if isinstance(callback, kind):
                    raise ValueError(
                        f"{type(callback).__name__} requires one process, got {trainer.world_size}, each with "
                        f"different problems: {instead}"
                    )
    if trainer.overfit_batches:
        raise ValueError(
            f"overfit_batches must be 0, got {trainer.overfit_batches}; every iteration uses the whole observation"
        )
    timed = any(isinstance(callback, callbacks.Timer) and callback.time_remaining() is not None for callback in every)
    bounded = trainer.max_steps > 0 or (trainer.max_epochs or -1) > 0
    if trainer.max_steps == 0 or trainer.max_epochs == 0 or not (bounded or timed):
        raise ValueError(
            f"trainer.max_steps must be the number of gradient iterations, at least 1, got {trainer.max_steps}; "
            "max_epochs (evaluations) and max_time also end a run"
        )


def has_independent_problems(trainer: Any) -> bool:
    """Return whether problems may be recovered one after the other, because nothing monitors or ends all of them."""
    kinds = (callbacks.EarlyStopping, callbacks.ModelCheckpoint)
    together = any(isinstance(callback, kinds) for callback in trainer.callbacks)
    return not together and not trainer.loggers and (trainer.max_epochs or -1) < 0


def stopped_early(trainer: Any) -> bool:
    """Return whether an early stopping callback has ended a run."""
    stopping = (callback for callback in trainer.callbacks if isinstance(callback, callbacks.EarlyStopping))
    return bool(trainer.should_stop) and any(callback.stopping_reason.value != 0 for callback in stopping)


def step_grids(trainer: Any) -> list[int]:
    """Return the intervals, in iterations, at which callbacks inspect the run between evaluations."""
    every: list[pl.Callback] = trainer.callbacks
    grids = {callback._every_n_train_steps for callback in every if isinstance(callback, callbacks.ModelCheckpoint)}
    if trainer.loggers and trainer.log_every_n_steps and any(_logs_steps(callback) for callback in every):
        grids.add(trainer.log_every_n_steps)
    return sorted(grids - {0})


def _logs_steps(callback: pl.Callback) -> bool:
    """Return whether a callback may log at training steps: it is from another package and has hooks for them."""
    quiet = (callbacks.ProgressBar, callbacks.Checkpoint, callbacks.Timer, callbacks.EarlyStopping)
    if isinstance(callback, quiet) or type(callback).__module__.startswith("dop_lightning."):
        return False
    hooks = ("on_train_batch_start", "on_train_batch_end", "on_before_optimizer_step")
    return any(getattr(type(callback), hook) is not getattr(pl.Callback, hook) for hook in hooks)
