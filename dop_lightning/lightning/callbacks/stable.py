"""Stop a problem without knowing the truth, when its output no longer changes."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.foundation.checks import at_least, positive
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.lightning.recovery_callback import RecoveryCallback


class StableOutput(RecoveryCallback):
    r"""End a problem as ``stable`` when both X̂ and ŝ have stopped changing.

    Outputs are averaged over windows of evaluations, since the outputs of a network with perturbed input fluctuate. A
    window has settled if ``‖X̄ₜ − X̄ₜ₋₁‖ ≤ tolerance·‖X̄ₜ‖``, and likewise for s. Both are tested, because g and h are
    tiny at first and grow by a constant factor: s still changes while a first, wrong output X̂ is constant.

    Args:
        tolerance: relative change between two windows, positive; ``None`` never stops.
        window: number of evaluations in a window, at least 1.
        patience: number of consecutive windows that must have settled, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, tolerance: float | None = None, window: int = 5, patience: int = 2) -> None:
        self.tolerance = None if tolerance is None else positive("tolerance", tolerance)
        self.window = at_least("window", window, 1)
        self.patience = at_least("patience", patience, 1)
        self._states: dict[str, dict[str, Any]] = {}

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, batch: EvaluatedBatch) -> None:
        """Add the outputs, and compare them at the end of a window."""
        if self.tolerance is None or batch.iteration % module.evaluate_every:
            return  # a final evaluation between regular ones must not shift the windows of a resumed run
        for k, name in enumerate(batch.problems.names):
            outputs = {"signal": batch.evaluation.signal[k], "corruption": batch.evaluation.corruption[k]}
            if self._has_settled(name, outputs, self.tolerance):
                module.stop_problem(name, "stable")

    def _has_settled(self, name: str, outputs: Mapping[str, Tensor], tolerance: float) -> bool:
        state = self._states.setdefault(name, {"count": 0, "windows": 0})
        state["count"] += 1
        for key, output in outputs.items():
            total = state.get(f"{key}_sum")
            state[f"{key}_sum"] = output.clone() if total is None else total.to(output.device).add_(output)
        if state["count"] < self.window:
            return False
        quiet = all(_is_quiet(state, key, self.window, tolerance) for key in outputs)
        for key in outputs:
            state[f"{key}_mean"] = state.pop(f"{key}_sum") / self.window
        state["count"] = 0
        state["windows"] = state["windows"] + 1 if quiet else 0
        return state["windows"] >= self.patience

    def problem_state(self, name: str) -> dict[str, Any]:
        """Return the window of a problem."""
        state = self._states.get(name, {})
        return {key: value.cpu().clone() if isinstance(value, Tensor) else value for key, value in state.items()}

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Load the window of a problem."""
        if state:
            self._states[name] = dict(state)


def _is_quiet(state: Mapping[str, Any], key: str, window: int, tolerance: float) -> bool:
    if f"{key}_mean" not in state:
        return False
    mean = state[f"{key}_sum"] / window
    change = torch.linalg.vector_norm(mean - state[f"{key}_mean"].to(mean.device))
    return bool(change <= tolerance * torch.linalg.vector_norm(mean))
