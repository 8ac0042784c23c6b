"""Median of many numbers without a sorted copy."""

import torch
from torch import Tensor

AT_ONCE = 2**20
"""Maximum number of values that are processed at once."""

DIGIT = 16
"""Number of bits per digit."""


def median_magnitude(values: Tensor, mask: Tensor | None = None) -> float:
    """Return the lower median of ``|values|``, by a radix search if there are many values.

    Non-negative floating-point numbers have the same order as their binary representations. Each digit of the median
    therefore follows from a histogram of that digit over the numbers that share the previous digits. This takes two
    passes for float32 and four for float64.

    Args:
        values: finite values of any shape, float32 or float64 on the CPU.
        mask: boolean mask of the same shape, true at the values to include; ``None`` includes all.

    Raises:
        ValueError: no value is included.

    >>> median_magnitude(torch.tensor([3.0, -1.0, 2.0, -7.0]))
    2.0
    """
    total = values.numel() if mask is None else int(mask.sum())
    if total == 0:
        raise ValueError("values must have at least one entry inside the mask, got none")
    if values.numel() <= AT_ONCE:
        sizes = values.detach().abs().flatten() if mask is None else values.detach()[mask].abs()
        return float(sizes.kthvalue((total + 1) // 2).values)
    integer, bits = (torch.int32, 32) if values.dtype == torch.float32 else (torch.int64, 64)
    parts = values.detach().flatten().split(AT_ONCE)
    masks = [None] * len(parts) if mask is None else mask.flatten().split(AT_ONCE)
    place, found = (total - 1) // 2, 0
    for shift in range(bits - DIGIT, -1, -DIGIT):
        counts = torch.zeros(2**DIGIT, dtype=torch.int64, device="cpu")
        for part, counted in zip(parts, masks, strict=True):
            numbers = part.abs().view(integer)
            if counted is not None:
                numbers = numbers[counted]
            digits = numbers >> shift
            if shift < bits - DIGIT:
                digits = digits[digits >> DIGIT == found]
            counts += torch.bincount(digits & (2**DIGIT - 1), minlength=2**DIGIT)
        below = counts.cumsum(0)
        digit = int(torch.searchsorted(below, place, right=True))
        place -= int(below[digit] - counts[digit])
        found = found << DIGIT | digit
    return float(torch.tensor([found], dtype=integer, device="cpu").view(values.dtype))
