import pytorch_lightning as pl

from dop_lightning import DoubleOverparameterization, RecoveryCallback
from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.foundation.checks import positive


class LossStopping(RecoveryCallback):
    """End a problem as ``stable`` once its loss is small enough.

    Args:
        loss: the problem ends at or below this loss, above 0.
    """

    def __init__(self, loss: float) -> None:
        self.loss = positive("loss", loss)

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, batch: EvaluatedBatch) -> None:
        for name, loss in zip(batch.problems.names, batch.evaluation.loss.tolist(), strict=True):
            if loss <= self.loss:
                module.stop_problem(name, "stable")
