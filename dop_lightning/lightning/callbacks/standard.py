"""Callbacks of every run: scores, stopping, curves, files, checkpoints, signals and progress."""

import pytorch_lightning as pl

from dop_lightning.lightning.callbacks.checkpoint import CheckpointFolder
from dop_lightning.lightning.callbacks.files import RecoveredFiles
from dop_lightning.lightning.callbacks.interrupt import GracefulStop
from dop_lightning.lightning.callbacks.metrics import RecoveryMetrics
from dop_lightning.lightning.callbacks.preview import PreviewFile
from dop_lightning.lightning.callbacks.progress import IterationProgress
from dop_lightning.lightning.callbacks.stable import StableOutput
from dop_lightning.lightning.callbacks.tensorboard import ProblemTensorBoard
from dop_lightning.lightning.callbacks.variance import VarianceStopping

STANDARD: dict[str, type[pl.Callback]] = {
    "metrics": RecoveryMetrics,
    "stable": StableOutput,
    "early_stop": VarianceStopping,
    "tensorboard": ProblemTensorBoard,
    "checkpoint": CheckpointFolder,
    "interrupt": GracefulStop,  # after the checkpoint: from then on, while files are written, signals act immediately
    "files": RecoveredFiles,
    "preview": PreviewFile,  # after the files: it removes the preview when they have been written
    "progress": IterationProgress,  # after the signal handlers, since it times iterations before the start
}
"""Callbacks of every run by their section in a config, in the order in which they are called."""


def standard_callbacks(
    stable: StableOutput | None = None, early_stop: VarianceStopping | None = None
) -> list[pl.Callback]:
    """Return the callbacks of every run, with defaults except for the given ones."""
    given = {"stable": stable, "early_stop": early_stop}
    return [given.get(section) or make() for section, make in STANDARD.items()]
