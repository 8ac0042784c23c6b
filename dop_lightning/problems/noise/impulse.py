"""Impulse noise: a fraction of the entries is replaced completely.

Positions and values are drawn separately. For the same seed, the entries replaced at 10 % are a subset of those at
30 %, with the same values, so that studies over the ratio are paired.
"""

import torch
from torch import Tensor

from dop_lightning.foundation.checks import share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import Per, check_per, check_range, uniform, uniform_per


class SaltAndPepper(Noise):
    """Set entries to ``low`` or ``high`` with equal probability (section 4.2 and the authors' code).

    Args:
        ratio: probability that an entry is replaced, in [0, 1].
        per: ``entry`` draws each colour channel independently, as in the paper; ``pixel`` draws position and value once
            for all channels of a C×H×W image.
        low: value of pepper, 0 for images in [0, 1].
        high: value of salt, above ``low``.

    Raises:
        ValueError: an argument is out of range.

    >>> from dop_lightning.problems.randomness import stream
    >>> image = torch.full((1, 2, 3), 0.25)
    >>> SaltAndPepper(1.0).corrupt(image, stream(0, "corruption")).observation.unique()
    tensor([0., 1.])
    """

    name = "salt_and_pepper"

    def __init__(self, ratio: float, per: Per = "entry", low: float = 0.0, high: float = 1.0) -> None:
        self.ratio = share("ratio", ratio)
        self.per: Per = check_per(per)
        self.low, self.high = check_range(low, high)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw two values per entry or pixel: replaced or not, salt or pepper."""
        hit = uniform_per(clean.shape, self.per, generator) < self.ratio
        salt = uniform_per(clean.shape, self.per, generator) < 0.5
        return running.with_replaced(
            clean, hit, torch.where(salt, clean.new_tensor(self.high), clean.new_tensor(self.low))
        )


class RandomValuedImpulse(Noise):
    """Set entries to random values, uniform in [``low``, ``high``].

    Args:
        ratio: probability that an entry is replaced, in [0, 1].
        per: ``entry`` draws each colour channel independently; ``pixel`` draws the position once for all channels of a
            C×H×W image, and a different value for each channel, that is, a random colour.
        low: minimum of random values.
        high: maximum of random values, above ``low``.

    Raises:
        ValueError: an argument is out of range.
    """

    name = "random_valued_impulse"

    def __init__(self, ratio: float, per: Per = "entry", low: float = 0.0, high: float = 1.0) -> None:
        self.ratio = share("ratio", ratio)
        self.per: Per = check_per(per)
        self.low, self.high = check_range(low, high)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw one value per entry or pixel for the position, and one per entry for the value."""
        hit = uniform_per(clean.shape, self.per, generator) < self.ratio
        value = self.low + (self.high - self.low) * uniform(clean.shape, generator)
        return running.with_replaced(clean, hit, value.to(clean.dtype))
