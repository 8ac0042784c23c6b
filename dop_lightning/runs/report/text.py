"""Format the numbers of a page."""

import math
from typing import Any

DASH = "–"


def number(value: Any, spec: str = ".4g") -> str:
    """Format a number for readers, or a dash if it is ``None``. Other values are converted to text.

    >>> number(12345.678), number(3e-7), number(0.25), number(None), number(20000), number("sigmoid")
    ('12,346', '3e-7', '0.25', '–', '20,000', 'sigmoid')
    """
    if value is None:
        return DASH
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    if spec == ".4g" and 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    mantissa, exponent, power = format(value, spec).partition("e")
    return mantissa + (f"e{int(power)}" if exponent else "")


def counted(problems: int) -> str:
    """Format a number of problems.

    >>> counted(1), counted(1200)
    ('1 problem', '1,200 problems')
    """
    return f"{problems:,} problem{'' if problems == 1 else 's'}"


SPECS = {"psnr": ".2f", "input_psnr": ".2f", "best_psnr": ".2f", "ssim": ".3f"}
"""Formats of scores; others have three significant digits."""

FRACTION_TAGS = {"corruption_density", "true_density", "support_precision", "support_recall"}


def score(key: str, value: float) -> str:
    """Format a score with its unit, by its key.

    >>> score("psnr", 34.387), score("corruption_density", 0.3969), score("relative_error", 0.041071)
    ('34.39 dB', '39.7%', '0.0411')
    """
    if key in FRACTION_TAGS:
        return f"{value:.1%}"
    return number(value, SPECS.get(key, ".3g")) + (" dB" if key.endswith("psnr") else "")


def seconds(value: float) -> str:
    """Format a duration.

    >>> seconds(0.213), seconds(12.34), seconds(75), seconds(7325)
    ('0.213 s', '12.3 s', '1 min 15 s', '2 h 2 min')
    """
    if value < 60:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
