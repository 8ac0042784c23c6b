"""Checks of parts that users write: whether a function or a method takes the arguments that it is called with.

A part is checked where it is handed over, before anything is computed. A mistake inside of it keeps its own traceback.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = __name__.partition(".")[0]


def require_arguments(name: str, function: Callable[..., Any], arguments: Sequence[str], what: str = "") -> None:
    """Check that a function can be called with these positional arguments.

    Args:
        name: of the argument that the function was given for.
        function: any callable; built-in functions that do not tell their arguments are not checked.
        arguments: what it is called with, in words.
        what: what it has to return, such as ``a Signal``.

    Raises:
        ValueError: it cannot be called so.

    >>> require_arguments("signal", lambda: None, ["problems"], "a Signal")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: signal must be a function of (problems) that returns a Signal, got <lambda>() in ..., line 1
    """
    if not callable(function):
        raise ValueError(f"{name} must be a function of ({', '.join(arguments)}), got {function!r}")
    target = _target(function)
    if _takes(target, arguments, ()):
        return
    bare: Any = _bare(target)
    if inspect.isclass(bare):
        wanted = ", ".join(["self", *arguments])
        made = _qualified_name(bare)
        raise ValueError(f"{name}: {made}.__init__ must take ({wanted}), got {_described(bare.__init__)}")
    returns = f" that returns {what}" if what else ""
    raise ValueError(f"{name} must be a function of ({', '.join(arguments)}){returns}, got {_described(target)}")


def require_part(name: str, part: object, base: type) -> None:
    """Check that a part is of a kind, and that its methods take the arguments of those that they override.

    Args:
        name: of the argument that the part was given for.
        part: an instance of a subclass.
        base: a class of the package, or of Lightning; methods of its own bases in other packages are not checked.

    Raises:
        ValueError: it is of another kind, a method takes other arguments, or a property and a method are confused.
    """
    if not isinstance(part, base):
        raise ValueError(f"{name} must be {_with_article(base.__name__)}, got {part!r}")
    cls: Any = type(part)
    problem = _wrong_method(cls, base)
    if problem:
        raise ValueError(problem)


def made_by(factory: Callable[..., T], kind: type, *arguments: object) -> T:
    """Call a factory of a user, and return the part that it makes.

    Args:
        factory: makes the part; :func:`require_arguments` has looked at it.
        kind: the base class of the part.
        arguments: what the factory is called with.

    Raises:
        ValueError: it makes something else, or the methods of the part take other arguments than those of ``kind``.
    """
    part = require_result(factory(*arguments), kind, factory)
    require_part(kind.__name__, part, kind)
    return part


def require_result(result: T, kind: type, function: Callable[..., Any]) -> T:
    """Return what a function of a user has returned, if it is of the kind asked for.

    Args:
        result: what it returned.
        kind: a class.
        function: what returned it, for the error.

    Raises:
        ValueError: it is of another kind.
    """
    if isinstance(result, kind):
        return result
    got = "None" if result is None else _with_article(type(result).__name__)
    target = _target(function)
    raise ValueError(f"{_qualified_name(target)} must return {_with_article(kind.__name__)}, got {got}{_place(target)}")


@functools.cache
def _wrong_method(cls: Any, base: Any) -> str:
    """What is wrong with a method of a subclass; nothing if they are all right."""
    packages = {ROOT, base.__module__.partition(".")[0]}
    for name in (name for name in dir(base) if not name.startswith("_")):
        expected, own = inspect.getattr_static(base, name), inspect.getattr_static(cls, name)
        if own is expected or _owner(base, name).__module__.partition(".")[0] not in packages:
            continue
        if isinstance(expected, property | functools.cached_property):
            if inspect.isfunction(own):
                return f"{_qualified_name(own)} must be a property: put @property above it{_place(own)}"
            continue
        if not inspect.isfunction(expected):
            continue
        if isinstance(own, property):
            return f"{cls.__module__}.{cls.__qualname__}.{name} must be a method, got a property{_place(own.fget)}"
        arguments = list(inspect.signature(expected).parameters.values())[1:]
        positional = [p.name for p in arguments if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        keywords = [p.name for p in arguments if p.kind == p.KEYWORD_ONLY]
        method = own.__func__ if isinstance(own, staticmethod | classmethod) else own
        bound = [] if isinstance(own, staticmethod) else ["self"]
        if inspect.isfunction(method) and not _takes(method, [*bound, *positional], keywords):
            return f"{_qualified_name(method)} must take {_untyped(expected)}, got {_described(method)}"
    return ""


def _owner(base: type, name: str) -> type:
    return next(owner for owner in base.__mro__ if name in vars(owner))


def _takes(function: Callable[..., Any], positional: Iterable[object], keywords: Iterable[str]) -> bool:
    try:
        signature = _signature(function)
    except ValueError:  # a built-in function that does not tell its arguments
        return True
    try:
        signature.bind(*positional, **dict.fromkeys(keywords))
    except TypeError:
        return False
    return True


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The arguments of a function; those of a decorated one where the decorator takes all that there are."""
    own = inspect.signature(function, follow_wrapped=False)
    takes_all = any(parameter.kind == parameter.VAR_POSITIONAL for parameter in own.parameters.values())
    return inspect.signature(function) if takes_all else own


def _target(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is called in the end: jsonargparse makes partial functions of its own that instantiate a class."""
    if isinstance(function, functools.partial) and function.func.__module__.startswith("jsonargparse."):
        place = next((i for i, argument in enumerate(function.args) if isinstance(argument, type)), None)
        if place is not None:
            return functools.partial(function.args[place], *function.args[place + 1 :], **function.keywords)
    return function


def _bare(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function) if inspect.isfunction(function) else function


def _qualified_name(function: Any) -> str:
    bare = _bare(function)
    name = getattr(bare, "__qualname__", type(bare).__qualname__).replace("<locals>.", "")
    module = getattr(bare, "__module__", None) or type(bare).__module__
    return name if module in ("__main__", "builtins") or "<lambda>" in name else f"{module}.{name}"


def _described(function: Any) -> str:
    """Name, arguments without their types, file and line."""
    bare = _bare(function)
    return f"{_qualified_name(bare).rpartition('.')[2]}{_untyped(bare)}{_place(bare)}"


def _untyped(function: Any) -> str:
    """The arguments of a function without their types, in parentheses."""
    signature = _signature(function)
    plain = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(plain))


def _place(function: Any) -> str:
    bare = _bare(function)
    code = getattr(getattr(bare, "__init__", None) if isinstance(bare, type) else bare, "__code__", None)
    return f" in {code.co_filename}, line {code.co_firstlineno}" if code else ""


def _with_article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
