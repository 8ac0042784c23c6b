"""Axes of a sweep: settings and their values."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

CONFIG = "config"
"""Axis of config files. Use it to vary the method."""

NO_CONFIG = "none"
"""Value of the axis ``config`` that adds no file."""

SWEEP_SETTINGS = {
    "trainer.default_root_dir": "each point has a separate folder in --out",
    "ckpt_path": "each point resumes from its folder",
}
"""Settings of ``dop fit`` that the sweep sets itself, with the reasons."""

_PAIRS = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True)
class Axis:
    """A setting and its values.

    Attributes:
        key: setting as in ``dop fit``, such as ``model.alpha``; or ``config``.
        values: values, as typed.
    """

    key: str
    values: tuple[str, ...]


def parse_axis(text: str) -> Axis:
    """Parse an axis ``KEY=V1,V2,…``.

    Raises:
        ValueError: the key or a value is missing, a value occurs twice, or the key is set by the sweep itself.
    >>> parse_axis("model.tau=[1.0e-3, 2.0e-3],auto")
    Axis(key='model.tau', values=('[1.0e-3, 2.0e-3]', 'auto'))
    """
    key, equals, rest = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", key):
        raise ValueError(f"axis must be KEY=V1,V2,… with a setting such as model.alpha as KEY, got {text!r}")
    check_key(key)
    values = tuple(split_values(rest, text))
    if "" in values:
        raise ValueError(f"axis {key} must have values between its commas, got {text!r}")
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"axis {key} must have each value once, got {twice[0]!r} twice")
    return Axis(key, values)


def check_key(key: str) -> None:
    """Refuse a setting that the sweep sets itself.

    Raises:
        ValueError: the sweep sets ``key``.
    """
    if key in SWEEP_SETTINGS:
        raise ValueError(f"{key} cannot be set in a sweep: {SWEEP_SETTINGS[key]}")


def split_values(text: str, whole: str) -> list[str]:
    """Split text at commas outside brackets, braces and quotes.

    Args:
        text: the values.
        whole: text for the error message.

    Raises:
        ValueError: brackets, braces or quotes are unbalanced.
    >>> split_values('1,[2,3],{a: 4,b: 5},"6,7"', "…")
    ['1', '[2,3]', '{a: 4,b: 5}', '"6,7"']
    """
    values, open_, start = [], "", 0
    for place, character in enumerate(text):
        quoted = open_[-1:] in ("'", '"')
        if quoted or character in "'\"":
            open_ = open_[:-1] if open_[-1:] == character else open_ if quoted else open_ + character
        elif character in _PAIRS:
            open_ += _PAIRS[character]
        elif character in _PAIRS.values():
            if open_[-1:] != character:
                raise ValueError(f"axis must have balanced brackets, got {whole!r}")
            open_ = open_[:-1]
        elif character == "," and not open_:
            values.append(text[start:place].strip())
            start = place + 1
    if open_:
        raise ValueError(f"axis must close its brackets and quotes, got {whole!r}")
    return [*values, text[start:].strip()]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return for each key its last part, or as many parts as are necessary to make it unique.

    >>> short_names(["model.alpha", "model.signal.init_args.scale", "model.corruption.init_args.scale"])
    {'model.alpha': 'alpha', 'model.signal.init_args.scale': 'signal.scale', 'model.corruption.init_args.scale': \
'corruption.scale'}
    """
    parts = {key: [part for part in key.split(".") if part != "init_args"] for key in dict.fromkeys(keys)}
    names = {}
    for key, own in parts.items():
        others = [other for name, other in parts.items() if name != key]
        tails = (".".join(own[-n:]) for n in range(1, len(own) + 1) if all(own[-n:] != other[-n:] for other in others))
        names[key] = next(tails, key)
    return names
