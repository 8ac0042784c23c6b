"""The curves of every problem in ``metrics.csv``, and the best that was seen on the way."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dop_lightning.engine import Evaluation
from dop_lightning.files.atomic import append_text, atomic_text
from dop_lightning.module import DoubleOverparameterization
from dop_lightning.problems import ProblemBatch
from dop_lightning.recovery_callback import RecoveryCallback

HEADER = ["problem", "iteration", "tag", "value"]


class RecoveryMetrics(RecoveryCallback):
    """Appends the scores of each evaluation to ``RUN/metrics.csv`` and keeps the best of each problem.

    The best is an oracle's: to stop there one would have to know the truth. It is reported beside the end of the run,
    never instead of it.
    """

    def __init__(self) -> None:
        self._best: dict[str, dict[str, float]] = {}

    def best(self, name: str, iteration: int, scores: Mapping[str, float]) -> dict[str, float]:
        """``best_psnr`` (where there is one) and ``best_iteration`` (of the best PSNR, else of the least error).

        Args:
            name: of the problem.
            iteration: its end, which counts as well: an interruption may have come between two evaluations.
            scores: at its end.
        """
        known = [best for best in (self._best.get(name), _seen(iteration, scores)) if best]
        best = max(known, key=_merit, default={})
        return {key: best[key] for key in ("best_psnr", "best_iteration") if key in best}

    @staticmethod
    def path(trainer: pl.Trainer) -> Path:
        """``RUN/metrics.csv``."""
        return Path(trainer.default_root_dir) / "metrics.csv"

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin the file, or cut a resumed one back to the iterations of the checkpoint."""
        assert isinstance(module, DoubleOverparameterization)
        path = self.path(trainer)
        kept = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                for row in list(csv.reader(file))[1:]:
                    record = module.records.get(row[0]) if len(row) == len(HEADER) else None
                    # a problem that went back to an earlier iteration keeps its curve up to where it stopped
                    if record is not None and int(row[1]) <= max(record.iteration, record.evaluated):
                        kept.append(row)
        atomic_text(path, _lines([HEADER, *kept]))

    def on_evaluation(
        self,
        trainer: pl.Trainer,
        module: DoubleOverparameterization,
        problems: ProblemBatch,
        evaluation: Evaluation,
        scores: Sequence[Mapping[str, float]],
    ) -> None:
        """Append a row a problem and tag."""
        rows = []
        for name, of_problem in zip(problems.names, scores, strict=True):
            seen = _seen(evaluation.iteration, of_problem)
            # an odd last evaluation is not remembered: a longer run would not have it
            if seen and evaluation.iteration % module.evaluate_every == 0:
                self._best[name] = max(self._best.get(name, seen), seen, key=_merit)  # the first of equals
            rows += [[name, evaluation.iteration, tag, f"{value:.7g}"] for tag, value in of_problem.items()]
        append_text(self.path(trainer), _lines(rows))

    def problem_state(self, name: str) -> dict[str, Any]:
        """The best of one problem."""
        return dict(self._best.get(name, {}))

    def load_problem_state(self, name: str, state: Mapping[str, Any]) -> None:
        """The best of one problem."""
        if state:
            self._best[name] = dict(state)


def _seen(iteration: int, scores: Mapping[str, float]) -> dict[str, float]:
    if "psnr" in scores:
        return {"best_psnr": scores["psnr"], "best_iteration": iteration}
    if "relative_error" in scores:
        return {"least_error": -scores["relative_error"], "best_iteration": iteration}
    return {}


def _merit(best: Mapping[str, float]) -> float:
    return best["best_psnr"] if "best_psnr" in best else best["least_error"]


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
