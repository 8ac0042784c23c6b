from pathlib import Path

import pytorch_lightning as pl

from dop_lightning import DoubleOverparameterization, RecoveryCallback
from dop_lightning.engine.outcome import Outcome


class RunLog(RecoveryCallback):
    """Append one line per finished problem to a file in the run folder.

    Args:
        file: name of the file.
    """

    def __init__(self, file: str = "log.txt") -> None:
        self.file = file

    def on_problem_end(self, trainer: pl.Trainer, module: DoubleOverparameterization, outcome: Outcome) -> None:
        with (Path(trainer.default_root_dir) / self.file).open("a", encoding="utf-8") as log:
            log.write(f"{outcome.problem.name}: {outcome.status} after {outcome.iteration} iterations\n")
