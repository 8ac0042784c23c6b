"""Convert the arguments of a module to plain types, for checkpoints and loggers."""

import functools
import importlib
import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

from jsonargparse._deprecated import JsonargparseDeprecationWarning
from pytorch_lightning.core.mixins.hparams_mixin import HyperparametersMixin
from pytorch_lightning.utilities.parsing import AttributeDict

UNSAVED = "unsaved"
"""Key that replaces an argument without a plain form, such as a lambda; its value describes the argument."""

INSTANTIATOR = "pytorch_lightning.cli.instantiate_module"
"""Function with which Lightning creates a module from its hyperparameters; no other one is allowed."""


class PlainHyperparameters(HyperparametersMixin):
    """Save hyperparameters as ``class_path`` dictionaries of plain types.

    A class, a ``functools.partial`` of a class with keyword arguments, or an object whose attributes are its arguments
    becomes ``{"class_path": …, "init_args": …}``. A function becomes its import path. Config files have the same form,
    and ``torch.load(…, weights_only=True)`` can read it.

    Attributes:
        is_from_cli: whether a ``LightningCLI`` created the object and its config provides the hyperparameters.
    """

    is_from_cli = False

    def save_hyperparameters(self, *args: Any, frame: FrameType | None = None, **kwargs: Any) -> None:
        """Save arguments of ``__init__`` as plain types, see Lightning's ``save_hyperparameters``."""
        if frame is None and (current := inspect.currentframe()) is not None:
            frame = current.f_back
        self.hparams.pop("_instantiator", None)  # from an earlier call, in the __init__ of a base class
        super().save_hyperparameters(*args, frame=frame, **kwargs)
        self.is_from_cli = self.is_from_cli or self.hparams.pop("_instantiator", None) is not None
        values = {name: value if name.startswith("_") else plain(value) for name, value in self.hparams.items()}
        self._hparams = AttributeDict({**values, "_instantiator": INSTANTIATOR})
        self._hparams_initial = AttributeDict(self._hparams)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Create the object of a checkpoint file, see Lightning's ``load_from_checkpoint``."""
        with warnings.catch_warnings():
            # Lightning uses a deprecated method of jsonargparse
            warnings.filterwarnings("ignore", category=JsonargparseDeprecationWarning)
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)  # type: ignore[misc]


def unsaved_parts(hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    """Return descriptions of the arguments without a plain form, by name.

    >>> unsaved_parts({"tau": 0.1, "signal": plain(lambda problems: None)})
    {'signal': 'a lambda'}
    """
    found = {name: next(_unsaved_names(value), "") for name, value in hyperparameters.items()}
    return {name: what for name, what in found.items() if what}


def _unsaved_names(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {UNSAVED}:
            yield value[UNSAVED]
            return
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _unsaved_names(inner)


def plain(value: Any) -> Any:
    """Convert an argument to plain types: numbers, strings, lists, dictionaries, and class paths.

    Args:
        value: value of any type. One without a plain form becomes ``{"unsaved": description}``.

    >>> import collections
    >>> plain(functools.partial(collections.Counter, a=2))
    {'class_path': 'collections.Counter', 'init_args': {'a': 2}}
    >>> plain((1, None, Path("a.png")))
    [1, None, 'a.png']
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple | set | range):
        return [plain(inner) for inner in value]
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, functools.partial):
        return _plain_partial(value)
    if isinstance(value, type):
        path = _import_path(value)
        return _mark_unsaved(value) if path is None else {"class_path": path}
    if isinstance(value, FunctionType):
        return _import_path(value) or _mark_unsaved(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()  # a scalar of NumPy or torch
    return _plain_object(value)


def _plain_partial(value: "functools.partial[Any]") -> Any:
    """Convert a class with keyword arguments, which jsonargparse wraps in a function."""
    made = value.args[-1] if value.args and isinstance(value.args[-1], type) else value.func
    own = not value.args or getattr(value.func, "__module__", "").startswith("jsonargparse")
    path = _import_path(made) if own and isinstance(made, type) else None
    if path is None:
        return _mark_unsaved(value)
    return {"class_path": path, **({"init_args": plain(value.keywords)} if value.keywords else {})}


def _plain_object(value: Any) -> Any:
    """Convert an object to its class and arguments, if its attributes determine the arguments and reproduce it."""
    kind = type(value)
    path = _import_path(kind)
    try:
        names = [
            name
            for name, parameter in inspect.signature(kind).parameters.items()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        arguments = {name: getattr(value, name) for name in names}
        again = kind(**arguments)
    except (TypeError, ValueError, AttributeError):
        return _mark_unsaved(value)
    if path is None or _comparable_attributes(again) != _comparable_attributes(value):
        return _mark_unsaved(value)
    return {"class_path": path, **({"init_args": plain(arguments)} if arguments else {})}


def _comparable_attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object that can be compared."""
    kinds = (bool, int, float, str, type(None), list, tuple)
    return {name: inner for name, inner in getattr(value, "__dict__", {}).items() if isinstance(inner, kinds)}


def _import_path(made: Any) -> str | None:
    """Return the import path of a class or function; ``None`` if it was defined in a function or a notebook cell."""
    module, name = getattr(made, "__module__", None), getattr(made, "__qualname__", "")
    if module is None or "<" in name:
        return None
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return f"{module}.{name}" if found is made else None


def _mark_unsaved(value: Any) -> dict[str, str]:
    name = getattr(value, "__qualname__", "")
    if name.endswith("<lambda>"):
        return {UNSAVED: "a lambda"}
    if "<locals>" in name:
        return {UNSAVED: f"{name.rpartition('.')[2]}, which is defined inside a function"}
    return {UNSAVED: name or f"an object of {type(value).__name__}"}
