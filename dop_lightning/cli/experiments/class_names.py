"""Find classes by their names in a config, and explain wrong names."""

import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dop_lightning.foundation.nearest import did_you_mean, nearest

MAX_LISTED = 12
"""Maximum number of known classes that a message lists if no similar name is found."""


class ClassNameError(ValueError):
    """A name in a config is not that of a class that the setting accepts."""


def known_classes(bases: Sequence[type]) -> dict[str, type]:
    """Return the imported classes that are accepted, by name; one of several with the same name.

    Args:
        bases: accepted classes, including their subclasses.
    """
    return {cls.__name__: cls for cls in _selectable_classes(bases) if not inspect.isabstract(cls)}


def _selectable_classes(bases: Sequence[type]) -> list[type]:
    found: dict[type, None] = dict.fromkeys(cls for base in bases for cls in _subclasses(base))
    return [cls for cls in found if "<locals>" not in cls.__qualname__ and "._" not in f".{class_path(cls)}"]


def _subclasses(base: type) -> Iterator[type]:
    yield base
    own: list[type] = type.__subclasses__(base)
    for subclass in own:
        yield from _subclasses(subclass)


def _class_by_name(name: str, bases: Sequence[type]) -> type | None:
    """Return the imported class with this name, if any.

    Raises:
        ClassNameError: several classes have this name.
    """
    found = [cls for cls in _selectable_classes(bases) if cls.__name__ == name]
    paths = sorted({class_path(cls) for cls in found if not inspect.isabstract(cls)})
    if len(paths) > 1:
        raise ClassNameError(f"{name} is the name of several classes; pass the path of one, {' or '.join(paths)}")
    return min(found, key=inspect.isabstract, default=None)


def class_path(cls: type) -> str:
    """Return the shortest path from which a class can be imported."""
    module = cls.__module__.split(".")
    for depth in range(2, len(module)):
        package = ".".join(module[:depth])
        if vars(sys.modules.get(package, object)).get(cls.__name__) is cls:
            return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def find_class(name: str, bases: Sequence[type], is_factory: bool = False) -> Any:
    """Return the class or function with a name from a config.

    Args:
        name: a class path, or the name of an imported class.
        bases: accepted classes, including their subclasses.
        is_factory: whether a function that returns an instance is accepted as well.

    Raises:
        ClassNameError: the class does not exist, is not a subclass of ``bases``, or is abstract; or its module cannot
            be imported.
    """
    found = _import_object(name, bases) if "." in name else _class_by_name(name, bases)
    kind = " or ".join(base.__name__ for base in bases)
    if found is None:
        known = known_classes(bases)
        meant = did_you_mean(name, known, quote=False)
        raise ClassNameError(f"there is no {kind} {name!r}{meant or _format_names(known)}")
    if is_factory and inspect.isroutine(found):
        return found
    if not isinstance(found, type):
        raise ClassNameError(f"{name} must be a subclass of {kind}, got {_describe_kind(found)}")
    if not issubclass(found, tuple(bases)):
        raise ClassNameError(f"{name} must be a subclass of {kind}, got one of {found.__bases__[0].__name__}")
    if inspect.isabstract(found):
        raise ClassNameError(f"{name} is abstract: it must define {', '.join(map(str, _missing_methods(found)))}")
    return found


def _describe_kind(found: object) -> str:
    return "a function" if inspect.isroutine(found) else f"a {type(found).__name__}"


def _missing_methods(cls: type) -> Iterator[str]:
    """Yield the methods that a subclass must define, with their arguments."""
    for name in sorted(getattr(cls, "__abstractmethods__", ())):
        method = inspect.getattr_static(cls, name)
        if inspect.isfunction(method):
            yield f"{name}({', '.join(inspect.signature(method).parameters)})"
        else:
            yield f"the property {name}"


def _format_names(known: Sequence[str] | dict[str, type]) -> str:
    names = sorted(known)
    if not names:
        return ""
    more = f", … ({len(names)} in all)" if len(names) > MAX_LISTED else ""
    return f"; available: {', '.join(names[:MAX_LISTED])}{more}"


def _import_object(name: str, bases: Sequence[type]) -> Any:
    """Import the object of a class path."""
    path = name.split(".")
    module: Any = None
    depth = 0
    for depth in range(len(path) - 1):
        try:
            module = importlib.import_module(".".join(path[: depth + 1]))
        except ModuleNotFoundError as error:
            if error.name != ".".join(path[: depth + 1]):
                raise ClassNameError(_explain_failed_import(name, error)) from error
            break
        except Exception as error:  # modules of users may raise any error
            raise ClassNameError(_explain_failed_import(name, error)) from error
    else:
        depth = len(path) - 1
    found = module
    for part in path[depth:]:
        if not hasattr(found, part):
            raise ClassNameError(_explain_wrong_path(name, path, depth, module, bases))
        found = getattr(found, part)
    return found


def _explain_failed_import(name: str, error: BaseException) -> str:
    """Explain where and why the module of a class cannot be imported."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError):
        file, line = error.filename, error.lineno
    else:
        file, line = frames[-1].filename, frames[-1].lineno
        own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
        if own:
            file, line = own[-1].filename, own[-1].lineno
    text = error.msg if isinstance(error, SyntaxError) else error
    return f"{name} cannot be imported: {type(error).__name__} in {file}, line {line}: {text}"


def _explain_wrong_path(name: str, path: list[str], depth: int, module: Any, bases: Sequence[type]) -> str:
    """Explain a wrong class path whose first ``depth`` parts can be imported, the last one as ``module``."""
    known = known_classes(bases)
    last = path[-1]
    if depth == len(path) - 1:  # the module exists
        own = {
            word: value
            for word, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, tuple(bases)) and not inspect.isabstract(value)
        }
        prefix = ".".join(path[:depth])
        close = nearest(last, own) or nearest(last, [word for word in vars(module) if word[0] != "_"])
        hint = f"; did you mean {prefix}.{close}?" if close else _suggest_same_name(last, known) or _format_names(own)
        return f"there is no {last!r} in the module {prefix}{hint}"
    hint = _suggest_same_name(last, known)
    if not hint:
        close = nearest(path[depth], _module_names(module))
        hint = f"; did you mean {'.'.join([*path[:depth], close, *path[depth + 1 :]])}?" if close else ""
    return f"there is no module {'.'.join(path[: depth + 1])!r} for {name}{hint}"


def _suggest_same_name(last: str, known: dict[str, type]) -> str:
    close = nearest(last, known)
    return f"; did you mean {class_path(known[close])}?" if close else ""


def _module_names(package: Any) -> list[str]:
    """Return the modules of a package, or all top-level modules that are not installed packages."""
    if package is not None:
        return [module.name for module in pkgutil.iter_modules(getattr(package, "__path__", []))]
    installed = Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()
    folders = [Path(folder or ".").resolve() for folder in sys.path]
    own = [str(folder) for folder in folders if not any(folder.is_relative_to(place) for place in installed)]
    return [module.name for module in pkgutil.iter_modules(own)]
