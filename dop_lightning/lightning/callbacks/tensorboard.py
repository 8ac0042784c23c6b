"""Write one TensorBoard run per problem, all with the same tags, so that curves of problems overlay."""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.state import State
from dop_lightning.foundation.atomic import make_folder, naming
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.folder_lock import held_above
from dop_lightning.foundation.spread import spread
from dop_lightning.images.pictures import observed, problem_pictures
from dop_lightning.lightning.data.base import data_of
from dop_lightning.lightning.loggers.hparams import hyperparameters, session_end, session_start
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.lightning.sample import sample
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.tags import FINAL

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

MAX_SIDE, MAX_TILE_SIDE = 1024, 256
"""Maximum number of rows and columns of pictures of whole problems and of tiles. TensorBoard computes checksums in
Python, at 3 MB per second, and pictures in full size are in the folder of the run."""

FLUSH_SECONDS = 30
"""Maximum delay in seconds until curves are on the disk; TensorBoard reloads at the same interval."""


class ProblemTensorBoard(RecoveryCallback):
    """Write scores at every evaluation, and pictures at some of them, for ``tensorboard --logdir RUN``.

    Of images with more than 1024 rows or columns, and of tiles with more than 256, only every k-th one is shown.

    If there are many problems, an evenly spaced sample is followed; ``metrics.csv`` contains all problems. The sample
    depends only on the list of problems: it is the same for any number of processes and for a resumed run.

    The tab HPARAMS has one row per problem: its attributes, rates and method, and the last values of its curves, which
    are its final scores. An image in tiles has one row, with the means of the tiles that are followed.

    Args:
        images_every: number of evaluations between two pictures of X̂ and ŝ; 0 writes only the last pictures.
        most_pictures: maximum number of followed problems with pictures before the end: a picture takes as long as
            hundreds of iterations of a small matrix.
        most_runs: maximum number of followed problems. With more than 40 runs, TensorBoard initially displays neither
            curves nor pictures; each run also keeps a file and a thread open.
    """

    def __init__(self, images_every: int = 10, most_pictures: int = 10, most_runs: int = 40) -> None:
        self.images_every = at_least("images_every", images_every, 0)
        self.most_pictures = at_least("most_pictures", most_pictures, 0)
        self.most_runs = at_least("most_runs", most_runs, 0)
        self._wholes: dict[str, Problem] = {}
        self._pictured: set[str] = set()
        self._evaluated: dict[str, int] = {}
        self._writers: dict[str, SummaryWriter] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the problems to follow."""
        data = data_of(trainer)
        followed = sample(data.wholes, data.mosaics, self.most_runs)
        self._wholes = {problem.name: whole for problem, whole in followed}
        self._pictured = {followed[position][0].name for position in spread(len(followed), self.most_pictures)}
        # values of the checkpoint, since the records change during the run
        records = recovery_module(pl_module).records
        self._evaluated = {name: records[name].evaluated for name in self._wholes if name in records}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Create the files of the active problems, so that TensorBoard lists them from the start."""
        for state in recovery_module(pl_module).states:
            for k, problem in enumerate(state.problems):
                if problem.name in self._wholes:
                    self._open(Path(trainer.default_root_dir), problem, state, k)

    def _open(self, run: Path, problem: Problem, state: State, k: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        folder, whole = run / problem.folder, self._wholes[problem.name]
        # hides what an earlier start wrote after its last checkpoint, or without one
        hidden = self._evaluated[problem.name] + 1 if any(folder.glob("events.out.tfevents.*")) else None
        make_folder(folder)
        with naming(folder):
            self._writers[problem.name] = SummaryWriter(folder, purge_step=hidden, flush_secs=FLUSH_SECONDS)
            self._check_not_moved(run, folder)
            group = str(run / whole.folder) if problem.is_tile else ""
            self._file_writer(problem.name).add_summary(session_start(hyperparameters(whole, state, k), group))
            self._write_pictures(problem, {"observation": observed(problem)}, 0)

    def _check_not_moved(self, run: Path, folder: Path) -> None:
        """Check that the run was not moved while a file was opened, since TensorBoard creates missing folders.

        Raises:
            FileNotFoundError: the run was moved; files and folders that TensorBoard created are removed.
        """
        try:
            held_above(folder.absolute())
        except FileNotFoundError:
            for file in folder.glob(f"events.out.tfevents.*.{os.getpid()}.*"):
                file.unlink(missing_ok=True)
            for made in (folder, run):
                with suppress(OSError):  # not empty: the folder belongs to another run
                    made.rmdir()
            raise

    def _file_writer(self, name: str) -> Any:
        """Return the writer for summaries of any kind, for which torch has no type hints."""
        return self._writers[name].file_writer

    def _write_pictures(self, problem: Problem, tensors: Mapping[str, "Tensor"], iteration: int) -> None:
        if len(problem.signal_shape) == 3:
            tensors = {label: _thinned(values, problem.is_tile) for label, values in tensors.items()}
        for label, picture in problem_pictures(problem, tensors).items():
            layout = "HW" if picture.ndim == 2 else "HWC"
            # the names sort after those of the curves
            self._writers[problem.name].add_image(f"view_{label}", picture, iteration, dataformats=layout)

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, batch: EvaluatedBatch) -> None:
        """Write scores, and pictures if they are due."""
        due, evaluation = self._is_due(module, batch.iteration), batch.evaluation
        for k, problem in enumerate(batch.problems):
            if problem.name in self._wholes and problem.name not in self._writers:  # a tile that has just started
                self._open(Path(trainer.default_root_dir), problem, batch.state, k)
            if problem.name not in self._writers:
                continue
            with naming(Path(trainer.default_root_dir) / problem.folder):
                self._write_scores(problem.name, batch.scores[k], batch.iteration)
                if due and problem.name in self._pictured:
                    seen = {"recovered": evaluation.signal[k].cpu(), "corruption": evaluation.corruption[k].cpu()}
                    self._write_pictures(problem, seen, batch.iteration)

    def _write_scores(self, name: str, scores: Mapping[str, float], iteration: int) -> None:
        for tag, value in scores.items():
            self._writers[name].add_scalar(tag, value, iteration)
        self._evaluated[name] = iteration

    def _is_due(self, module: DoubleOverparameterization, iteration: int) -> bool:
        """Return whether pictures are due: at fixed iterations, even if resumed. The last ones are written anyway."""
        every = self.images_every * module.evaluate_every
        return every > 0 and iteration % every == 0 and iteration != module.maximum

    def on_problem_end(self, trainer: pl.Trainer, module: DoubleOverparameterization, outcome: Outcome) -> None:
        """Write the final scores, pictures and status, and close the file."""
        name = outcome.problem.name
        if name not in self._writers:
            return
        with naming(Path(trainer.default_root_dir) / outcome.problem.folder):
            self._write_final_scores(name, outcome)
            seen = {"recovered": outcome.signal, "corruption": outcome.corruption}
            self._write_pictures(outcome.problem, seen, outcome.iteration)
            if outcome.status != "interrupted":
                self._file_writer(name).add_summary(session_end(outcome.status), outcome.iteration)
            self._writers.pop(name).close()

    def _write_final_scores(self, name: str, outcome: Outcome) -> None:
        """Append the scores of the outcome to the curves, unless the last evaluation was of the same iteration."""
        if outcome.iteration < self._evaluated[name]:  # it went back; later values are only in metrics.csv
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog

            restart = Event(step=outcome.iteration, session_log=SessionLog(status=SessionLog.START))
            self._file_writer(name).add_event(restart)
        if outcome.iteration != self._evaluated[name]:
            scores = {tag: value for tag, value in outcome.scores.items() if tag not in FINAL and math.isfinite(value)}
            self._write_scores(name, scores, outcome.iteration)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the files."""
        while self._writers:
            _, writer = self._writers.popitem()
            with naming(writer.log_dir):
                writer.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the files, since Lightning does not call teardown after an error."""
        while self._writers:
            # if the disk is full, only the error that ended the run is reported
            with suppress(OSError):
                self._writers.popitem()[1].close()


def _thinned(values: "Tensor", is_tile: bool) -> "Tensor":
    """Return every k-th row and column of an image, so that no side exceeds the limit; measurements are unchanged."""
    if values.ndim != 3:
        return values
    step = math.ceil(max(values.shape[-2:]) / (MAX_TILE_SIDE if is_tile else MAX_SIDE))
    return values if step <= 1 else values[..., ::step, ::step]
