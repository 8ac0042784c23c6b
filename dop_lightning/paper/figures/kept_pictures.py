"""Pictures that a figure shows and a run does not keep by itself: the truth, the observation, the best on the way."""

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

    from dop_lightning.engine.look import Look
    from dop_lightning.engine.outcome import Outcome
    from dop_lightning.lightning.module import DoubleOverparameterization

TRUTH, OBSERVED, BEST = "truth.png", "observed.png", "best.png"


class KeptPictures(RecoveryCallback):
    """Writes ``RUN/<problem>/truth.png``, ``observed.png`` and ``best.png`` of images whose truth is known.

    The best is that of the highest PSNR among the evaluations and the end, the one whose score ``result.json`` has as
    ``best_psnr``: an oracle's choice, for methods that overfit. It is remembered as 8 bits a value, in checkpoints too.

        trainer:
          callbacks:
          - class_path: dop_lightning.paper.figures.kept_pictures.KeptPictures
    """

    def __init__(self) -> None:
        self._best: dict[str, dict[str, Any]] = {}

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, look: Look) -> None:
        """Remember what is better than all before."""
        if look.iteration % module.evaluate_every:
            return  # before an interruption: a straight run would not have seen it
        for name, signal, of_problem in zip(look.problems.names, look.evaluation.signal, look.scores, strict=True):
            self._see(name, signal, of_problem)

    def on_problem_end(self, trainer: pl.Trainer, module: DoubleOverparameterization, outcome: Outcome) -> None:
        """Write the pictures."""
        problem = outcome.problem
        known = dict(self._best.get(problem.name, {}))
        self._see(problem.name, outcome.signal, outcome.scores)
        best = self._best.pop(problem.name, None)
        if known:
            self._best[problem.name] = known  # a longer run goes on without this end
        if best is None or problem.truth is None:
            return
        folder = Path(trainer.default_root_dir) / problem.folder
        pictures = {TRUTH: as_levels(problem.truth), BEST: best["picture"]}
        if problem.observation.dim() == 3:  # what was measured need not be an image
            pictures[OBSERVED] = as_levels(problem.observation)
        for name, levels in pictures.items():
            write_pixels(folder / name, as_picture(levels))

    def problem_state(self, name: str) -> dict[str, Any]:
        """The best picture of one problem, and its score."""
        return dict(self._best.get(name, {}))

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """The best picture of one problem, and its score."""
        if state:
            self._best[name] = dict(state)

    def _see(self, name: str, signal: Tensor, scores: Mapping[str, float]) -> None:
        if "psnr" in scores and (name not in self._best or scores["psnr"] > self._best[name]["psnr"]):
            self._best[name] = {"psnr": scores["psnr"], "picture": as_levels(signal)}


def as_levels(image: Tensor) -> Tensor:
    """Values of [0, 1] as 8 bits, on the CPU."""
    return image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


def as_picture(levels: Tensor) -> np.ndarray:
    """``(C, H, W)`` as ``(H, W)`` grey, of the first channel, or ``(H, W, 3)``, of the first three.

    >>> as_picture(torch.zeros(2, 5, 7, dtype=torch.uint8)).shape, as_picture(torch.zeros(4, 5, 7)).shape
    ((5, 7), (5, 7, 3))
    """
    if len(levels) < 3:
        return levels[0].numpy()
    return levels[:3].permute(1, 2, 0).numpy()
