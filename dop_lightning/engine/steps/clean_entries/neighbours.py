"""The 8 neighbours of a pixel in the same channel.

Shapes: C×H×W, an image; n places, given as indices into the flat image.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

STEPS = tuple((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1))
"""Offsets of the 8 neighbours from the upper left pixel of a 3×3 block."""


def bordered(image: Tensor) -> Tensor:
    """Pad an image with one pixel on each side by reflection, which continues lines across the edge.

    Images with a single row or column are padded with infinity. The result is ``(C, H+2, W+2)``.
    """
    if min(image.shape[1:]) > 1:
        return pad(image[None], [1] * 4, mode="reflect")[0]
    return pad(image, [1] * 4, value=torch.inf)


def neighbours_at(around: Tensor, places: Tensor) -> Iterator[Tensor]:
    """Yield 8 times the values of one neighbour of every place, ``(n,)``, in the order of :data:`STEPS`.

    Args:
        around: image padded by :func:`bordered`.
        places: ``(n,)``.

    >>> image = torch.arange(9.0).view(1, 3, 3)
    >>> [int(value) for value in neighbours_at(bordered(image), torch.tensor([4]))]
    [0, 1, 2, 3, 5, 6, 7, 8]
    """
    bordered_height, bordered_width = around.shape[1:]
    height, width = bordered_height - 2, bordered_width - 2
    channel, rest = places // (height * width), places % (height * width)
    corner = (channel * bordered_height + rest // width) * bordered_width + rest % width  # of the 3×3 block
    flat = around.flatten()
    for down, right in STEPS:
        yield flat.index_select(0, corner + (down * bordered_width + right))
