"""Kernels of blurs and of antialiasing filters, as arrays of taps that sum to 1.

Shapes: h×w taps, in float64; the first axis goes down, the second to the right.
"""

import math
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from dop_lightning.foundation.readers import reader_of

REACH = 4
"""A Gaussian ends at so many standard deviations."""

ROUNDING = 1e-9
"""A path that ends this near to the edge of a pixel ends at it."""


def gaussian(std: float, parity: int = 1) -> Tensor:
    """``exp(−t²/2std²)`` at the whole numbers t (odd parity) or between them (even), one axis."""
    half = math.ceil(REACH * std) if parity % 2 else math.ceil(REACH * std) - 0.5
    t = torch.arange(-half, half + 0.5, dtype=torch.float64, device="cpu")
    return normalised(torch.exp(-0.5 * (t / std) ** 2))


def box(width: int) -> Tensor:
    """The mean of so many neighbours, one axis."""
    return torch.full((width,), 1 / width, dtype=torch.float64, device="cpu")


def bicubic(factor: int) -> Tensor:
    """Keys' cubic with a = −½, stretched by the factor, as Pillow's and MATLAB's reductions use it; one axis."""
    half = 2 * factor - (0.5 if factor % 2 == 0 else 1)
    t = torch.arange(-half, half + 0.5, dtype=torch.float64, device="cpu").abs() / factor
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return normalised(torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t))))


def outer(taps: Tensor) -> Tensor:
    """The same along both axes."""
    return torch.outer(taps, taps)


def motion(length: float, angle: float) -> Tensor:
    """A straight path: of each pixel, the share of the path that lies within it.

    Args:
        length: of the path in pixels, centred; above 0.
        angle: in degrees, counter-clockwise from «to the right».

    >>> motion(3, 0)
    tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """
    radians = math.radians(angle)
    steps = (-math.sin(radians), math.cos(radians))  # rows go down
    reaches = [length / 2 * abs(step) - ROUNDING for step in steps]
    halves = [math.ceil(reach - 0.5) for reach in reaches]
    ends = {-length / 2, length / 2}
    for step, half, reach in zip(steps, halves, reaches, strict=True):  # where the path goes from pixel to pixel
        ends |= {(k - 0.5) / step for k in range(-half, half + 2) if abs(k - 0.5) < reach}
    times = sorted(ends)
    taps = torch.zeros(2 * halves[0] + 1, 2 * halves[1] + 1, dtype=torch.float64, device="cpu")
    for begin, end in pairwise(times):
        row, column = (round((begin + end) / 2 * step) + half for step, half in zip(steps, halves, strict=True))
        taps[row, column] += end - begin
    return normalised(taps)


def read_kernel(path: str | Path) -> Tensor:
    """The kernel of an image (the mean of its channels) or of a ``.npy`` file, as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read.
    """
    return torch.from_numpy(reader_of("image")(path).astype("float64").mean(axis=2))


def checked(taps: Tensor, name: str) -> Tensor:
    """Return a kernel that can be used, its sum made 1.

    Raises:
        ValueError: it is no h×w array with odd sides, has an entry that is not finite, or no sum above 0.
    """
    if taps.ndim != 2 or not all(side % 2 for side in taps.shape):
        raise ValueError(
            f"{name} must be an h×w array with odd h and w, whose middle is its centre (add a row or column of "
            f"zeros), got shape {tuple(taps.shape)}"
        )
    if not torch.isfinite(taps).all():
        raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(taps)).sum())} entries that are not")
    if taps.sum() <= 0:
        raise ValueError(f"{name} must have a sum above 0, got {float(taps.sum())}")
    return normalised(taps)


def normalised(taps: Tensor) -> Tensor:
    """The taps over their sum."""
    return taps / taps.sum()
