"""Which values of a file are black and white: what its number format says, or else its samples without outliers.

Shapes: H × W pixels, C channels.
"""

import math
from collections.abc import Sequence

import numpy as np

from dop_lightning.images.formats.raster import Raster, Unsuitable
from dop_lightning.images.formats.stretch import Stretch

_SIDE = 5
_MIDDLE = _SIDE * _SIDE // 2
_WINDOWS_AT_ONCE = 1 << 16

_MANY = 0.01
"""The share of the pixels that a value has to have to be salt or pepper, rather than a highlight."""

_FEW = 4
"""So many pixels are not many, however small the image."""

FINEST = 2.0**-24
"""The resolution of shares of a range, which are float32."""

_FULL = 0.2
"""Scattered values fill fewer windows than this share of the pixels that have them: even of 35 % salt, 6 %."""


def value_range(raster: Raster) -> tuple[float, float]:
    """Find the values lo and hi of an image that become 0 and 1.

    Up to 8 bits, and for the colours of a palette, they are 0 and the largest value: 1, 3, 15, 255. Else let a and b
    be the least and the largest of the observed values after a 5×5 median filter of each channel, so that single
    outliers do not count; missing values are the median of their channel there.

    - Unsigned integers of up to 16 bits: 0 and the smallest 2ᵏ − 1, k = 8 … 16, that is at least b, as sensors have
      10, 12 or 14 bits.
    - Floating point: 0 and 1 where all observed values lie in [0, 1] and b > 0.5.
    - Else a − 0.1·(b − a) and b + 0.1·(b − a), within the least and the largest observed value. Where these are equal,
      a ∓ 0.5·|a|, or ∓ 0.5 for a = 0.

    The filter alone sees salt and pepper of up to about a tenth of the pixels as outliers. The least and the largest
    value of a channel are therefore left out before, where many pixels have them but few neighbourhoods are full of
    them, unlike in a white background: what is left of each row is filtered then. Where more than half of a window is
    off by other values the range gets too wide, which does no harm but to contrast.

    Args:
        raster: the image, with at least one observed value.

    Raises:
        Unsuitable: the values spread further than floating point holds.
    """
    kind, limits = raster.samples.dtype.kind, raster.limits
    if raster.palette is not None or (kind in "bu" and limits[1] <= 255):
        return 0.0, float(limits[1])
    least, low, high, largest = _extremes(raster.samples, raster.observed())
    if kind == "u" and raster.bits <= 16:
        return 0.0, float(2 ** max(8, int(high).bit_length()) - 1)
    if kind == "f" and least >= 0 and largest <= 1 and high > 0.5:
        return 0.0, 1.0
    margin = 0.1 * (high - low)
    lo, hi = max(least, low - margin), min(largest, high + margin)
    if lo >= hi:
        width = abs(low) or 1.0
        lo, hi = low - 0.5 * width, low + 0.5 * width
    if not math.isfinite(hi - lo) or lo >= hi:
        raise Unsuitable(f"the values must spread over a finite range, got {least:g} … {largest:g}; rescale them first")
    return lo, hi


def checked_range(value: Sequence[float]) -> tuple[float, float]:
    """Return ``value`` as (lo, hi) if it is two finite numbers in this order.

    >>> checked_range((1.0, 0.0))
    Traceback (most recent call last):
    ValueError: value_range must be two finite numbers, the first below the second, got (1.0, 0.0)
    """
    if isinstance(value, Stretch):
        return value
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    good = all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
    if not (good and len(numbers) == 2 and numbers[0] < numbers[1] and math.isfinite(float(numbers[1] - numbers[0]))):
        raise ValueError(f"value_range must be two finite numbers, the first below the second, got {value!r}")
    return float(numbers[0]), float(numbers[1])


