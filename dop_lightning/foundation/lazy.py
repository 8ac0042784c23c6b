"""Import the public names of a package on first use."""

from dop_lightning.foundation.moved import moved_name

TYPE_CHECKING = False  # as in dop_lightning/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_names(package: str, places: "Mapping[str, str]") -> "Callable[[str], object]":
    """Return the ``__getattr__`` of a package.

    Args:
        package: ``__name__`` of the package.
        places: modules by the public names that they define.
    """

    def get(name: str) -> object:
        """Import an object by its current name or its name in version 0.1."""
        if name not in places:
            return moved_name(package, name)
        from importlib import import_module

        return getattr(import_module(places[name]), name)

    return get
