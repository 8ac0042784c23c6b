"""Results of a run as files and tables."""

from dop_lightning.foundation.lazy import lazy_names

TYPE_CHECKING = False  # as in dop_lightning/__init__.py
if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, {})  # the names that the module had before it became a package