def check_resolution(raster: Raster, value_range: tuple[float, float]) -> None:
    """Refuse integers of 64 bits that double precision merges, such as 2⁶⁰ + 1 and 2⁶⁰ + 2.

    Args:
        raster: the image.
        value_range: the values that become 0 and 1.

    Raises:
        Unsuitable: neighbouring numbers of double precision differ by more than 2⁻²⁴ of the range.
    """
    samples = raster.samples
    if samples.dtype.kind not in "iu" or samples.dtype.itemsize < 8:
        return
    low, high = value_range
    step = float(np.spacing(max(abs(low), abs(high))))
    if step > 1 and step > FINEST * (high - low):
        raise Unsuitable(
            f"integers beyond ±2**53 must differ by more than double precision resolves, which is {step:g} here, got "
            f"values from {low:.17g} to {high:.17g}; subtract an offset first"
        )


def _extremes(samples: np.ndarray, observed: np.ndarray | None) -> tuple[float, float, float, float]:
    """The least value, the least and the largest after the filter, and the largest; of all channels together."""
    found = []
    for k in range(samples.shape[2]):
        channel = samples[..., k]
        here = None if observed is None else observed[..., k]
        if here is not None and not here.any():
            continue
        values = channel if here is None else channel[here]
        if here is not None and len(values) < channel.size:
            middle = np.partition(values, len(values) // 2)[len(values) // 2]
            channel = np.where(here, channel, middle)
        channel, here = _without_scattered(channel, here, (values.min(), values.max()))
        # The largest of the negated is the least; in float64, since the least integer has no negative of its kind.
        filtered = _largest_median(channel, here), -_largest_median(-channel.astype(np.float64), here)
        found.append((float(values.min()), float(filtered[1]), float(filtered[0]), float(values.max())))
    least, low, high, largest = zip(*found, strict=True)
    return min(least), min(low), max(high), max(largest)


def _without_scattered(
    channel: np.ndarray, here: np.ndarray | None, values: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Leave out those of two values that are scattered: the rest of a channel, row after row, as one row."""
    keep = np.ones(channel.shape, dtype=bool) if here is None else here.copy()
    for value in values:
        hit = (channel == value) & keep
        share = hit.mean()
        full = _box_count(np.pad(hit, _SIDE // 2, mode="edge")) > _MIDDLE
        if share > max(_MANY, _FEW / hit.size) and full.mean() < _FULL * share:
            keep &= ~hit
    if (keep if here is None else keep == here).all() or not keep.any():
        return channel, here
    return channel[keep][None, :], None


def _largest_median(channel: np.ndarray, here: np.ndarray | None) -> float:
    """The largest median of a 5×5 window around a pixel of ``here``; pixels at the edge are repeated beyond it.

    The medians of every fourth window or so give a bound. A window can only beat it with 13 samples above, and few
    have: those are looked at, by and by.
    """
    padded = np.pad(channel, _SIDE // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (_SIDE, _SIDE))  # (H, W, 5, 5)
    left = np.ones(channel.shape, dtype=bool) if here is None else here.copy()
    step = max(1, round(math.sqrt(channel.size / _WINDOWS_AT_ONCE)))
    first = np.zeros_like(left)
    first[::step, ::step] = True
    chosen = np.argwhere(left & first)
    if not len(chosen):
        chosen = np.argwhere(left)[:_WINDOWS_AT_ONCE]
    best = -math.inf
    while len(chosen):
        rows, columns = chosen.T
        medians = np.partition(windows[rows, columns].reshape(len(chosen), -1), _MIDDLE, axis=1)[:, _MIDDLE]
        best = max(best, float(medians.max()))
        left[rows, columns] = False
        left &= _box_count(padded > best) > _MIDDLE
        candidates = np.argwhere(left)
        # Spread over the image, since a whole bright region may be left.
        chosen = candidates[:: max(1, math.ceil(len(candidates) / _WINDOWS_AT_ONCE))]
    return best


def _box_count(flags: np.ndarray) -> np.ndarray:
    """How many are set in each 5×5 window, ``(H + 4, W + 4)`` -> ``(H, W)``."""
    height, width = flags.shape[0] - _SIDE + 1, flags.shape[1] - _SIDE + 1
    ones = flags.view(np.uint8)
    rows = sum((ones[k : k + height] for k in range(1, _SIDE)), start=ones[:height].copy())
    return sum((rows[:, k : k + width] for k in range(1, _SIDE)), start=rows[:, :width].copy())
