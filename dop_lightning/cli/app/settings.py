"""Settings of a job as sent by the page, and their conversion to options of the command line."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dop_lightning.cli.options import METHODS

Kind = Literal["recover", "separate"]
Value = str | int | float | bool

DAMAGE = ("scratches", "rectangles", "dust", "text")
"""Kinds of damage that can be joined by ``+``; see :mod:`dop_lightning.engine.steps.clean_entries.damage`."""


@dataclass(frozen=True)
class Choice:
    """A setting with a fixed set of values.

    Attributes:
        default: default of the command line; the option is omitted for it.
        values: allowed values.
    """

    default: str
    values: tuple[str, ...]

    def check(self, name: str, value: object) -> str:
        """Return the value.

        Raises:
            ValueError: the value is not allowed.
        """
        if not isinstance(value, str) or value not in self.values:
            raise ValueError(f"{name} must be one of {', '.join(self.values)}, got {value!r}")
        return value


@dataclass(frozen=True)
class Damage:
    """The kinds of damage in addition to isolated values."""

    default: str = "auto"

    def check(self, name: str, value: object) -> str:
        """Return the value.

        Raises:
            ValueError: the value contains an unknown kind, or a kind twice.
        """
        kinds = value.split("+") if isinstance(value, str) else []
        if value in ("auto", "points", "lines") or (
            kinds and len(set(kinds)) == len(kinds) and set(kinds) <= {*DAMAGE}
        ):
            return str(value)
        raise ValueError(
            f"{name} must be auto, points, lines, or some of {', '.join(DAMAGE)} joined by +, got {value!r}"
        )


@dataclass(frozen=True)
class Number:
    """A number.

    Attributes:
        whole: whether it is an integer.
        default: default of the command line; ``None`` if it depends on the preset.
    """

    whole: bool
    default: int | None = None

    def check(self, name: str, value: object) -> int | float:
        """Return the value; the command checks its range.

        Raises:
            ValueError: the value is not a number, or not an integer if ``whole``.
        """
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or (self.whole and not float(str(value)).is_integer()):
            raise ValueError(f"{name} must be a {'whole ' if self.whole else ''}number, got {value!r}")
        return int(str(value).removesuffix(".0")) if self.whole else float(str(value))


@dataclass(frozen=True)
class Flag:
    """An option without a value."""

    default: bool = False

    def check(self, name: str, value: object) -> bool:
        """Return the value.

        Raises:
            ValueError: the value is not a boolean.
        """
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
        return value


SETTINGS: dict[Kind, dict[str, Choice | Damage | Number | Flag]] = {
    "recover": {
        "preset": Choice("default", ("instant", "quick", "default", "best")),
        "damage": Damage(),
        "per": Choice("auto", ("auto", "entry", "pixel")),
        "outliers": Choice("auto", ("auto", "both", "positive", "negative")),
        "dense": Choice("auto", ("auto", "keep", "remove")),
        "iterations": Number(whole=True),
        "alpha": Number(whole=False),
        "width": Number(whole=True),
        "seed": Number(whole=True, default=0),
    },
    "separate": {
        "method": Choice("auto", METHODS),
        "rank": Number(whole=True),
        "alpha": Number(whole=False),
        "iterations": Number(whole=True, default=500),
        "seed": Number(whole=True, default=0),
        "grey": Flag(),
    },
}
"""Settings of each kind of job by the name of their option."""


def checked_settings(kind: Kind, given: object) -> dict[str, Value]:
    """Return the settings of a job that differ from the defaults of the command line.

    Args:
        kind: kind of the job.
        given: values by name; ``None`` is the default.

    Raises:
        ValueError: a setting is unknown, or a value is not allowed.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"settings must be an object of names and values, got {given!r}")
    known = SETTINGS[kind]
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"settings of dop {kind} must not include {unknown[0]!r}; available: {', '.join(known)}")
    values = {name: known[name].check(name, given[name]) for name in known if given.get(name) is not None}
    return {name: value for name, value in values.items() if value != known[name].default}


def options(settings: Mapping[str, Any]) -> list[str]:
    """Convert settings to arguments of the command line.

    >>> options({"preset": "quick", "grey": True, "alpha": 2.5})
    ['--preset', 'quick', '--grey', '--alpha', '2.5']
    """
    found: list[str] = []
    for name, value in settings.items():
        found += [f"--{name}"] if value is True else [] if value is False else [f"--{name}", str(value)]
    return found
