"""Settings that a parser or a class accepts, and descriptions of their accepted values."""

import collections.abc
import inspect
import sys
import types
from argparse import Action
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
"""Keys of a class and its arguments in YAML."""


@dataclass(frozen=True)
class Setting:
    """One setting of a parser.

    Args:
        key: key including sections, such as ``model.tau``.
        kind: type of the setting.
        default: default value.
        help: help text from the docstring.
    """

    key: str
    kind: Any
    default: Any
    help: str

    @cached_property
    def alternatives(self) -> list[Any]:
        """Types of a union, or the only type."""
        return list(_alternatives(self.kind))

    @cached_property
    def bases(self) -> tuple[type, ...]:
        """Classes whose subclasses are accepted by name, also as elements of a list."""
        return tuple(dict.fromkeys(base for kind in self.alternatives for base in _base_classes(kind)))

    @cached_property
    def factory_arguments(self) -> int | None:
        """Number of arguments with which a class is called later; ``None`` if it is instantiated immediately."""
        for kind in self.alternatives:
            if get_origin(kind) is collections.abc.Callable and _base_classes(kind):
                arguments = get_args(kind)[0]
                return len(arguments) if isinstance(arguments, list) else 0
        return None

    @property
    def element(self) -> "Setting | None":
        """Setting of one element of a list, if lists are accepted."""
        elements = [kind for alternative in self.alternatives for kind in _element_types(alternative)]
        if not elements:
            return None
        return Setting(self.key, Union[tuple(elements)], None, self.help)  # noqa: UP007 — a dynamic union

    @property
    def choices(self) -> list[str]:
        """Accepted words."""
        words = [str(word) for kind in self.alternatives if get_origin(kind) is Literal for word in get_args(kind)]
        words += ["true", "false"] if bool in self.alternatives else []
        return [*words, "null"] if type(None) in self.alternatives else words

    @property
    def takes_text(self) -> bool:
        """Whether any string is accepted."""
        return str in self.alternatives or Any in self.alternatives

    @property
    def default_class(self) -> str | None:
        """Class path of the default, if the default is a class."""
        path = self.default.get("class_path") if hasattr(self.default, "get") else None
        return path if isinstance(path, str) and self.bases else None

    def describe(self) -> str:
        """Describe the accepted values."""
        kinds = list(dict.fromkeys(word for kind in self.alternatives for word in _describe_type(kind)))
        return " or ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)

    def accepts(self, value: object) -> bool:
        """Return whether a value that is not a class name has an accepted type."""
        if value in (None, "null", "~"):
            return self.default is None or type(None) in self.alternatives or Any in self.alternatives
        try:
            parser = ArgumentParser(exit_on_error=False)
            parser.add_argument("--value", type=self.kind)
        except ValueError:  # jsonargparse does not check this type
            return True
        try:
            if isinstance(value, str):
                parser.parse_args([f"--value={value}"])
            else:
                parser.parse_object({"value": value})
        except Exception:  # jsonargparse raises errors of several types
            return False
        return True


def settings_of(parser: ArgumentParser) -> dict[str, Setting]:
    """Return the settings of a parser by their keys."""
    return {
        action.dest: Setting(action.dest, kind, action.default, action.help or "")
        for action in parser._actions
        if (kind := _type_of(action)) is not None
    }


def _type_of(action: Action) -> Any:
    is_help = action.dest.endswith(".help")
    return None if is_help else getattr(action, "_typehint", None)


@cache
def settings_of_class(cls: Callable[..., Any], skipped: int = 0) -> Mapping[str, Setting]:
    """Return the settings of a class, or of a function that returns an instance, by name.

    Args:
        cls: the class or function.
        skipped: number of arguments that are passed later.
    """
    parser = ArgumentParser(exit_on_error=False)
    skip: set[str | int] = {skipped} if skipped else set()
    if isinstance(cls, type):
        parser.add_class_arguments(cls, skip=skip, fail_untyped=False)
    else:
        parser.add_function_arguments(cls, skip=skip, fail_untyped=False)
    return settings_of(parser)


def children(settings: Mapping[str, Setting], prefix: str) -> list[str]:
    """Return the names that may follow a prefix such as ``model.``, in order."""
    return list(dict.fromkeys(key[len(prefix) :].split(".")[0] for key in settings if key.startswith(prefix)))


def _alternatives(kind: Any) -> Iterator[Any]:
    if get_origin(kind) in (Union, types.UnionType):
        for one in get_args(kind):
            yield from _alternatives(one)
    elif get_origin(kind) is Annotated:
        yield from _alternatives(get_args(kind)[0])
    else:
        yield kind


def _base_classes(kind: Any) -> list[type]:
    origin = get_origin(kind)
    if origin is collections.abc.Callable:
        arguments = get_args(kind)
        return [base for one in _alternatives(arguments[1]) for base in _base_classes(one)] if arguments else []
    if origin is type:
        return []
    if elements := _element_types(kind):
        return [base for element in elements for one in _alternatives(element) for base in _base_classes(one)]
    cls = origin or kind
    return [cls] if _is_selectable(cls) else []


def _is_selectable(cls: Any) -> bool:
    """Return whether a class is selected by name, unlike numbers, strings, paths and times."""
    return inspect.isclass(cls) and cls.__module__.partition(".")[0] not in sys.stdlib_module_names


def _element_types(kind: Any) -> list[Any]:
    """Return the types of the elements of a list."""
    origin = get_origin(kind)
    if inspect.isclass(origin) and issubclass(origin, collections.abc.Iterable):
        if issubclass(origin, collections.abc.Mapping) or not origin.__module__.startswith(("builtins", "collections")):
            return []
        return [element for element in get_args(kind) if element is not Ellipsis]
    return []


_WORDS = {
    float: ["a number"],
    int: ["a whole number"],
    bool: ["true", "false"],
    str: ["a string"],
    dict: ["a mapping"],
    type(None): ["null"],
    Any: ["anything"],
}


def _describe_type(kind: Any) -> list[str]:
    origin = get_origin(kind)
    if origin is Literal:
        return [repr(word) for word in get_args(kind)]
    if elements := _element_types(kind):
        words = [word for one in elements for inner in _alternatives(one) for word in _describe_type(inner)]
        return [f"a list of {' or '.join(dict.fromkeys(map(_plural, words)))}"]
    if origin is collections.abc.Callable:
        return [_with_article(base) for base in _base_classes(kind)] or ["a function"]
    return _WORDS.get(kind) or _WORDS.get(origin) or [_with_article(origin or kind)]


def _with_article(cls: Any) -> str:
    name = getattr(cls, "__name__", str(cls))
    return f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def _plural(words: str) -> str:
    article, space, noun = words.partition(" ")
    return f"{noun}s" if space and article in ("a", "an") else words


def is_sequence(value: object) -> bool:
    """Return whether a value of a config is a list."""
    return isinstance(value, Sequence) and not isinstance(value, str)
