"""Format and parse durations and amounts of memory."""

import math
import re


def format_duration(seconds: float) -> str:
    """Format an estimated duration, with few significant digits.

    >>> [format_duration(s) for s in (3, 75, 200, 5000, 400000)]
    ['a few seconds', 'about 1 minute', 'about 3 minutes', 'about 1.4 hours', 'about 4.6 days']
    """
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"about {max(10, 5 * round(seconds / 5))} seconds"
    unit, length = next((unit, length) for unit, length, limit in _UNITS if seconds < limit)
    count = seconds / length
    shown = f"{count:.0f}" if unit == "minute" or count >= 8 else f"{count:.1f}".removesuffix(".0")
    return f"about {shown} {unit}{'' if shown == '1' else 's'}"


_UNITS = (("minute", 60, 55 * 60), ("hour", 3600, 40 * 3600), ("day", 24 * 3600, math.inf))


def format_bytes(size: float) -> str:
    """Format an amount of memory.

    >>> format_bytes(3 * 2**30), format_bytes(500 * 2**20)
    ('3 GiB', '500 MiB')
    """
    for unit, length in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= length or unit == "MiB":
            return f"{size / length:.3g} {unit}" if size < 999 * length else f"{size / length:.0f} {unit}"
    raise AssertionError


def parse_bytes(text: str, name: str = "max-memory") -> int:
    """Parse an amount of memory. The default unit is GiB.

    Args:
        text: the amount, such as ``8G`` or ``500 MiB``.
        name: name of the setting, for the error message.

    Raises:
        ValueError: the text is not an amount of memory, or not positive.

    >>> parse_bytes("8G") == parse_bytes("8 GiB") == parse_bytes("8") == 8 * 2**30
    True
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?:([kmgt])i?b?)?\s*", text, re.IGNORECASE)
    size = float(match[1]) * 1024 ** (1 + "kmgt".index((match[2] or "g").lower())) if match else 0.0
    if not 0 < size < 2**60:
        raise ValueError(f"{name} must be a positive amount such as 8G or 500M, got {text!r}")
    return round(size)
