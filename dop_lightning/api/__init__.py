"""Recovery in Python: a function for an image, an estimator for a matrix, without a Trainer, folders and logs."""

from typing import TYPE_CHECKING

from dop_lightning.api.recover import recover_image
from dop_lightning.api.recovery import Recovery

if TYPE_CHECKING:
    from dop_lightning.api.robust_pca import RobustPCA

__all__ = ["Recovery", "RobustPCA", "recover_image"]


def __getattr__(name: str) -> object:
    """The estimator when it is first used: it needs scikit-learn, and an image does not."""
    if name != "RobustPCA":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dop_lightning.api.robust_pca import RobustPCA

    return RobustPCA
