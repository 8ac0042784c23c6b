"""Argument checks, which raise ``ValueError`` with the name of the argument, its value and the allowed values."""

import math
from collections.abc import Iterable
from numbers import Integral, Real

from dop_lightning.foundation.nearest import did_you_mean


def positive(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number above zero.

    >>> positive("alpha", 0.0)
    Traceback (most recent call last):
    ValueError: alpha must be a finite number above 0, got 0.0
    """
    if isinstance(value, bool) or not (isinstance(value, Real) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return value


def not_negative(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number ≥ 0."""
    if isinstance(value, bool) or not (isinstance(value, Real) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
    return value


def share(name: str, value: float) -> float:
    """Return ``value`` if it is in [0, 1].

    >>> share("ratio", 1.5)
    Traceback (most recent call last):
    ValueError: ratio must lie between 0 and 1, got 1.5
    """
    if not (isinstance(value, Real) and 0 <= value <= 1):
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    return value


def fraction(name: str, value: float) -> float:
    """Return ``value`` if it is in [0, 1).

    >>> fraction("average", 1.0)
    Traceback (most recent call last):
    ValueError: average must be at least 0 and below 1, got 1.0
    """
    if isinstance(value, bool) or not (isinstance(value, Real) and 0 <= value < 1):
        raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}")
    return value


def at_least(name: str, value: int, minimum: int) -> int:
    """Return ``value`` if it is an integer ≥ ``minimum``.

    >>> at_least("rank", 0, 1)
    Traceback (most recent call last):
    ValueError: rank must be a whole number of at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    return value


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``allowed``.

    >>> one_of("channels", "blue", ["grey", "rgb"])
    Traceback (most recent call last):
    ValueError: channels must be one of grey, rgb, got 'blue'
    >>> one_of("channels", "gray", ["grey", "rgb"])
    Traceback (most recent call last):
    ValueError: channels must be one of grey, rgb, got 'gray'; did you mean 'grey'?
    """
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}{did_you_mean(value, allowed)}")
    return value
