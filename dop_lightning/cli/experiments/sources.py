"""Where the settings of a run come from, in the order in which they are applied: config files and options."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

VALUELESS = ("--print_config", "--help", "-h")
"""Options that take no value of their own."""


@dataclass(frozen=True)
class Source:
    """Settings that are applied together.

    Args:
        name: the file, or the option as it was typed.
        tree: the settings, nested as in YAML.
        is_file: whether they come from a file.
    """

    name: str
    tree: dict[str, Any]
    is_file: bool

    @property
    def classes(self) -> Iterator[tuple[str, str]]:
        """The classes that are chosen, with the plain keys of their settings; other texts may be among them."""
        return _texts(self.tree, "")

    def show(self, key: str) -> str:
        """Return a setting as it is written here, ``model.tau`` or ``--model.tau``."""
        return key if self.is_file else f"--{key}"

    def begin(self) -> str:
        """Return the start of a message: the file."""
        return f"{self.name}: " if self.is_file else ""


def sources(arguments: Sequence[str]) -> Iterator[Source]:
    """Yield the config files and the options of a command line, in order."""
    for option, value in options(arguments):
        if option in ("-c", "--config") and value:
            content = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            if isinstance(content, dict):
                yield Source(value, content, True)
        elif option.startswith("--") and option not in (*VALUELESS, "--config"):
            yield Source(option, _nested(option.removeprefix("--"), _structured(value)), False)


def options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield options with their values, and leave out words that belong to none.

    >>> list(options(["-c", "a.yaml", "--model.tau=3", "--print_config", "--data", "X"]))
    [('-c', 'a.yaml'), ('--model.tau', '3'), ('--print_config', ''), ('--data', 'X')]
    """
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            continue
        option, equals, value = word.partition("=")
        if not equals and option not in VALUELESS and words and not words[0].startswith("--"):
            value = words.pop(0)
        yield option, value


def plain_key(key: str) -> str:
    """Return the key of a setting, however it was written.

    >>> plain_key("data.init_args.noise.init_args.ratio")
    'data.noise.ratio'
    """
    return ".".join(part for part in key.split(".") if part not in ("init_args", "dict_kwargs"))


def _texts(tree: Mapping[Any, Any], key: str) -> Iterator[tuple[str, str]]:
    for word, value in tree.items():
        inner = key if word in ("init_args", "class_path") else f"{key}.{word}" if key else str(word)
        if isinstance(value, Mapping):
            yield from _texts(value, inner)
        elif isinstance(value, str) and (word == "class_path" or "class_path" not in tree):
            yield inner, value


def _structured(value: str) -> Any:
    """A mapping or a list that was typed; anything else stays a text."""
    if value.lstrip()[:1] in ("{", "["):
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value
    return value


def _nested(key: str, value: Any) -> dict[str, Any]:
    """``a.b`` as ``{a: {b: …}}``."""
    first, dot, rest = key.partition(".")
    return {first: _nested(rest, value) if dot else value}
