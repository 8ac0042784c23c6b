"""Lightning callbacks of a run: scores, curves, files, checkpoints, progress, stopping."""

from dop_lightning.lightning.callbacks.checkpoint import CheckpointFolder, last_checkpoint
from dop_lightning.lightning.callbacks.checkpoint_io import FolderCheckpointIO
from dop_lightning.lightning.callbacks.files import RecoveredFiles
from dop_lightning.lightning.callbacks.heartbeat import ProcessHeartbeat
from dop_lightning.lightning.callbacks.interrupt import GracefulStop
from dop_lightning.lightning.callbacks.manifest import Manifest
from dop_lightning.lightning.callbacks.metrics import RecoveryMetrics
from dop_lightning.lightning.callbacks.progress import IterationProgress
from dop_lightning.lightning.callbacks.stable import StableOutput
from dop_lightning.lightning.callbacks.tensorboard import ProblemTensorBoard
from dop_lightning.lightning.callbacks.variance import VarianceStopping
from dop_lightning.lightning.recovery_callback import RecoveryCallback

__all__ = [
    "CheckpointFolder",
    "FolderCheckpointIO",
    "GracefulStop",
    "IterationProgress",
    "Manifest",
    "ProblemTensorBoard",
    "ProcessHeartbeat",
    "RecoveredFiles",
    "RecoveryCallback",
    "RecoveryMetrics",
    "StableOutput",
    "VarianceStopping",
    "last_checkpoint",
]
