"""Adapters for deepinv: recovery as a ``Reconstructor``, and our measurement operators as a ``LinearPhysics``.

deepinv is imported when a name of this package is first used.
"""

from dop_lightning.foundation.lazy import lazy_names
from dop_lightning.integrations.deepinv.missing import import_deepinv

TYPE_CHECKING = False  # as in dop_lightning/__init__.py
if TYPE_CHECKING:
    from dop_lightning.integrations.deepinv.physics import SensingPhysics
    from dop_lightning.integrations.deepinv.reconstructor import RobustReconstructor

PUBLIC = {
    "RobustReconstructor": "dop_lightning.integrations.deepinv.reconstructor",
    "SensingPhysics": "dop_lightning.integrations.deepinv.physics",
}
"""Public names and the modules that define them."""

__all__ = ["RobustReconstructor", "SensingPhysics"]

if not TYPE_CHECKING:
    _imported = lazy_names(__name__, PUBLIC)

    def __getattr__(name: str) -> object:
        if name in PUBLIC:
            import_deepinv()  # fails early if deepinv is missing
        return _imported(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
