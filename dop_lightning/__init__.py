"""Robust recovery without training data, by double over-parameterization.

``from dop_lightning import recover_image, RobustPCA`` is all it takes for an image or a matrix in Python;
:mod:`dop_lightning.api` has what is named here. It is imported when it is first used, so that the command ``dop``
starts fast.
"""

TYPE_CHECKING = False  # as in typing, which would take longer to import than all that the command's help needs
if TYPE_CHECKING:
    from dop_lightning.api import Recovery, RobustPCA, recover_image

__all__ = ["Recovery", "RobustPCA", "recover_image"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dop_lightning import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
