"""Robust recovery without training data, by double over-parameterization.

``from dop_lightning import recover_image`` is all it takes for an image in Python; :mod:`dop_lightning.api` has what is
named here. It is imported when it is first used, so that the command ``dop`` starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dop_lightning.api import Recovery, recover_image

__all__ = ["Recovery", "recover_image"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("dop_lightning.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
