"""Data modules, which create problems from sources × noises × seeds, and batches from problems."""

from dop_lightning.lightning.data.base import RecoveryDataModule, Source
from dop_lightning.lightning.data.images import ImageDataModule
from dop_lightning.lightning.data.matrices import MatrixDataModule
from dop_lightning.lightning.data.scenes import SceneDataModule
from dop_lightning.lightning.data.vectors import VectorDataModule

__all__ = ["ImageDataModule", "MatrixDataModule", "RecoveryDataModule", "SceneDataModule", "Source", "VectorDataModule"]
