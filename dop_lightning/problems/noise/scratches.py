"""Scratches and creases: thin curves across an image."""

import math
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least, fraction, one_of, positive, share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import check_range, uniform

BEND = 1.5
"""Largest change of the heading along one scratch, radians."""

STEP = 0.25
"""Pixels between two points of a curve."""

MOST = 10_000
"""Scratches are no more: a ratio near 1 would take forever."""


class Scratches(Noise):
    r"""Curves at random places are painted over the image, in all channels, until they cover a share of its area.

    A scratch of length ℓ and width w begins anywhere, with the heading φ, and bends evenly by β. It covers the pixels
    whose centres are at most w/2 from the curve, and shows ``(1 − o)·x + o·v`` there, with its value v and the opacity
    o. Of two that cross, the first is above. The scratches at a small ratio are among those at a larger one for
    the same seed; the last one may cover a little more than is left.

    Args:
        ratio: the share of the area, at least 0 and below 1.
        value: v, or ``random``, one for each scratch, uniform in [``low``, ``high``].
        opacity: o, above 0 and at most 1.
        thinnest: the least w in pixels, at least 1; whole numbers are drawn.
        thickest: the largest, at least ``thinnest``.
        shortest: the least ℓ in shares of the longer side, above 0.
        longest: the largest, at least ``shortest``.
        low: the least random value.
        high: the end of their range, above ``low``.

    Raises:
        ValueError: an argument is out of its range; at use, the signal is no image ``(C, H, W)``.

    >>> from dop_lightning.problems.randomness import stream
    >>> image = torch.zeros(1, 64, 64)
    >>> found = Scratches(0.03, value=1.0).corrupt(image, stream(0, "corruption")).corruption
    >>> bool(0.03 <= found.mean() < 0.12), found.unique().tolist()
    (True, [0.0, 1.0])
    """

    name = "scratches"

    def __init__(
        self,
        ratio: float,
        value: float | Literal["random"] = "random",
        opacity: float = 1.0,
        thinnest: int = 1,
        thickest: int = 5,
        shortest: float = 0.25,
        longest: float = 1.0,
        low: float = 0.0,
        high: float = 1.0,
    ) -> None:
        self.ratio = fraction("ratio", ratio)
        if isinstance(value, str):
            one_of("value", value, ["random"])
        elif not math.isfinite(value):
            raise ValueError(f"value must be finite or 'random', got {value!r}")
        self.value = value
        self.opacity = positive("opacity", share("opacity", opacity))
        self.thinnest = at_least("thinnest", thinnest, 1)
        self.thickest = at_least("thickest", thickest, thinnest)
        self.shortest = positive("shortest", shortest)
        self.longest = positive("longest", longest)
        if longest < shortest:
            raise ValueError(f"longest must be at least shortest, {shortest!r}, got {longest!r}")
        self.low, self.high = check_range(low, high)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Seven draws a scratch: row, column, heading, bend, length, width and value."""
        if clean.ndim != 3:
            raise ValueError(f"Scratches needs an image of shape (C, H, W), got shape {tuple(clean.shape)}")
        covered = torch.zeros(clean.shape[1:], dtype=torch.bool)
        for _ in range(MOST):
            if float(covered.to(torch.float64).mean()) >= self.ratio:
                break
            *curve, drawn = uniform((7,), generator).tolist()
            hit = self._pixels(clean.shape[1], clean.shape[2], *curve) & ~covered
            covered |= hit
            value = self.low + (self.high - self.low) * drawn if isinstance(self.value, str) else self.value
            shown = (1 - self.opacity) * running.observation + self.opacity * value
            running = running.with_replaced(clean, hit.expand(clean.shape), shown)
        return running

    def _pixels(
        self,
        height: int,
        width: int,
        row: float,
        column: float,
        heading: float,
        bend: float,
        length: float,
        thick: float,
    ) -> Tensor:
        """The pixels of one scratch, bool ``(H, W)``; all arguments but the size are draws in [0, 1)."""
        reach = (self.shortest + (self.longest - self.shortest) * length) * max(height, width)
        count = max(2, round(reach / STEP))
        radius = (self.thinnest + int((self.thickest - self.thinnest + 1) * thick)) / 2
        along = torch.arange(count, dtype=torch.float64) / count
        angle = 2 * math.pi * heading + BEND * (2 * bend - 1) * along
        down = row * height + (STEP * angle.sin()).cumsum(0)
        right = column * width + (STEP * angle.cos()).cumsum(0)
        hit = torch.zeros(height, width, dtype=torch.bool)
        around = math.ceil(radius)
        for i in range(-around, around + 1):
            for j in range(-around, around + 1):
                at, across = down.floor() + i, right.floor() + j
                near = (at + 0.5 - down).square() + (across + 0.5 - right).square() <= radius**2
                inside = near & (at >= 0) & (at < height) & (across >= 0) & (across < width)
                hit[at[inside].long(), across[inside].long()] = True
        return hit
