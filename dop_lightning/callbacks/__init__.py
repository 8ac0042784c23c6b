"""Lightning callbacks of a run: scores, curves, files, checkpoints, progress, stopping."""

from dop_lightning.callbacks.certificate import DualCertificate
from dop_lightning.callbacks.checkpoint import CheckpointFolder, last_checkpoint
from dop_lightning.callbacks.checkpoint_io import FolderCheckpointIO
from dop_lightning.callbacks.files import RecoveredFiles
from dop_lightning.callbacks.interrupt import GracefulStop
from dop_lightning.callbacks.manifest import Manifest
from dop_lightning.callbacks.metrics import RecoveryMetrics
from dop_lightning.callbacks.progress import IterationProgress
from dop_lightning.callbacks.stable import StableOutput
from dop_lightning.callbacks.tensorboard import ProblemTensorBoard
from dop_lightning.callbacks.variance import VarianceStopping
from dop_lightning.recovery_callback import RecoveryCallback

__all__ = [
    "CheckpointFolder",
    "DualCertificate",
    "FolderCheckpointIO",
    "GracefulStop",
    "IterationProgress",
    "Manifest",
    "ProblemTensorBoard",
    "RecoveredFiles",
    "RecoveryCallback",
    "RecoveryMetrics",
    "StableOutput",
    "VarianceStopping",
    "last_checkpoint",
]
