"""Connected components with 8-connectivity.

Shapes: H×W, one image.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def grow(seeds: Tensor, loose: Tensor) -> Tensor:
    """Return the seeds and the pixels of ``loose`` that are connected to a seed; all bool, ``(H, W)``."""
    numbers = labels(loose | seeds)
    if not bool(seeds.any()):
        return seeds.clone()
    has_seed = seeds.new_zeros(int(numbers.max()) + 1)
    has_seed[numbers[seeds]] = True
    return has_seed[numbers]


def dilate(found: Tensor) -> Tensor:
    """Return the pixels of ``found`` and their 8 neighbours; bool, ``(H, W)``."""
    rows = found.clone()
    rows[1:] |= found[:-1]
    rows[:-1] |= found[1:]
    result = rows.clone()
    result[:, 1:] |= rows[:, :-1]
    result[:, :-1] |= rows[:, 1:]
    return result


def labels(found: Tensor, alike: Tensor | None = None) -> Tensor:
    """Label connected components with numbers from 1; int64, ``(H, W)``, 0 for the background.

    Args:
        found: the foreground pixels, bool, ``(H, W)``.
        alike: ``(H, W)``. Two neighbours are connected only if their values in ``alike`` are equal. By default all
            neighbours are connected.

    >>> labels(torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1]]) > 0).tolist()
    [[1, 0, 0, 2], [0, 1, 0, 2]]
    """
    begins = found.clone()
    begins[:, 1:] &= ~(found[:, :-1] & _equal(alike, (slice(None), slice(1, None)), (slice(None), slice(None, -1))))
    runs = begins.flatten().cumsum(0).view_as(found) - 1  # number of the run of each foreground pixel within its row
    count = int(begins.sum())
    pairs = _touching(found, runs, alike, count)
    above, below = pairs // max(1, count), pairs % max(1, count)
    least = torch.arange(count, device=found.device)
    while True:  # the minimum of a component spreads to its runs: by touching runs, then by their minima in turn
        one, other = least[above], least[below]
        both = torch.minimum(one, other)
        more = least.scatter_reduce(0, one, both, "amin").scatter_reduce(0, other, both, "amin")
        more = more[more]
        if bool((more == least).all()):
            break
        least = more
    order = (least == torch.arange(len(least), device=found.device)).cumsum(0)
    result = torch.zeros_like(runs)
    result[found] = order[least[runs[found]]]
    return result


Window = tuple[slice, slice]
"""Rows and columns of a part of an image."""


def _equal(alike: Tensor | None, one: Window, other: Window) -> Tensor | bool:
    return True if alike is None else alike[one] == alike[other]


def _touching(found: Tensor, runs: Tensor, alike: Tensor | None, count: int) -> Tensor:
    """Return ``count`` times one run plus another for all that touch in adjacent rows, also at a corner; may repeat."""
    pairs, width = [], found.shape[1]
    for right in (0, 1, -1):
        one = (slice(None, -1), slice(max(0, -right), width - max(0, right)))
        other = (slice(1, None), slice(max(0, right), width - max(0, -right)))
        both = found[one] & found[other] & _equal(alike, one, other)
        pairs.append((runs[one][both] * count + runs[other][both]).unique_consecutive())
    return torch.cat(pairs)


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
        """Compute the extents of the components of bool ``(H, W)``.

        >>> found = torch.zeros(6, 6, dtype=torch.bool)
        >>> found[1, 1:5] = True
        >>> found[4, 4] = True
        >>> extents = Extents.of(found)
        >>> extents.width[1, 2].item(), extents.height[1, 2].item(), extents.width[4, 4].item()
        (4.0, 1.0, 1.0)
        """
        numbers = labels(found)
        boxes = Boxes.of(numbers)
        nothing = torch.full((1,), -torch.inf, device=found.device)
        return cls(*(torch.cat([nothing, each.float()])[numbers] for each in (boxes.height, boxes.width)))
