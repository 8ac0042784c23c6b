"""Callback that saves pictures needed by figures: the truth, the observation, and the best result during the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dop_lightning.images.formats import write_pixels
from dop_lightning.lightning.recovery_callback import RecoveryCallback

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from dop_lightning.engine.evaluated import EvaluatedBatch
    from dop_lightning.engine.outcome import Outcome
    from dop_lightning.lightning.module import DoubleOverparameterization

TRUTH, OBSERVED, BEST = "truth.png", "observed.png", "best.png"


class KeptPictures(RecoveryCallback):
    """Write ``RUN/<problem>/truth.png``, ``observed.png`` and ``best.png`` for images with known truth.

    ``best.png`` has the highest PSNR of all evaluations and the end, which ``result.json`` reports as ``best_psnr``. An
    oracle selects it, for methods that overfit. It is kept with 8 bits per value, also in checkpoints.

        trainer:
          callbacks:
          - class_path: dop_lightning.paper.figures.kept_pictures.KeptPictures
    """

    def __init__(self) -> None:
        self._best: dict[str, dict[str, Any]] = {}

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, batch: EvaluatedBatch) -> None:
        """Keep the picture of each problem whose PSNR is the highest so far."""
        if batch.iteration % module.evaluate_every:
            return  # an extra evaluation before an interruption, which an uninterrupted run would not have
        for name, signal, of_problem in zip(batch.problems.names, batch.evaluation.signal, batch.scores, strict=True):
            self._keep_best(name, signal, of_problem)

    def on_problem_end(self, trainer: pl.Trainer, module: DoubleOverparameterization, outcome: Outcome) -> None:
        """Write the pictures."""
        problem = outcome.problem
        known = dict(self._best.get(problem.name, {}))
        self._keep_best(problem.name, outcome.signal, outcome.scores)
        best = self._best.pop(problem.name, None)
        if known:
            self._best[problem.name] = known  # if the run is extended, this end is not an evaluation
        if best is None or problem.truth is None:
            return
        folder = Path(trainer.default_root_dir) / problem.folder
        pictures = {TRUTH: as_levels(problem.truth), BEST: best["picture"]}
        if problem.observation.dim() == 3:  # an observation need not be an image
            pictures[OBSERVED] = as_levels(problem.observation)
        for name, levels in pictures.items():
            write_pixels(folder / name, as_picture(levels))

    def problem_state(self, name: str) -> dict[str, Any]:
        """Return the best picture of one problem, and its score."""
        return dict(self._best.get(name, {}))

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Load the best picture of one problem, and its score."""
        if state:
            self._best[name] = dict(state)

    def _keep_best(self, name: str, signal: Tensor, scores: Mapping[str, float]) -> None:
        if "psnr" in scores and (name not in self._best or scores["psnr"] > self._best[name]["psnr"]):
            self._best[name] = {"psnr": scores["psnr"], "picture": as_levels(signal)}


def as_levels(image: Tensor) -> Tensor:
    """Convert values in [0, 1] to 8 bits, on the CPU."""
    return image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


def as_picture(levels: Tensor) -> np.ndarray:
    """Convert ``(C, H, W)`` to grey ``(H, W)`` (first channel) or to ``(H, W, 3)`` (first three channels).

    >>> as_picture(torch.zeros(2, 5, 7, dtype=torch.uint8)).shape, as_picture(torch.zeros(4, 5, 7)).shape
    ((5, 7), (5, 7, 3))
    """
    if len(levels) < 3:
        return levels[0].numpy()
    return levels[:3].permute(1, 2, 0).numpy()
