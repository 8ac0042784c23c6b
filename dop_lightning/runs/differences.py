"""Describe the differences between the settings of a run and the given ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_SHOWN = 3
"""Maximum number of differences or names in a message."""

_LONGEST = 60
"""Maximum length of a value in a message, in characters."""

_ARGUMENTS = "init_args"


@dataclass(frozen=True)
class Difference:
    """A setting that differs.

    Attributes:
        key: name on the command line, such as ``model.signal.rank``.
        saved: value in the run; ``None`` if it has none.
        given: value now.
    """

    key: str
    saved: Any
    given: Any

    def __str__(self) -> str:
        saved, given = self.saved, self.given
        if _is_class(saved) and _is_class(given) and saved["class_path"] != given["class_path"]:
            saved, given = saved["class_path"], given["class_path"]
        return f"{self.key}: {show(saved)} in the run, {show(given)} given"


def differences(saved: Any, given: Any, key: str = "") -> Iterator[Difference]:
    """Yield the settings that differ, in the order of the config.

    Args:
        saved: settings of the run.
        given: settings now.
        key: prefix of the keys.

    >>> [str(each) for each in differences({"tau": 0.1, "alpha": None}, {"tau": 0.1, "alpha": 3.0}, "model")]
    ['model.alpha: null in the run, 3.0 given']
    """
    are_settings = isinstance(saved, Mapping) and isinstance(given, Mapping)
    if not are_settings or saved.get("class_path") != given.get("class_path"):
        if saved != given:
            yield Difference(key, saved, given)
        return
    for name in dict.fromkeys([*given, *saved]):
        inner = key if name == _ARGUMENTS else f"{key}.{name}".lstrip(".")
        empty: Any = {} if name == _ARGUMENTS else None
        yield from differences(saved.get(name, empty), given.get(name, empty), inner)


def listed(words: Sequence[object]) -> str:
    """Return the first few words, and the number of the others.

    >>> listed(["a", "b"]), listed(list("abcde"))
    ('a, b', 'a, b, c and 2 more')
    """
    text = ", ".join(str(word) for word in words[:MAX_SHOWN])
    return text if len(words) <= MAX_SHOWN else f"{text} and {len(words) - MAX_SHOWN} more"


def show(value: Any) -> str:
    """Format a value for a message.

    >>> show({"class_path": "SaltAndPepper", "init_args": {"ratio": 0.5}}), show(None), show(["a", 2])
    ('SaltAndPepper(ratio=0.5)', 'null', '[a, 2]')
    """
    text = _text(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if _is_class(value):
        arguments = value.get(_ARGUMENTS) or {}
        inner = ", ".join(f"{key}={_text(each)}" for key, each in arguments.items() if each is not None)
        return f"{value['class_path']}({inner})" if inner else str(value["class_path"])
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_text(each)}' for key, each in value.items())}}}"
    return str(value)


def _is_class(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_path" in value
