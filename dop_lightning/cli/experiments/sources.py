"""Sources of the settings of a run, in the order in which they are applied: config files and options."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FLAGS_WITHOUT_VALUE = ("--print_config", "--help", "-h")
"""Options without a value."""


@dataclass(frozen=True)
class Source:
    """Settings that are applied together.

    Args:
        name: the file, or the option as typed.
        tree: the settings, nested as in YAML.
        is_file: whether the source is a file.
    """

    name: str
    tree: dict[str, Any]
    is_file: bool

    @property
    def classes(self) -> Iterator[tuple[str, str]]:
        """Selected classes, with the plain keys of their settings; may include other strings."""
        return _strings(self.tree, "")

    def show(self, key: str) -> str:
        """Return a key as written in this source: ``model.tau`` or ``--model.tau``."""
        return key if self.is_file else f"--{key}"

    def begin(self) -> str:
        """Return the start of a message: the name of the file, empty for options."""
        return f"{self.name}: " if self.is_file else ""


def sources(arguments: Sequence[str]) -> Iterator[Source]:
    """Yield the config files and the options of a command line, in order."""
    for option, value in options(arguments):
        if option in ("-c", "--config") and value:
            content = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            if isinstance(content, dict):
                yield Source(value, content, True)
        elif option.startswith("--") and option not in (*FLAGS_WITHOUT_VALUE, "--config"):
            yield Source(option, _nest(option.removeprefix("--"), _parse_structure(value)), False)


def options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield options with their values, and skip words that belong to no option.

    >>> list(options(["-c", "a.yaml", "--model.tau=3", "--print_config", "--data", "X"]))
    [('-c', 'a.yaml'), ('--model.tau', '3'), ('--print_config', ''), ('--data', 'X')]
    """
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            continue
        option, equals, value = word.partition("=")
        if not equals and option not in FLAGS_WITHOUT_VALUE and words and not words[0].startswith("--"):
            value = words.pop(0)
        yield option, value


def plain_key(key: str) -> str:
    """Return the key of a setting without ``init_args`` and ``dict_kwargs``.

    >>> plain_key("data.init_args.noise.init_args.ratio")
    'data.noise.ratio'
    """
    return ".".join(part for part in key.split(".") if part not in ("init_args", "dict_kwargs"))


def _strings(tree: Mapping[Any, Any], key: str) -> Iterator[tuple[str, str]]:
    for word, value in tree.items():
        inner = key if word in ("init_args", "class_path") else f"{key}.{word}" if key else str(word)
        if isinstance(value, Mapping):
            yield from _strings(value, inner)
        elif isinstance(value, str) and (word == "class_path" or "class_path" not in tree):
            yield inner, value


def _parse_structure(value: str) -> Any:
    """Parse a mapping or a list; other values stay strings."""
    if value.lstrip()[:1] in ("{", "["):
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value
    return value


def _nest(key: str, value: Any) -> dict[str, Any]:
    """Convert ``a.b`` to ``{a: {b: …}}``."""
    first, dot, rest = key.partition(".")
    return {first: _nest(rest, value) if dot else value}
