"""Impulse noise: a share of the entries is replaced, and nothing of them is left.

Whether an entry is hit, and by what, are two draws: the entries hit at 10 % are among those hit at 30 % for the same
seed, with the same values, so that a study over the ratio is paired.
"""

import torch
from torch import Tensor

from dop_lightning.foundation.checks import share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import Per, check_per, check_range, uniform, uniform_per


class SaltAndPepper(Noise):
    """Entries are set to ``low`` or ``high`` with equal chance (section 4.2 and the authors' code).

    Args:
        ratio: the chance of an entry to be hit, in [0, 1].
        per: ``entry`` draws every colour channel by itself, as the paper does; ``pixel`` draws the position, and
            black or white, once for all channels of a C×H×W image.
        low: pepper, 0 for images in [0, 1].
        high: salt, above ``low``.

    Raises:
        ValueError: an argument is out of its range.

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
        """Two draws an entry, or a pixel: hit or not, salt or pepper."""
        hit = uniform_per(clean.shape, self.per, generator) < self.ratio
        salt = uniform_per(clean.shape, self.per, generator) < 0.5
        return running.with_replaced(
            clean, hit, torch.where(salt, clean.new_tensor(self.high), clean.new_tensor(self.low))
        )


class RandomValuedImpulse(Noise):
    """Entries are set to values uniform in [``low``, ``high``].

    Args:
        ratio: the chance of an entry to be hit, in [0, 1].
        per: ``entry`` draws every colour channel by itself; ``pixel`` draws the position once for all channels of a
            C×H×W image, which get a random colour: each channel a value of its own.
        low: the least value.
        high: the end of the range, above ``low``.

    Raises:
        ValueError: an argument is out of its range.
    """

    name = "random_valued_impulse"

    def __init__(self, ratio: float, per: Per = "entry", low: float = 0.0, high: float = 1.0) -> None:
        self.ratio = share("ratio", ratio)
        self.per: Per = check_per(per)
        self.low, self.high = check_range(low, high)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """A draw an entry, or a pixel, for the position; a draw an entry for the value."""
        hit = uniform_per(clean.shape, self.per, generator) < self.ratio
        value = self.low + (self.high - self.low) * uniform(clean.shape, generator)
        return running.with_replaced(clean, hit, value.to(clean.dtype))
