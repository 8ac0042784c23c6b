r"""Dust: compact specks and short hairs of 2 to 12 pixels, dark or bright, opaque or half transparent.

For the bright ones (the dark ones are those of −y):

1. *Compact.* The top-hat ``T = y − open(y)`` by a square of 15 pixels, averaged over the channels, is the contrast of
   what is smaller. At each of several thresholds, the components of T of at most 14 pixels a side are the candidates.
2. *A cliff all around.* The contrast c is the mean of y inside less the mean at a distance of two or three pixels.
   The step between a pixel inside and its neighbour outside is at least c/2 along nearly all of the edge of a speck.
   The edges of small things in a photograph are blurred, or end in something else on one side.
3. *Flat.* An opaque speck has one value. A half transparent one in a calm place varies little inside, in shares of c,
   and so does what is around it.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from dop_lightning.engine.steps.clean_entries.components import Boxes, dilate, labels

SQUARE = 15
"""Side of the square; what is smaller is compact."""

LARGEST = 14
"""Extent of the largest speck, pixels."""

LEAST = 4
"""Pixels of the smallest; smaller ones are isolated entries."""

THRESHOLDS = (0.05, 0.08, 0.12, 0.18, 0.27, 0.4)
"""Of T, in scales of the observation."""

CLIFF, CLIFF_OF_ONE = 0.95, 0.9
"""Least share of the steps that are at least half of the contrast; of a speck of one value."""

SAME = 2.5 / 255
"""Standard deviation below which the values of a speck are one, in scales of the observation."""

FLAT, FLAT_AROUND, FLAT_AROUND_ONE = 0.25, 0.5, 0.5
"""Largest standard deviation inside and around, in shares of the contrast; of a speck of one value."""

SPECKS, ALIKE = 8, 0.4
"""An image looks dusty if so many specks, and this share of all, have one value."""


def dust_specks(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """Find the pixels of dust, in all channels.

    Args:
        y: the observation, ``(C, H, W)``; of any other number of dimensions it has no dust.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are. What is missing belongs to no speck.

    Returns:
        bool, the shape of ``y``.
    """
    if y.dim() != 3 or min(y.shape[1:]) < 2 * SQUARE:
        return torch.zeros_like(y, dtype=torch.bool)
    known = torch.ones_like(y[0], dtype=torch.bool) if observed is None else observed.all(dim=0)
    values = torch.where(known, y / scale, 0)
    found = torch.zeros_like(known)
    for sign in (1, -1):
        contrast = _contrast(sign * values, known)
        for threshold in THRESHOLDS:
            found |= _specks(contrast, sign * values, threshold, known)
    return found.expand_as(y) & (known if observed is None else observed)


def looks_dusty(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> bool:
    """Return whether many specks have the same value: opaque dust, and no leaves or lights.

    Args:
        y: the observation, ``(C, H, W)``.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are.
    """
    found = dust_specks(y, scale, observed).any(dim=0) if y.dim() == 3 else y.new_zeros(0, dtype=torch.bool)
    if not bool(found.any()):
        return False
    numbers = labels(found)
    count = int(numbers.max())
    moments = [_moments(each / scale, numbers, count) for each in y]
    one = torch.stack([spread for _, spread in moments]).amax(dim=0)[1:] <= SAME
    values = (torch.stack([mean for mean, _ in moments])[:, 1:][:, one] * 255 / 3).round()
    if values.shape[1] < SPECKS:
        return False
    return int(values.unique(dim=1, return_counts=True)[1].max()) >= max(SPECKS, ALIKE * count)


def _contrast(y: Tensor, known: Tensor) -> Tensor:
    """T, ``(H, W)``; 0 where nothing is known."""
    eroded = -_square(torch.where(known, -y, -torch.inf))
    opened = _square(torch.where(eroded.isfinite(), eroded, -torch.inf))
    return torch.where(known & opened.isfinite().all(dim=0), (y - opened).mean(dim=0), 0)


def _square(image: Tensor) -> Tensor:
    """The largest value of the square around each pixel."""
    half = SQUARE // 2
    return max_pool2d(max_pool2d(image, (SQUARE, 1), 1, (half, 0)), (1, SQUARE), 1, (0, half))


def _specks(contrast: Tensor, y: Tensor, threshold: float, known: Tensor) -> Tensor:
    """The specks whose contrast is above a threshold, ``(H, W)``."""
    numbers = labels((contrast > threshold) & known)
    boxes = Boxes.of(numbers)
    fits = (boxes.size >= LEAST) & (torch.maximum(boxes.height, boxes.width) <= LARGEST)
    numbers = torch.cat([fits.new_zeros(1), fits])[numbers] * numbers
    inside = numbers > 0
    if not bool(inside.any()):
        return inside
    count = int(boxes.size.numel())
    near = dilate(inside) & ~inside
    ring = max_pool2d(numbers[None].double(), 7, 1, 3)[0].long() * (~inside & ~near & known)  # at two or three pixels
    grey = y.mean(dim=0)
    outer, outer_spread = _moments(grey, ring, count)
    top = _moments(grey, numbers, count)[0] - outer
    spread = torch.stack([_moments(each, numbers, count)[1] for each in y]).amax(dim=0)
    steep, pairs = y.new_zeros(count + 1), y.new_zeros(count + 1)
    for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        rows, columns = (slice(max(0, -at), n - max(0, at)) for at, n in zip((down, right), inside.shape, strict=True))
        others = (
            slice(max(0, down), inside.shape[0] + min(0, down)),
            slice(max(0, right), inside.shape[1] + min(0, right)),
        )
        edge = inside[rows, columns] & ~inside[others] & known[others]
        own = numbers[rows, columns][edge]
        step = grey[rows, columns][edge] - grey[others][edge]
        pairs.index_add_(0, own, torch.ones_like(step))
        steep.index_add_(0, own, (step >= top[own] / 2).to(y.dtype))
    cliff = steep / pairs.clamp_min(1)
    varied = _moments(grey, numbers, count)[1]
    one = (spread <= SAME) & (cliff >= CLIFF_OF_ONE) & (outer_spread <= FLAT_AROUND_ONE * top)
    calm = (varied <= FLAT * top) & (cliff >= CLIFF) & (outer_spread <= FLAT_AROUND * top)
    dusty = (one | calm) & (top >= threshold / 2)
    dusty[0] = False
    return dusty[numbers]


def _moments(values: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the values of each number from 0 to ``count``."""
    at = numbers.flatten()
    size = torch.zeros(count + 1, dtype=torch.float64, device=values.device)
    total, square = size.clone(), size.clone()
    size.index_add_(0, at, torch.ones_like(at, dtype=torch.float64))
    total.index_add_(0, at, values.flatten().double())
    mean = total / size.clamp_min(1)
    square.index_add_(0, at, (values.flatten().double() - mean[at]).square())
    return mean.to(values.dtype), (square / size.clamp_min(1)).sqrt().to(values.dtype)
