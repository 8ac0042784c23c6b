"""Entries that were never observed: matrix completion, inpainting."""

import torch
from torch import Tensor

from dop_lightning.foundation.checks import share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import Per, check_per, uniform_per


class MissingEntries(Noise):
    """Entries are hidden: their mask is false, their observation and corruption 0.

    At least one entry stays observed: where the draw would hide all, the entry (or pixel) that would have been the
    last to go is kept. The entries missing at a small ratio are among those missing at a larger one for the same seed.

    Args:
        ratio: the chance of an entry to be missing, at least 0 and below 1.
        per: ``entry`` draws every array entry by itself; ``pixel`` hides all channels of a pixel of a C×H×W image.

    Raises:
        ValueError: an argument is out of its range.
    """

    name = "missing_entries"

    def __init__(self, ratio: float, per: Per = "entry") -> None:
        self.ratio = share("ratio", ratio)
        if ratio == 1:
            raise ValueError(f"ratio must be below 1, so that something is observed, got {ratio!r}")
        self.per: Per = check_per(per)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """One draw an entry, or a pixel; the mask is the intersection with the masks before."""
        before = torch.ones_like(clean, dtype=torch.bool) if running.mask is None else running.mask
        draw = uniform_per(clean.shape, self.per, generator).expand(clean.shape)
        last = draw[before].max()
        return Corrupted(running.observation, running.corruption, before & (draw >= last.clamp(max=self.ratio)))
