"""Connected components with 8-connectivity.

Shapes: H×W, one image.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d


def grow(seeds: Tensor, loose: Tensor) -> Tensor:
    """Return the seeds and the pixels of ``loose`` that are connected to a seed; all bool, ``(H, W)``."""
    inside = loose | seeds
    found = seeds
    while True:
        more = dilate(found) & inside
        if bool((more == found).all()):
            return found
        found = more


def dilate(found: Tensor) -> Tensor:
    """Return the pixels of ``found`` and their 8 neighbours; bool, ``(H, W)``."""
    return max_pool2d(found[None].float(), 3, 1, 1)[0] > 0


def labels(found: Tensor, alike: Tensor | None = None) -> Tensor:
    """Label connected components with numbers from 1; int64, ``(H, W)``, 0 for the background.

    Args:
        found: the foreground pixels, bool, ``(H, W)``.
        alike: ``(H, W)``. Two neighbours are connected only if their values in ``alike`` are equal. By default all
            neighbours are connected.

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
        more[found] = more.flatten()[inside - 1]  # a pixel of the same component, numbered at most as high
        if bool((more == least).all()):
            break
        least = more
    result = torch.zeros_like(least)
    if bool(found.any()):
        result[found] = least[found].unique(return_inverse=True)[1] + 1
    return result


class Boxes(NamedTuple):
    """Sizes and bounding boxes of the N components of a label map, in the order of their labels; int64, ``(N,)``.

    Attributes:
        size: number of pixels.
        top: first row.
        bottom: last row plus 1.
        left: first column.
        right: last column plus 1.
    """

    size: Tensor
    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, numbers: Tensor) -> "Boxes":
        """Compute the boxes of a label map from :func:`labels`, ``(H, W)``.

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
        """Number of rows of each component."""
        return self.bottom - self.top

    @property
    def width(self) -> Tensor:
        """Number of columns of each component."""
        return self.right - self.left

    def slices(self, k: int, margin: int = 0) -> tuple[slice, slice]:
        """Return the rows and columns of the k-th box (from 0), extended by a margin and clipped to the image."""
        return (
            slice(max(0, int(self.top[k]) - margin), int(self.bottom[k]) + margin),
            slice(max(0, int(self.left[k]) - margin), int(self.right[k]) + margin),
        )


class Extents(NamedTuple):
    """Height and width of the component of each pixel, float32, ``(H, W)``; −∞ for background pixels.

    Attributes:
        height: number of rows from the first to the last row of the component.
        width: number of columns from the first to the last column of the component.
    """

    height: Tensor
    width: Tensor

    @classmethod
    def of(cls, found: Tensor) -> "Extents":
        """Compute the extents of bool ``(H, W)`` by propagating the limits of each component between neighbours.

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
