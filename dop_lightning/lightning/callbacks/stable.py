"""Stopping without truth: a problem is done where its output has stopped changing."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from dop_lightning.engine.state import Evaluation
from dop_lightning.foundation.checks import at_least, positive
from dop_lightning.lightning.callbacks.base import RecoveryCallback
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.problems.problem import ProblemBatch


class StableOutput(RecoveryCallback):
    r"""Ends a problem as ``stable`` where X̂ and ŝ have both stopped changing.

    Outputs are averaged over windows of evaluations, since those of a network for a perturbed input fluctuate about
    their path. A window has settled where ``‖X̄ₜ − X̄ₜ₋₁‖ ≤ tolerance·‖X̄ₜ‖`` and likewise for s. Early on g and h are
    tiny and grow by a factor, so that s is still changing while a first, wrong output stands still: both are asked.

    Args:
        tolerance: relative change of a window against the one before, above 0; ``None`` never stops.
        window: evaluations in a window, at least 1.
        patience: windows in a row that must have settled, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, tolerance: float | None = None, window: int = 5, patience: int = 2) -> None:
        self.tolerance = None if tolerance is None else positive("tolerance", tolerance)
        self.window = at_least("window", window, 1)
        self.patience = at_least("patience", patience, 1)
        self._states: dict[str, dict[str, Any]] = {}

    def on_evaluation(
        self,
        trainer: pl.Trainer,
        module: DoubleOverparameterization,
        problems: ProblemBatch,
        evaluation: Evaluation,
        scores: Sequence[Mapping[str, float]],
    ) -> None:
        """Take the outputs in; at the end of a window, compare."""
        if self.tolerance is None or evaluation.iteration % module.evaluate_every:
            return  # an odd last evaluation must not shift the windows of a run that goes on
        for k, name in enumerate(problems.names):
            outputs = {"signal": evaluation.signal[k], "corruption": evaluation.corruption[k]}
            if self._settled(name, outputs):
                module.stop_problem(name, "stable")

    def _settled(self, name: str, outputs: Mapping[str, Tensor]) -> bool:
        state = self._states.setdefault(name, {"count": 0, "windows": 0})
        state["count"] += 1
        for key, output in outputs.items():
            total = state.get(f"{key}_sum")
            state[f"{key}_sum"] = output.clone() if total is None else total.to(output.device).add_(output)
        if state["count"] < self.window:
            return False
        quiet = all(self._is_quiet(state, key) for key in outputs)
        for key in outputs:
            state[f"{key}_mean"] = state.pop(f"{key}_sum") / self.window
        state["count"] = 0
        state["windows"] = state["windows"] + 1 if quiet else 0
        return state["windows"] >= self.patience

    def _is_quiet(self, state: Mapping[str, Any], key: str) -> bool:
        if f"{key}_mean" not in state:
            return False
        mean = state[f"{key}_sum"] / self.window
        change = torch.linalg.vector_norm(mean - state[f"{key}_mean"].to(mean.device))
        assert self.tolerance is not None
        return bool(change <= self.tolerance * torch.linalg.vector_norm(mean))

    def problem_state(self, name: str) -> dict[str, Any]:
        """The window of one problem."""
        state = self._states.get(name, {})
        return {key: value.cpu().clone() if isinstance(value, Tensor) else value for key, value in state.items()}

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """The window of one problem."""
        if state:
            self._states[name] = dict(state)
