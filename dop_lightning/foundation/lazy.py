"""Public names of a package that are imported when they are first used."""

from dop_lightning.foundation.moved import moved_name

TYPE_CHECKING = False  # as in dop_lightning/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_names(package: str, places: "Mapping[str, str]") -> "Callable[[str], object]":
    """Return the ``__getattr__`` of a package.

    Args:
        package: its ``__name__``.
        places: public names and the modules that define them.
    """

    def get(name: str) -> object:
        """Import what is asked for, under its name of today or of version 0.1."""
        if name not in places:
            return moved_name(package, name)
        from importlib import import_module

        return getattr(import_module(places[name]), name)

    return get
