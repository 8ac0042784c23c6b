"""The folder of a run: manifest, results, tables, reports and sweeps."""

from dop_lightning.foundation.lazy import lazy_names

TYPE_CHECKING = False  # as in dop_lightning/__init__.py
if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, {})  # names that the module had before it became a package
