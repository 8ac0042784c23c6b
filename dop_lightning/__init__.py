"""Robust recovery without training data, by double over-parameterization.

``from dop_lightning import recover_image, RobustPCA`` is all it takes for an image or a matrix in Python. Public names
are imported when they are first used, so that the command ``dop`` starts fast.
"""

from dop_lightning.foundation.lazy import lazy_names
from dop_lightning.foundation.moved import install
from dop_lightning.foundation.readers import register_reader

TYPE_CHECKING = False  # as in typing, which would take longer to import than all that the command's help needs
if TYPE_CHECKING:
    from dop_lightning.engine.convex import ConvexMethod
    from dop_lightning.engine.descent import StepRule
    from dop_lightning.engine.method import Method
    from dop_lightning.images.recover import recover_image
    from dop_lightning.images.recovery import Recovery
    from dop_lightning.lightning.data import (
        ImageDataModule,
        MatrixDataModule,
        RecoveryDataModule,
        SceneDataModule,
        VectorDataModule,
    )
    from dop_lightning.lightning.module import DoubleOverparameterization
    from dop_lightning.lightning.recovery_callback import RecoveryCallback
    from dop_lightning.matrices.robust_pca import RobustPCA
    from dop_lightning.model.corruption import Corruption
    from dop_lightning.model.operators import Operator
    from dop_lightning.model.signals import Signal
    from dop_lightning.problems.noise import Noise
    from dop_lightning.problems.problem import Problem, ProblemBatch

PUBLIC = {
    "ConvexMethod": "dop_lightning.engine.convex",
    "Corruption": "dop_lightning.model.corruption",
    "DoubleOverparameterization": "dop_lightning.lightning.module",
    "ImageDataModule": "dop_lightning.lightning.data",
    "MatrixDataModule": "dop_lightning.lightning.data",
    "Method": "dop_lightning.engine.method",
    "Noise": "dop_lightning.problems.noise",
    "Operator": "dop_lightning.model.operators",
    "Problem": "dop_lightning.problems.problem",
    "ProblemBatch": "dop_lightning.problems.problem",
    "Recovery": "dop_lightning.images.recovery",
    "RecoveryCallback": "dop_lightning.lightning.recovery_callback",
    "RecoveryDataModule": "dop_lightning.lightning.data",
    "RobustPCA": "dop_lightning.matrices.robust_pca",
    "SceneDataModule": "dop_lightning.lightning.data",
    "Signal": "dop_lightning.model.signals",
    "StepRule": "dop_lightning.engine.descent",
    "VectorDataModule": "dop_lightning.lightning.data",
    "recover_image": "dop_lightning.images.recover",
}
"""Public names and the modules that define them."""

__all__ = [
    "ConvexMethod",
    "Corruption",
    "DoubleOverparameterization",
    "ImageDataModule",
    "MatrixDataModule",
    "Method",
    "Noise",
    "Operator",
    "Problem",
    "ProblemBatch",
    "Recovery",
    "RecoveryCallback",
    "RecoveryDataModule",
    "RobustPCA",
    "SceneDataModule",
    "Signal",
    "StepRule",
    "VectorDataModule",
    "recover_image",
]

register_reader("image", "dop_lightning.images.formats.kinds:read_pixels")  # operators read kernels from images

if not TYPE_CHECKING:  # else a type checker would accept any name
    __getattr__ = lazy_names(__name__, PUBLIC)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


install()
