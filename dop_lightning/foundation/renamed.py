"""Old names of attributes, methods and arguments, which work with a ``DeprecationWarning`` until version 0.3.

Old names of modules, functions, classes and constants are in :mod:`dop_lightning.foundation.moved`.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from dop_lightning.foundation.moved import REMOVAL

P = ParamSpec("P")
T = TypeVar("T")


class RenamedAttribute:
    """Old name of an attribute or a method: ``old_name = RenamedAttribute("new_name")`` in the body of a class.

    Args:
        new: the current name.
    """

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def __get__(self, instance: object, owner: type) -> Any:
        """Return the value of the current name, of an instance or a class."""
        _warn(f"{owner.__name__}.{self.old}", f"{owner.__name__}.{self.new}")
        return getattr(owner if instance is None else instance, self.new)

    def __set__(self, instance: object, value: object) -> None:
        """Set the current name."""
        _warn(f"{type(instance).__name__}.{self.old}", f"{type(instance).__name__}.{self.new}")
        setattr(instance, self.new, value)


def rename_overrides(cls: type, names: Mapping[str, str]) -> None:
    """Let a new subclass override attributes by their old names. Call this from ``__init_subclass__``.

    Args:
        cls: the subclass.
        names: current names by old ones.
    """
    for old, new in names.items():
        if old in vars(cls) and not isinstance(vars(cls)[old], RenamedAttribute):
            _warn(f"{cls.__name__}.{old}", f"{cls.__name__}.{new}")
            if new not in vars(cls):
                setattr(cls, new, vars(cls)[old])
            delattr(cls, old)


def renamed_arguments(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Accept old names of keyword arguments.

    Args:
        names: current names by old ones.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            for old in names.keys() & kwargs.keys():
                _warn(f"argument {old!r} of {function.__qualname__}", f"{names[old]!r}")
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def _warn(old: str, new: str) -> None:
    """Warn at the line that uses the old name."""
    message = f"{old} is now {new}; the old name will be removed in version {REMOVAL}"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
