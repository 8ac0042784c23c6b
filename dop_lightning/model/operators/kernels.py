"""Kernels of blurs and anti-aliasing filters, as arrays of taps with sum 1.

Shapes: h×w taps in float64; the first axis points down, the second to the right.
"""

import math
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from dop_lightning.foundation.readers import reader_of

TRUNCATION = 4
"""Number of standard deviations at which a Gaussian is truncated."""

ROUNDING = 1e-9
"""Distance to the edge of a pixel below which a path ends at the edge."""


def gaussian(std: float, parity: int = 1) -> Tensor:
    """Return ``exp(−t²/2std²)`` along one axis, normalised, at integers t (odd parity) or half-integers (even)."""
    half = math.ceil(TRUNCATION * std) if parity % 2 else math.ceil(TRUNCATION * std) - 0.5
    t = torch.arange(-half, half + 0.5, dtype=torch.float64, device="cpu")
    return normalised(torch.exp(-0.5 * (t / std) ** 2))


def box(width: int) -> Tensor:
    """Return the kernel of the mean of ``width`` pixels along one axis."""
    return torch.full((width,), 1 / width, dtype=torch.float64, device="cpu")


def bicubic(factor: int) -> Tensor:
    """Return Keys' cubic with a = −½, stretched by the factor, along one axis, as used by Pillow and MATLAB."""
    half = 2 * factor - (0.5 if factor % 2 == 0 else 1)
    t = torch.arange(-half, half + 0.5, dtype=torch.float64, device="cpu").abs() / factor
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return normalised(torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t))))


def outer(taps: Tensor) -> Tensor:
    """Return the separable kernel with the same taps along both axes."""
    return torch.outer(taps, taps)


def motion(length: float, angle: float) -> Tensor:
    """Return the kernel of a straight path: for each pixel, the fraction of the path inside it.

    Args:
        length: length of the centred path in pixels, above 0.
        angle: direction in degrees, counter-clockwise; 0 is to the right.

    >>> motion(3, 0)
    tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """
    radians = math.radians(angle)
    steps = (-math.sin(radians), math.cos(radians))  # the row axis points down
    reaches = [length / 2 * abs(step) - ROUNDING for step in steps]
    halves = [math.ceil(reach - 0.5) for reach in reaches]
    ends = {-length / 2, length / 2}
    for step, half, reach in zip(steps, halves, reaches, strict=True):  # where the path crosses edges of pixels
        ends |= {(k - 0.5) / step for k in range(-half, half + 2) if abs(k - 0.5) < reach}
    times = sorted(ends)
    taps = torch.zeros(2 * halves[0] + 1, 2 * halves[1] + 1, dtype=torch.float64, device="cpu")
    for begin, end in pairwise(times):
        row, column = (round((begin + end) / 2 * step) + half for step, half in zip(steps, halves, strict=True))
        taps[row, column] += end - begin
    return normalised(taps)


def read_kernel(path: str | Path) -> Tensor:
    """Read an unnormalised kernel from an image (the mean of its channels) or a ``.npy`` file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read.
    """
    return torch.from_numpy(reader_of("image")(path).astype("float64").mean(axis=2))


def checked(taps: Tensor, name: str) -> Tensor:
    """Check a kernel, and return it normalised to sum 1.

    Raises:
        ValueError: the kernel is not an h×w array with odd sides, has a non-finite entry, or its sum is not positive.
    """
    if taps.ndim != 2 or not all(side % 2 for side in taps.shape):
        raise ValueError(
            f"{name} must be an h×w array with odd h and w, got shape {tuple(taps.shape)}; add a row or column of "
            "zeros, so that the middle is the centre"
        )
    if not torch.isfinite(taps).all():
        raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(taps)).sum())} non-finite entries")
    if taps.sum() <= 0:
        raise ValueError(f"{name} must have a sum above 0, got {float(taps.sum())}")
    return normalised(taps)


def normalised(taps: Tensor) -> Tensor:
    """Return the taps divided by their sum."""
    return taps / taps.sum()
