"""Missing entries, for matrix completion and inpainting."""

import torch
from torch import Tensor

from dop_lightning.foundation.checks import share
from dop_lightning.problems.noise.base import Corrupted, Noise
from dop_lightning.problems.noise.draws import Per, check_per, uniform_per


class MissingEntries(Noise):
    """Hide entries: their mask is false, and their observation and corruption are 0.

    At least one entry remains observed: if the draw would hide all of them, the entry or pixel with the largest draw is
    kept. For the same seed, the entries missing at a small ratio are a subset of those missing at a larger one.

    Args:
        ratio: probability that an entry is missing, at least 0 and below 1.
        per: ``entry`` draws array entries independently; ``pixel`` hides all channels of a pixel of a C×H×W image.

    Raises:
        ValueError: an argument is out of range.
    """

    name = "missing_entries"

    def __init__(self, ratio: float, per: Per = "entry") -> None:
        self.ratio = share("ratio", ratio)
        if ratio == 1:
            raise ValueError(f"ratio must be below 1, got {ratio!r}")
        self.per: Per = check_per(per)

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw one value per entry or pixel, and intersect the mask with previous ones."""
        before = torch.ones_like(clean, dtype=torch.bool) if running.mask is None else running.mask
        draw = uniform_per(clean.shape, self.per, generator).expand(clean.shape)
        last = draw[before].max()
        return Corrupted(running.observation, running.corruption, before & (draw >= last.clamp(max=self.ratio)))
