"""The axes of a sweep: which settings vary, and over which values."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

CONFIG = "config"
"""The axis of config files, which is how a method varies."""

NO_CONFIG = "none"
"""The value of that axis that adds no file."""

OF_THE_SWEEP = {
    "trainer.default_root_dir": "each point has a folder of its own in --out",
    "ckpt_path": "each point goes on from what its folder holds",
}
"""Settings of ``dop fit`` that a sweep makes itself, and why."""

_PAIRS = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True)
class Axis:
    """A setting, and the values that it takes.

    Attributes:
        key: the setting as ``dop fit`` names it, ``model.alpha``; or ``config``.
        values: as they were typed.
    """

    key: str
    values: tuple[str, ...]


def parse_axis(text: str) -> Axis:
    """An axis, out of ``KEY=V1,V2,…``.

    Raises:
        ValueError: there is no key, no value, an empty one or the same one twice; the key is the sweep's own.

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
    """Refuse a setting that a sweep makes itself.

    Raises:
        ValueError: it is one.
    """
    if key in OF_THE_SWEEP:
        raise ValueError(f"{key} is not for a sweep: {OF_THE_SWEEP[key]}")


def split_values(text: str, whole: str) -> list[str]:
    """Split at the commas that lie outside of brackets, braces and quotes.

    Args:
        text: the values.
        whole: what the error shows.

    Raises:
        ValueError: a bracket, brace or quote is not closed, or none is open.

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
                raise ValueError(f"axis must have its brackets in pairs, got {whole!r}")
            open_ = open_[:-1]
        elif character == "," and not open_:
            values.append(text[start:place].strip())
            start = place + 1
    if open_:
        raise ValueError(f"axis must close its brackets and quotes, got {whole!r}")
    return [*values, text[start:].strip()]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """For each key its last part, or as many as it takes to tell it from the others.

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
