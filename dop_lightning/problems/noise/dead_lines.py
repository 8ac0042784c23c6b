"""Dead lines: whole rows and columns of a sensor that carry no information about the scene."""

import math
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import one_of, share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import Per, check_per, check_range, uniform

LineValue = Literal["random", "noise"]
"""One random value per line, or one per entry."""


class DeadLines(Noise):
    """Replace a fraction of the rows and the same fraction of the columns along their whole length.

    The first and last row and column are kept. For the same seed, the dead lines at a small ratio are a subset of those
    at a larger one, with the same values except where rows and columns cross.

    Args:
        ratio: fraction of rows and of columns, in [0, 1]; their number is rounded.
        value: value of dead lines: a number, the same for all lines; ``random``, one value per line; or ``noise``, one
            value per entry. Random values are uniform in [``low``, ``high``].
        per: ``pixel`` replaces lines in all channels, ``entry`` in one random channel.
        low: minimum of random values.
        high: maximum of random values, above ``low``.

    Raises:
        ValueError: an argument is out of range, or the signal is not an image ``(C, H, W)``.

    >>> from dop_lightning.problems.randomness import stream
    >>> found = DeadLines(0.1, value=0.0).corrupt(torch.ones(1, 20, 20), stream(0, "corruption")).corruption[0]
    >>> int((found == -1).all(dim=0).sum()), int((found == -1).all(dim=1).sum())
    (2, 2)
    """

    name = "dead_lines"

    def __init__(
        self,
        ratio: float,
        value: float | LineValue = "random",
        per: Per = "pixel",
        low: float = 0.0,
        high: float = 1.0,
    ) -> None:
        self.ratio = share("ratio", ratio)
        if isinstance(value, str):
            one_of("value", value, ["random", "noise"])
        elif not math.isfinite(value):
            raise ValueError(f"value must be finite, 'random' or 'noise', got {value!r}")
        self.value = value
        self.per: Per = check_per(per)
        self.low, self.high = check_range(low, high)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw, for rows and then for columns: their order, a channel and a value per line, and a value per entry."""
        if clean.ndim != 3:
            raise ValueError(f"DeadLines requires an image of shape (C, H, W), got shape {tuple(clean.shape)}")
        for dim in (1, 2):
            running = self._kill(clean, running, dim, generator)
        return running

    def _kill(self, clean: Tensor, running: Corrupted, dim: int, generator: torch.Generator) -> Corrupted:
        """Replace lines along one dimension."""
        channels, length = clean.shape[0], clean.shape[dim]
        inner = max(0, length - 2)
        order = torch.randperm(inner, generator=generator) + 1
        channel = (channels * uniform((length,), generator)).long()
        shape = [1, length, 1] if dim == 1 else [1, 1, length]
        constant = uniform((length,), generator).view(shape)
        noise = uniform(clean.shape, generator)
        dead = torch.zeros(length, dtype=torch.bool)
        dead[order[: min(inner, round(self.ratio * length))]] = True
        hit = dead.view(shape).expand(clean.shape)
        if self.per == "entry":
            hit = hit & (torch.arange(channels).view(-1, 1, 1) == channel.view(shape))
        if isinstance(self.value, str):
            drawn = constant if self.value == "random" else noise
            value = (self.low + (self.high - self.low) * drawn).to(clean.dtype).expand(clean.shape)
        else:
            value = clean.new_tensor(self.value)
        return running.with_replaced(clean, hit, value)
