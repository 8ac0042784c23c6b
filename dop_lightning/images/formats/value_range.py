"""Range of the clean values of an image, by its number format, or estimated robustly to outliers.

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

_MIN_IMPULSE_FRACTION = 0.01
"""Fraction of the pixels above which an extreme value may be salt or pepper rather than a highlight."""

_MIN_IMPULSES = 4
"""Number of pixels that are too few for salt or pepper, even in small images."""

FLOAT32_RESOLUTION = 2.0**-24
"""Resolution of float32 in fractions of a range."""

_FULL = 0.2
"""Scattered values fill fewer windows than this fraction of their number of pixels: 6 % even for 35 % of salt."""


def value_range(raster: Raster) -> tuple[float, float]:
    """Estimate the values lo and hi of an image that are scaled to 0 and 1.

    Up to 8 bits, and for the colours of a palette, they are 0 and the maximum: 1, 3, 15, 255. Otherwise, let a and b be
    the minimum and maximum of the observed values after a 5×5 median filter of each channel, which removes single
    outliers; the filter replaces missing values by the median of their channel.

    - Unsigned integers of up to 16 bits: 0 and the smallest 2ᵏ − 1 ≥ b, k = 8 … 16, since sensors have 10, 12 or 14
      bits.
    - Floating point: 0 and 1 if all observed values are in [0, 1] and b > 0.5.
    - Otherwise, a − 0.1·(b − a) and b + 0.1·(b − a), limited to the minimum and maximum observed value. If these are
      equal, a ∓ 0.5·|a|, or ∓ 0.5 for a = 0.

    The filter alone removes salt and pepper of up to about a tenth of the pixels. Therefore the minimum and maximum of
    a channel are first removed if many pixels have them but few windows are filled with them, unlike in a white
    background; the rest of each row is then filtered. If other outliers fill more than half of a window, the range is
    too wide, which only reduces the contrast.

    Args:
        raster: the image, with at least one observed value.

    Raises:
        Unsuitable: the range of the values overflows.
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
        raise Unsuitable(f"the range of the values must be finite, got {least:g} … {largest:g}; rescale them first")
    return lo, hi


def checked_range(value: Sequence[float]) -> tuple[float, float]:
    """Return ``value`` as (lo, hi) if it is two finite numbers in ascending order.

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
    """Check that double precision resolves 64-bit integers; it does not distinguish 2⁶⁰ + 1 and 2⁶⁰ + 2.

    Args:
        raster: the image.
        value_range: the values that are scaled to 0 and 1.

    Raises:
        Unsuitable: adjacent numbers in double precision differ by more than 2⁻²⁴ of the range.
    """
    samples = raster.samples
    if samples.dtype.kind not in "iu" or samples.dtype.itemsize < 8:
        return
    low, high = value_range
    step = float(np.spacing(max(abs(low), abs(high))))
    if step > 1 and step > FLOAT32_RESOLUTION * (high - low):
        raise Unsuitable(
            f"integers beyond ±2**53 must be resolved by double precision, whose spacing is {step:g} here, got values "
            f"from {low:.17g} to {high:.17g}; subtract an offset first"
        )


def _extremes(samples: np.ndarray, observed: np.ndarray | None) -> tuple[float, float, float, float]:
    """Return the minimum, the minimum and maximum after the filter, and the maximum, over all channels."""
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
        # The minimum is the negated maximum of −x; in float64, since the smallest integer cannot be negated.
        filtered = _largest_median(channel, here), -_largest_median(-channel.astype(np.float64), here)
        found.append((float(values.min()), float(filtered[1]), float(filtered[0]), float(values.max())))
    least, low, high, largest = zip(*found, strict=True)
    return min(least), min(low), max(high), max(largest)


def _without_scattered(
    channel: np.ndarray, here: np.ndarray | None, values: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Remove each of two values if it is scattered; returns the rest of the channel as one row."""
    keep = np.ones(channel.shape, dtype=bool) if here is None else here.copy()
    for value in values:
        hit = (channel == value) & keep
        share = hit.mean()
        full = _box_count(np.pad(hit, _SIDE // 2, mode="edge")) > _MIDDLE
        if share > max(_MIN_IMPULSE_FRACTION, _MIN_IMPULSES / hit.size) and full.mean() < _FULL * share:
            keep &= ~hit
    if (keep if here is None else keep == here).all() or not keep.any():
        return channel, here
    return channel[keep][None, :], None


def _largest_median(channel: np.ndarray, here: np.ndarray | None) -> float:
    """Return the maximum median over the 5×5 windows around the pixels of ``here``, with edge padding.

    The medians of a regular subset of windows give a lower bound. A window can exceed it only if 13 of its samples do,
    which is rare. These windows are evaluated in batches, and each batch raises the bound.
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
        # spread over the image, since the candidates may form one bright region
        chosen = candidates[:: max(1, math.ceil(len(candidates) / _WINDOWS_AT_ONCE))]
    return best


def _box_count(flags: np.ndarray) -> np.ndarray:
    """Count the set flags in each 5×5 window, ``(H + 4, W + 4)`` -> ``(H, W)``."""
    height, width = flags.shape[0] - _SIDE + 1, flags.shape[1] - _SIDE + 1
    ones = flags.view(np.uint8)
    rows = sum((ones[k : k + height] for k in range(1, _SIDE)), start=ones[:height].copy())
    return sum((rows[:, k : k + width] for k in range(1, _SIDE)), start=rows[:, :width].copy())
