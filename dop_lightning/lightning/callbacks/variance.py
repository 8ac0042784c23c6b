"""Stop a problem at the iteration at which its outputs changed least, without knowing the truth."""

from collections.abc import Mapping
from typing import Any, Literal

import pytorch_lightning as pl

from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.stopping import VARIANCES, LeastVariance, MovingVariance
from dop_lightning.foundation.checks import at_least, one_of
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback


class VarianceStopping(RecoveryCallback):
    r"""End a problem as ``stable`` at the minimum of the moving variance of its outputs (ES-WMV).

    Use it for networks that would later fit the corruption, see :mod:`dop_lightning.engine.stopping`. If the variance
    has not reached a new minimum for ``patience`` iterations, the problem goes back to the iteration of the minimum:
    files, scores, ``iterations`` and the checkpoint are those of that iteration, while ``metrics.csv`` contains all
    iterations. Runs that end before are not changed.

    Outputs are taken at evaluations, but window and patience are in gradient iterations: with ``evaluate_every: 5``, a
    window of 100 contains 20 outputs. It must contain at least two. For each problem, one additional state is kept, as
    large as its entry in a checkpoint; ``windowed`` also keeps the outputs in the window.

    Args:
        variance: ``windowed`` (ES-WMV) or ``exponential`` (ES-EMV, which keeps one output instead of a window);
            ``None`` never stops.
        window: length of the window in iterations, at least 2.
        patience: number of iterations without a new minimum, at least 1.

    Raises:
        ValueError: an argument is out of range, or, at the start of a run, the window contains fewer than two
            evaluations.
    """

    def __init__(
        self,
        variance: Literal["windowed", "exponential"] | None = None,
        window: int = 100,
        patience: int = 1000,
    ) -> None:
        self.variance = None if variance is None else one_of("variance", variance, VARIANCES)
        self.window = at_least("window", window, 2)
        self.patience = at_least("patience", patience, 1)
        self._followed: dict[str, LeastVariance] = {}
        self._best: dict[str, dict[str, Any]] = {}
        self._loaded: dict[str, Mapping[str, Any]] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that the window contains at least two evaluations."""
        every = recovery_module(pl_module).evaluate_every
        if self.variance is not None and self.window < 2 * every:
            raise ValueError(
                f"window must be at least two evaluations long, 2·evaluate_every = {2 * every} "
                f"iterations, got {self.window}; increase it, or set a smaller model.evaluate_every"
            )

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, batch: EvaluatedBatch) -> None:
        """Add the outputs, keep the state of the minimum variance, and end problems whose patience is exhausted."""
        if self.variance is None or batch.iteration % module.evaluate_every:
            return  # a longer run would not have a final evaluation between regular ones
        for k, name in enumerate(batch.problems.names):
            follow = self._variance_of(name, VARIANCES[self.variance](self.window // module.evaluate_every))
            if follow.update(batch.evaluation.signal[k], batch.iteration):
                self._best[name] = {**batch.state.problem_state(k), "iteration": batch.iteration}
            elif follow.is_due(batch.iteration):
                module.stop_problem(name, "stable", self._best[name])

    def _variance_of(self, name: str, variance: MovingVariance) -> LeastVariance:
        if name not in self._followed:
            follow = LeastVariance(variance, self.patience)
            if name in self._loaded:
                follow.load_state(self._loaded.pop(name))
            self._followed[name] = follow
        return self._followed[name]

    def on_problem_end(self, trainer: pl.Trainer, module: DoubleOverparameterization, outcome: Outcome) -> None:
        """Free the memory of ended problems, except those that a longer run continues."""
        if outcome.status in ("stable", "diverged"):
            for memory in (self._followed, self._best, self._loaded):
                memory.pop(outcome.problem.name, None)

    def problem_state(self, name: str) -> dict[str, Any]:
        """Return the outputs in the window, and the state of the minimum variance."""
        follow = self._followed[name].state() if name in self._followed else self._loaded.get(name)
        if follow is None:
            return {}
        return {"follow": follow, **({"best": self._best[name]} if name in self._best else {})}

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Load the outputs in the window, and the state of the minimum variance."""
        if state:
            self._loaded[name] = state["follow"]
            self._followed.pop(name, None)
            if "best" in state:
                self._best[name] = state["best"]
