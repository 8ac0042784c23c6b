"""Dead lines: whole rows and columns of a sensor that say nothing of what is in front of them."""

import math
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import one_of, share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import Per, check_per, check_range, uniform

LineValue = Literal["random", "noise"]
"""A random value of each line, or one of each of its entries."""


class DeadLines(Noise):
    """A share of the rows, and the same share of the columns, are replaced along their whole length.

    The first and the last row and column stay. The lines that are dead at a small ratio are among those at a larger
    one for the same seed, with the same values but where rows and columns cross.

    Args:
        ratio: the share of the rows and of the columns, in [0, 1]; the number is rounded.
        value: what a dead line shows: a number, the same for all lines; ``random``, a value for each line; or
            ``noise``, a value for each entry. Random values are uniform in [``low``, ``high``].
        per: ``pixel`` kills a line in all channels; ``entry`` kills it in one channel, which is drawn.
        low: the least random value.
        high: the end of their range, above ``low``.

    Raises:
        ValueError: an argument is out of its range; at use, the signal is no image ``(C, H, W)``.

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
        """For rows, then columns: their order, a channel and a value of each, and a value of each entry."""
        if clean.ndim != 3:
            raise ValueError(f"DeadLines needs an image of shape (C, H, W), got shape {tuple(clean.shape)}")
        for dim in (1, 2):
            running = self._kill(clean, running, dim, generator)
        return running

    def _kill(self, clean: Tensor, running: Corrupted, dim: int, generator: torch.Generator) -> Corrupted:
        """Replace the lines of one direction."""
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
