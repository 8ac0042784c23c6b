"""One TensorBoard run a problem, all with the same tags, so that curves of problems overlay."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl

from dop_lightning.checks import at_least
from dop_lightning.engine import Evaluation
from dop_lightning.files.atomic import naming
from dop_lightning.files.pictures import corruption_map, heatmap
from dop_lightning.module import DoubleOverparameterization
from dop_lightning.outcome import Outcome
from dop_lightning.problems import Problem, ProblemBatch
from dop_lightning.recovery_callback import RecoveryCallback

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter


class ProblemTensorBoard(RecoveryCallback):
    """Curves of the scores at every evaluation, and pictures at some: ``tensorboard --logdir RUN``.

    Args:
        images_every: evaluations between two pictures of X̂ and ŝ; 0 for none but the last.
        most_pictures: problems with pictures before the last, from the first on: a picture takes as long as hundreds of
            iterations of a small matrix.
        most_runs: problems that are followed, from the first on; every one is in ``metrics.csv`` all the same. A run
            holds a file and a thread open.
    """

    def __init__(self, images_every: int = 10, most_pictures: int = 10, most_runs: int = 100) -> None:
        self.images_every = at_least("images_every", images_every, 0)
        self.most_pictures = at_least("most_pictures", most_pictures, 0)
        self.most_runs = at_least("most_runs", most_runs, 0)
        self._writers: dict[str, SummaryWriter] = {}

    def _writer(
        self, trainer: pl.Trainer, module: DoubleOverparameterization, problem: Problem
    ) -> "SummaryWriter | None":
        name = problem.name
        if name not in self._writers:
            if name not in list(module.records)[: self.most_runs]:
                return None
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            # a resumed run hides what an interrupted one wrote after its last checkpoint
            purge = module.records[name].iteration if module.records[name].iteration > 0 else None
            folder = Path(trainer.default_root_dir) / problem.folder
            self._writers[name] = SummaryWriter(folder, purge_step=purge)
            if problem.data_range is not None and problem.observation.dim() == 3:
                self._picture(name, "observation", problem, problem.observation, 0)
        return self._writers[name]

    def _picture(self, name: str, tag: str, problem: Problem, signal: "Tensor", iteration: int) -> None:
        if problem.data_range is not None and signal.dim() == 3 and signal.shape[0] in (1, 3):
            if tag == "corruption":
                self._writers[name].add_image(tag, corruption_map(signal), iteration, dataformats="HW")
            else:
                self._writers[name].add_image(tag, signal.clamp(0, 1), iteration)
        elif signal.dim() == 2:
            self._writers[name].add_image(tag, heatmap(signal), iteration, dataformats="HWC")

    def _pictures(self, problem: Problem, signal: "Tensor", corruption: "Tensor", iteration: int) -> None:
        self._picture(problem.name, "recovered", problem, signal, iteration)
        self._picture(problem.name, "corruption", problem, corruption, iteration)

    def on_evaluation(
        self,
        trainer: pl.Trainer,
        module: DoubleOverparameterization,
        problems: ProblemBatch,
        evaluation: Evaluation,
        scores: Sequence[Mapping[str, float]],
    ) -> None:
        """Write the scores, and pictures where they are due."""
        due = self._is_due(module, evaluation.iteration)
        for k, problem in enumerate(problems):
            with naming(Path(trainer.default_root_dir) / problem.folder):
                writer = self._writer(trainer, module, problem)
                if writer is None:
                    continue
                for tag, value in scores[k].items():
                    writer.add_scalar(tag, value, evaluation.iteration)
                if due and problem.name in list(module.records)[: self.most_pictures]:
                    self._pictures(
                        problem, evaluation.signal[k].cpu(), evaluation.corruption[k].cpu(), evaluation.iteration
                    )

    def _is_due(self, module: DoubleOverparameterization, iteration: int) -> bool:
        """At fixed iterations, whether a run was resumed or not; the last pictures come by themselves."""
        every = self.images_every * module.evaluate_every
        return every > 0 and iteration % every == 0 and iteration != module.trainer.max_steps

    def on_problem_end(self, trainer: pl.Trainer, module: DoubleOverparameterization, outcome: Outcome) -> None:
        """Write the last pictures and close the file."""
        name = outcome.problem.name
        with naming(Path(trainer.default_root_dir) / outcome.problem.folder):
            if self._writer(trainer, module, outcome.problem) is not None:
                self._pictures(outcome.problem, outcome.signal, outcome.corruption, outcome.iteration)
                self._writers.pop(name).close()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close what is open, after an exception as well."""
        while self._writers:
            name, writer = self._writers.popitem()
            with naming(Path(trainer.default_root_dir) / name):
                writer.close()
