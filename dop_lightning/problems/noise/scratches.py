"""Scratches and creases: thin curves across an image."""

import math
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least, fraction, one_of, positive, share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import check_range, uniform

MAX_BEND = 1.5
"""Maximum change of the direction along one scratch, in radians."""

STEP = 0.25
"""Distance between two points of a curve in pixels."""

MAX_SCRATCHES = 10_000
"""Maximum number of scratches, since ratios close to 1 would take too long."""


class Scratches(Noise):
    r"""Draw random curves over all channels of an image until they cover a fraction of its area.

    A scratch of length ℓ and width w starts at a random position in a direction φ, which changes at a constant rate by
    β in all. It covers the pixels whose centres are at most w/2 from the curve. Their value becomes
    ``(1 − o)·x + o·v``, where v is the value of the scratch and o the opacity. If two scratches cross, the first one is
    on top. For the same seed, the scratches at a small ratio are a subset of those at a larger one. The last scratch
    may slightly exceed the ratio.

    Args:
        ratio: fraction of the area, at least 0 and below 1.
        value: value v of all scratches, or ``random`` for one per scratch, uniform in [``low``, ``high``].
        opacity: opacity o, above 0 and at most 1.
        thinnest: minimum width w in pixels, at least 1. Widths are whole numbers.
        thickest: maximum width, at least ``thinnest``.
        shortest: minimum length ℓ relative to the longer side, above 0.
        longest: maximum length, at least ``shortest``.
        low: minimum of random values.
        high: maximum of random values, above ``low``.

    Raises:
        ValueError: an argument is out of range, or the signal is not an image ``(C, H, W)``.

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
        """Draw seven values per scratch: row, column, direction, bend, length, width and value."""
        if clean.ndim != 3:
            raise ValueError(f"Scratches requires an image of shape (C, H, W), got shape {tuple(clean.shape)}")
        covered = torch.zeros(clean.shape[1:], dtype=torch.bool)
        for _ in range(MAX_SCRATCHES):
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
        """Return the pixels of one scratch, boolean ``(H, W)``. All arguments except the size are draws in [0, 1)."""
        reach = (self.shortest + (self.longest - self.shortest) * length) * max(height, width)
        count = max(2, round(reach / STEP))
        radius = (self.thinnest + int((self.thickest - self.thinnest + 1) * thick)) / 2
        along = torch.arange(count, dtype=torch.float64) / count
        angle = 2 * math.pi * heading + MAX_BEND * (2 * bend - 1) * along
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
