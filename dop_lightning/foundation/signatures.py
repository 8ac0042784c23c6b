"""Check that user-defined functions and methods accept the arguments with which they are called.

Parts are checked when they are passed in, before anything is computed. Errors raised inside a part keep their
traceback.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = __name__.partition(".")[0]


def require_arguments(name: str, function: Callable[..., Any], arguments: Sequence[str], what: str = "") -> None:
    """Check that a function can be called with the given positional arguments.

    Args:
        name: name of the argument through which the function was passed.
        function: any callable. Built-in functions without a signature are not checked.
        arguments: names of the positional arguments, for the error message.
        what: the required return value, such as ``a Signal``, for the error message.

    Raises:
        ValueError: the function cannot be called with these arguments.

    >>> require_arguments("signal", lambda: None, ["problems"], "a Signal")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: signal must be a function of (problems) that returns a Signal, got <lambda>() in ..., line 1
    """
    if not callable(function):
        raise ValueError(f"{name} must be a function of ({', '.join(arguments)}), got {function!r}")
    target = _target(function)
    if _accepts(target, arguments, ()):
        return
    bare: Any = _unwrap(target)
    if inspect.isclass(bare):
        wanted = ", ".join(["self", *arguments])
        made = _qualified_name(bare)
        raise ValueError(f"{name}: {made}.__init__ must take ({wanted}), got {_describe(bare.__init__)}")
    returns = f" that returns {what}" if what else ""
    raise ValueError(f"{name} must be a function of ({', '.join(arguments)}){returns}, got {_describe(target)}")


def require_part(name: str, part: object, base: type) -> None:
    """Check the class of a part, and that its methods accept the arguments of the methods that they override.

    Args:
        name: name of the argument through which the part was passed.
        part: an instance of a subclass of ``base``.
        base: a class of this package or of Lightning. Methods that it inherits from other packages are not checked.

    Raises:
        ValueError: the part is not an instance of ``base``, a method takes other arguments, or a method replaces a
            property or vice versa.
    """
    if not isinstance(part, base):
        raise ValueError(f"{name} must be {_with_article(base.__name__)}, got {part!r}")
    cls: Any = type(part)
    problem = _describe_wrong_method(cls, base)
    if problem:
        raise ValueError(problem)


def create_part(factory: Callable[..., T], kind: type, *arguments: object) -> T:
    """Call a user-defined factory, and return the part that it creates.

    Args:
        factory: function that creates the part, already checked by :func:`require_arguments`.
        kind: the base class of the part.
        arguments: arguments of the factory.

    Raises:
        ValueError: the result is not an instance of ``kind``, or its methods take other arguments than those of
            ``kind``.
    """
    part = require_result(factory(*arguments), kind, factory)
    require_part(kind.__name__, part, kind)
    return part


def require_result(result: T, kind: type, function: Callable[..., Any]) -> T:
    """Return the result of a user-defined function if it is an instance of a class.

    Args:
        result: the result.
        kind: the required class.
        function: the function that returned it, for the error message.

    Raises:
        ValueError: the result is not an instance of ``kind``.
    """
    if isinstance(result, kind):
        return result
    got = "None" if result is None else _with_article(type(result).__name__)
    target = _target(function)
    raise ValueError(
        f"{_qualified_name(target)} must return {_with_article(kind.__name__)}, got {got}{_location(target)}"
    )


@functools.cache
def _describe_wrong_method(cls: Any, base: Any) -> str:
    """Return a description of the first wrong method of a subclass, or an empty string if all are correct."""
    packages = {ROOT, base.__module__.partition(".")[0]}
    for name in (name for name in dir(base) if not name.startswith("_")):
        expected, own = inspect.getattr_static(base, name), inspect.getattr_static(cls, name)
        if own is expected or _owner(base, name).__module__.partition(".")[0] not in packages:
            continue
        if isinstance(expected, property | functools.cached_property):
            if inspect.isfunction(own):
                return f"{_qualified_name(own)} must be a property, add @property{_location(own)}"
            continue
        if not inspect.isfunction(expected):
            continue
        if isinstance(own, property):
            return f"{cls.__module__}.{cls.__qualname__}.{name} must be a method, got a property{_location(own.fget)}"
        arguments = list(inspect.signature(expected).parameters.values())[1:]
        positional = [p.name for p in arguments if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        keywords = [p.name for p in arguments if p.kind == p.KEYWORD_ONLY]
        method = own.__func__ if isinstance(own, staticmethod | classmethod) else own
        bound = [] if isinstance(own, staticmethod) else ["self"]
        if inspect.isfunction(method) and not _accepts(method, [*bound, *positional], keywords):
            return f"{_qualified_name(method)} must take {_format_arguments(expected)}, got {_describe(method)}"
    return ""


def _owner(base: type, name: str) -> type:
    return next(owner for owner in base.__mro__ if name in vars(owner))


def _accepts(function: Callable[..., Any], positional: Iterable[object], keywords: Iterable[str]) -> bool:
    try:
        signature = _signature(function)
    except ValueError:  # a built-in function without a signature
        return True
    try:
        signature.bind(*positional, **dict.fromkeys(keywords))
    except TypeError:
        return False
    return True


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function, or of the decorated one if the decorator takes ``*args``."""
    own = inspect.signature(function, follow_wrapped=False)
    takes_all = any(parameter.kind == parameter.VAR_POSITIONAL for parameter in own.parameters.values())
    return inspect.signature(function) if takes_all else own


def _target(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function or class that is eventually called: jsonargparse wraps classes in its own partials."""
    if isinstance(function, functools.partial) and function.func.__module__.startswith("jsonargparse."):
        place = next((i for i, argument in enumerate(function.args) if isinstance(argument, type)), None)
        if place is not None:
            return functools.partial(function.args[place], *function.args[place + 1 :], **function.keywords)
    return function


def _unwrap(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function) if inspect.isfunction(function) else function


def _qualified_name(function: Any) -> str:
    bare = _unwrap(function)
    name = getattr(bare, "__qualname__", type(bare).__qualname__).replace("<locals>.", "")
    module = getattr(bare, "__module__", None) or type(bare).__module__
    return name if module in ("__main__", "builtins") or "<lambda>" in name else f"{module}.{name}"


def _describe(function: Any) -> str:
    """Return the name of a function, its arguments without types, its file and line."""
    bare = _unwrap(function)
    return f"{_qualified_name(bare).rpartition('.')[2]}{_format_arguments(bare)}{_location(bare)}"


def _format_arguments(function: Any) -> str:
    """Return the arguments of a function in parentheses, without types."""
    signature = _signature(function)
    plain = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(plain))


def _location(function: Any) -> str:
    bare = _unwrap(function)
    code = getattr(getattr(bare, "__init__", None) if isinstance(bare, type) else bare, "__code__", None)
    return f" in {code.co_filename}, line {code.co_firstlineno}" if code else ""


def _with_article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
