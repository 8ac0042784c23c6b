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


def labels(found: Tensor, alike: Tensor | None = None) -> Tensor:
    """Number the components of bool ``(H, W)`` from 1; int64, 0 outside.

    Args:
        found: the pixels.
        alike: ``(H, W)``; neighbours are connected only where it is equal. By default all are.

    >>> labels(torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1]]) > 0).tolist()
    [[1, 0, 0, 2], [0, 1, 0, 2]]
    """
    height, width = found.shape
    numbers = torch.arange(1, height * width + 1, device=found.device).view(height, width)
    least = torch.where(found, numbers, height * width + 1)
    joined = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        rows, columns = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        other_rows, other_columns = slice(down, height), slice(max(0, right), width - max(0, -right))
        both = found[rows, columns] & found[other_rows, other_columns]
        if alike is not None:
            both &= alike[rows, columns] == alike[other_rows, other_columns]
        joined.append(((rows, columns), (other_rows, other_columns), both))
    while True:
        more = least.clone()
        for one, other, both in joined:
            lower = torch.where(both, torch.minimum(more[one], more[other]), height * width + 1)
            more[one] = torch.minimum(more[one], lower)
            more[other] = torch.minimum(more[other], lower)
        inside = more[found]
        more[found] = more.flatten()[inside - 1]  # the number of the first pixel is that of its component, or lower
        if bool((more == least).all()):
            break
        least = more
    result = torch.zeros_like(least)
    if bool(found.any()):
        result[found] = least[found].unique(return_inverse=True)[1] + 1
    return result


class Boxes(NamedTuple):
    """The components of a map of numbers, one entry for each, from the first; int64 ``(N,)``.

    Attributes:
        size: pixels.
        top: the first row.
        bottom: the row after the last.
        left: the first column.
        right: the column after the last.
    """

    size: Tensor
    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, numbers: Tensor) -> "Boxes":
        """Those of :func:`labels`, ``(H, W)``.

        >>> Boxes.of(torch.tensor([[1, 1, 0], [0, 1, 2]])).right.tolist()
        [2, 3]
        """
        rows, columns = numbers.nonzero(as_tuple=True)
        own = numbers[rows, columns] - 1
        count = int(numbers.max()) if numbers.numel() else 0

        def limit(places: Tensor, which: str) -> Tensor:
            return places.new_zeros(count).scatter_reduce(0, own, places, which, include_self=False)

        size = own.new_zeros(count).index_add(0, own, torch.ones_like(own))
        return cls(
            size, limit(rows, "amin"), limit(rows, "amax") + 1, limit(columns, "amin"), limit(columns, "amax") + 1
        )

    @property
    def height(self) -> Tensor:
        """Rows of each."""
        return self.bottom - self.top

    @property
    def width(self) -> Tensor:
        """Columns of each."""
        return self.right - self.left

    def slices(self, k: int, margin: int = 0) -> tuple[slice, slice]:
        """The rows and columns of the box of the k-th, from 0, and of a margin around it, inside the image."""
        return (
            slice(max(0, int(self.top[k]) - margin), int(self.bottom[k]) + margin),
            slice(max(0, int(self.left[k]) - margin), int(self.right[k]) + margin),
        )


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
