"""Robust recovery without training data, by double over-parameterization.

``from dop_lightning import recover_image, RobustPCA`` is all it takes for an image or a matrix in Python. Public names
are imported when they are first used, so that the command ``dop`` starts fast.
"""

from dop_lightning.foundation.readers import register_reader

TYPE_CHECKING = False  # as in typing, which would take longer to import than all that the command's help needs
if TYPE_CHECKING:
    from dop_lightning.engine.method import Method
    from dop_lightning.images.recover import recover_image
    from dop_lightning.images.recovery import Recovery
    from dop_lightning.lightning.data import ImageDataModule, MatrixDataModule, SceneDataModule, VectorDataModule
    from dop_lightning.lightning.module import DoubleOverparameterization
    from dop_lightning.matrices.robust_pca import RobustPCA
    from dop_lightning.problems.problem import Problem, ProblemBatch

PUBLIC = {
    "DoubleOverparameterization": "dop_lightning.lightning.module",
    "ImageDataModule": "dop_lightning.lightning.data",
    "MatrixDataModule": "dop_lightning.lightning.data",
    "Method": "dop_lightning.engine.method",
    "Problem": "dop_lightning.problems.problem",
    "ProblemBatch": "dop_lightning.problems.problem",
    "Recovery": "dop_lightning.images.recovery",
    "RobustPCA": "dop_lightning.matrices.robust_pca",
    "SceneDataModule": "dop_lightning.lightning.data",
    "VectorDataModule": "dop_lightning.lightning.data",
    "recover_image": "dop_lightning.images.recover",
}
"""Public names and the modules that define them."""

__all__ = [
    "DoubleOverparameterization",
    "ImageDataModule",
    "MatrixDataModule",
    "Method",
    "Problem",
    "ProblemBatch",
    "Recovery",
    "RobustPCA",
    "SceneDataModule",
    "VectorDataModule",
    "recover_image",
]

register_reader("image", "dop_lightning.images.formats.kinds:read_pixels")  # operators read kernels from images


def __getattr__(name: str) -> object:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
