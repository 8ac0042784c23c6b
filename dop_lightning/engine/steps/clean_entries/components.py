"""Connected pixels, with the 8 neighbours of each.

Shapes: H×W, one image.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d


def grow(seeds: Tensor, loose: Tensor) -> Tensor:
    """The pixels of ``loose`` that are connected with seeds, and the seeds; bool ``(H, W)`` all."""
    inside = loose | seeds
    found = seeds
    while True:
        more = dilate(found) & inside
        if bool((more == found).all()):
            return found
        found = more


def dilate(found: Tensor) -> Tensor:
    """The pixels of ``found``, bool ``(H, W)``, and their neighbours."""
    return max_pool2d(found[None].float(), 3, 1, 1)[0] > 0


class Extents(NamedTuple):
    """Of the component that each pixel belongs to, float32 ``(H, W)``; minus infinity or less outside of all.

    Attributes:
        height: rows from its first to its last.
        width: columns.
    """

    height: Tensor
    width: Tensor

    @classmethod
    def of(cls, found: Tensor) -> "Extents":
        """Those of bool ``(H, W)``: each pixel learns the limits of its component from its neighbours.

        >>> found = torch.zeros(6, 6, dtype=torch.bool)
        >>> found[1, 1:5] = True
        >>> found[4, 4] = True
        >>> extents = Extents.of(found)
        >>> extents.width[1, 2].item(), extents.height[1, 2].item(), extents.width[4, 4].item()
        (4.0, 1.0, 1.0)
        """
        rows, columns = (
            torch.arange(length, device=found.device, dtype=torch.float32).view(shape).expand(found.shape)
            for length, shape in zip(found.shape, ((-1, 1), (1, -1)), strict=True)
        )
        limits = torch.where(found, torch.stack([-rows, rows, -columns, columns]), -torch.inf)
        while True:
            more = torch.where(found, max_pool2d(limits, 3, 1, 1), -torch.inf)
            if bool((more == limits).all()):
                return cls(limits[0] + limits[1] + 1, limits[2] + limits[3] + 1)
            limits = more
