"""Lightning callbacks of a run: scores, curves, files, checkpoints, progress, stopping."""

from dop_lightning.lightning.callbacks.checkpoint import CheckpointFolder, last_checkpoint
from dop_lightning.lightning.callbacks.files import RecoveredFiles
from dop_lightning.lightning.callbacks.heartbeat import ProcessHeartbeat
from dop_lightning.lightning.callbacks.interrupt import GracefulStop
from dop_lightning.lightning.callbacks.manifest import Manifest
from dop_lightning.lightning.callbacks.metrics import RecoveryMetrics
from dop_lightning.lightning.callbacks.optuna_pruning import OptunaPruning
from dop_lightning.lightning.callbacks.preview import PreviewFile
from dop_lightning.lightning.callbacks.progress import IterationProgress
from dop_lightning.lightning.callbacks.stable import StableOutput
from dop_lightning.lightning.callbacks.standard import STANDARD, standard_callbacks
from dop_lightning.lightning.callbacks.tensorboard import ProblemTensorBoard
from dop_lightning.lightning.callbacks.variance import VarianceStopping
from dop_lightning.lightning.checkpoint_io import FolderCheckpointIO
from dop_lightning.lightning.loggers import RecoveryLogging
from dop_lightning.lightning.recovery_callback import RecoveryCallback

__all__ = [
    "STANDARD",
    "CheckpointFolder",
    "FolderCheckpointIO",
    "GracefulStop",
    "IterationProgress",
    "Manifest",
    "OptunaPruning",
    "PreviewFile",
    "ProblemTensorBoard",
    "ProcessHeartbeat",
    "RecoveredFiles",
    "RecoveryCallback",
    "RecoveryLogging",
    "RecoveryMetrics",
    "StableOutput",
    "VarianceStopping",
    "last_checkpoint",
    "standard_callbacks",
]
