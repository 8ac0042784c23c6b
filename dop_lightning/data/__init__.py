"""Data modules: sources × noises × seeds become problems, problems become batches."""

from dop_lightning.data.base import RecoveryDataModule, Source
from dop_lightning.data.images import ImageDataModule
from dop_lightning.data.matrices import MatrixDataModule

__all__ = ["ImageDataModule", "MatrixDataModule", "RecoveryDataModule", "Source"]
