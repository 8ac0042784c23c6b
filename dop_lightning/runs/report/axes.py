"""Axes of a chart: map values to positions, and choose ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        low: value at ``start``.
        high: value at ``end``, greater than ``low``.
        start: position of ``low``, in the units of the drawing.
        end: position of ``high``.
        log: whether the axis is logarithmic; its values are then positive.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        low, high, at = (
            (math.log10(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """A few round values within the axis."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def fitted(values: Sequence[float], start: float, end: float, log: bool = False, from_zero: bool = False) -> Axis:
    """Return an axis that contains all values, with a small margin at both ends.

    Args:
        values: at least one value, all finite, and positive if ``log``.
        start: see :class:`Axis`.
        end: see :class:`Axis`.
        log: see :class:`Axis`.
        from_zero: whether a linear axis begins at 0, for non-negative values.
    """
    low, high = min(values), max(values)
    if log:
        # a wider range for nearly equal values, whose tick labels would otherwise need many digits
        room = max((high / low) ** 0.04, 1.05) if high > 2 * low else 3.0
        return Axis(low / room, high * room, start, end, log=True)
    if from_zero:
        return Axis(0.0, high * 1.04 or 1.0, start, end)
    room = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    return Axis(low - room, high + room, start, end)


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most ``most`` multiples of 1, 2 or 5 times a power of ten.

    >>> linear_ticks(0, 3000), linear_ticks(-0.3, 0.9)
    ([0.0, 1000.0, 2000.0, 3000.0], [0.0, 0.5])
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return powers of ten, thinned out if there are many; if there are few, also their multiples by 2 and 5.

    >>> log_ticks(0.02, 0.9), log_ticks(1e-9, 1)
    ([0.02, 0.05, 0.1, 0.2, 0.5], [1e-08, 1e-06, 0.0001, 0.01, 1.0])
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first + 1 >= 3:
        every = math.ceil((last - first + 1) / most)
        return [float(f"1e{power}") for power in range(first, last + 1) if power % every == 0]
    fine = [float(f"{factor}e{power}") for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
    inside = [value for value in fine if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return inside if len(inside) > 1 else linear_ticks(low, high)


def tick_label(value: float, log: bool = False) -> str:
    """Format the label of a tick compactly.

    >>> tick_label(0.0), tick_label(150000), tick_label(0.05), tick_label(1e-5, log=True), tick_label(5e-4, log=True)
    ('0', '150k', '0.05', '10⁻⁵', '5·10⁻⁴')
    """
    if 0 < abs(value) < 1e-3 or (log and not 1e-2 <= value <= 1e3):
        factor, _, power = f"{value:.3e}".partition("e")
        times = {1.0: "", -1.0: "−"}.get(float(factor), f"{float(factor):g}·".replace("-", "−"))
        return f"{times}10" + str(int(power)).translate(SUPERSCRIPTS)
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.4g}k"
    return f"{value:.4g}".replace("-", "−")
