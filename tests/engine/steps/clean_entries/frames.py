"""Frames of a camera at a telescope: sky, stars as its optics make them, the noise of light and of the read-out."""

import torch
from torch import Tensor

READ_OUT = 10.0


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def star_field(
    side: int = 96, stars: int = 20, sky: float = 200.0, brightest: float = 2000.0, width: float = 1.5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """``(1, side, side)`` in photons: without noise, and with it. ``width`` is the standard deviation of a star."""
    source = generator(seed)
    rows = torch.arange(float(side))
    truth = torch.full((side, side), float(sky))
    for row, column, light in (torch.rand(stars, 3, generator=source) * torch.tensor([side, side, 1.0])).tolist():
        distance = (rows[:, None] - row) ** 2 + (rows - column) ** 2
        truth += brightest * light * torch.exp(-distance / (2 * width**2))
    noise = READ_OUT * torch.randn(side, side, generator=source)
    return truth[None], (torch.poisson(truth, generator=source) + noise)[None]


def with_hits(frame: Tensor, share: float, low: float, high: float, seed: int = 1) -> tuple[Tensor, Tensor]:
    """A frame with cosmic rays of one pixel each, and their mask."""
    source = generator(seed)
    hit = torch.rand(frame.shape, generator=source) < share
    light = low + (high - low) * torch.rand(frame.shape, generator=source)
    return torch.where(hit, frame + light, frame), hit
