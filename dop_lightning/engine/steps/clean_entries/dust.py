r"""Detection of dust: compact specks and short hairs of 2 to 12 pixels, dark or bright, opaque or half-transparent.

Bright specks are found as follows. Dark specks are the bright specks of −y.

1. *Size.* The top-hat ``T = y − open(y)`` by a square of 15 × 15 pixels, averaged over the channels, is the contrast of
   structures that fit into the square. T is thresholded at several levels. The connected components of at most 14 × 14
   pixels are candidates.
2. *Sharp edge.* The contrast c is the mean of y inside the component minus the mean at a distance of two or three
   pixels from it. Along nearly all of the edge of a speck, the step between a pixel inside and its neighbour outside is
   at least c/2. Small objects in a photograph have blurred edges, or touch another object on one side.
3. *Flatness.* An opaque speck has a constant value. A half-transparent speck in a flat region varies little relative to
   c, both inside and around it.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from dop_lightning.engine.steps.clean_entries.components import Boxes, dilate, labels

SQUARE = 15
"""Side length of the square, in pixels."""

LARGEST = 14
"""Maximum extent of a speck, in pixels."""

MIN_SPECK_PIXELS = 4
"""Minimum number of pixels of a speck; smaller components are treated as isolated entries."""

THRESHOLDS = (0.05, 0.08, 0.12, 0.18, 0.27, 0.4)
"""Thresholds on T, in scales of the observation."""

CLIFF, CLIFF_OF_ONE = 0.95, 0.9
"""Minimum fraction of edge steps that are at least half the contrast, in general and for specks of constant value."""

MAX_SPECK_DEVIATION = 2.5 / 255
"""Maximum standard deviation of a speck of constant value, in scales of the observation."""

FLAT, FLAT_AROUND, FLAT_AROUND_ONE = 0.25, 0.5, 0.5
"""Maximum standard deviation relative to the contrast: inside a speck, around it, and around a speck of constant
value."""

SPECKS, ALIKE = 8, 0.4
"""An image looks dusty if at least this number of specks, and this fraction of all specks, have the same value."""


def dust_specks(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """Return the support of dust.

    Args:
        y: observation, ``(C, H, W)``. The result is empty for any other number of dimensions.
        scale: scale of the observation, positive.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed. Pixels with an unobserved channel are
            never part of a speck.

    Returns:
        bool, the shape of ``y``; equal in all channels.
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
    """Return whether many specks have the same value, which distinguishes opaque dust from leaves and lights.

    Args:
        y: observation, ``(C, H, W)``.
        scale: scale of the observation, positive.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed.
    """
    found = dust_specks(y, scale, observed).any(dim=0) if y.dim() == 3 else y.new_zeros(0, dtype=torch.bool)
    if not bool(found.any()):
        return False
    numbers = labels(found)
    count = int(numbers.max())
    moments = [_label_moments(each / scale, numbers, count) for each in y]
    one = torch.stack([spread for _, spread in moments]).amax(dim=0)[1:] <= MAX_SPECK_DEVIATION
    values = (torch.stack([mean for mean, _ in moments])[:, 1:][:, one] * 255 / 3).round()
    if values.shape[1] < SPECKS:
        return False
    return int(values.unique(dim=1, return_counts=True)[1].max()) >= max(SPECKS, ALIKE * count)


def _contrast(y: Tensor, known: Tensor) -> Tensor:
    """Return T, ``(H, W)``; 0 at unobserved pixels."""
    eroded = -_max_in_square(torch.where(known, -y, -torch.inf))
    opened = _max_in_square(torch.where(eroded.isfinite(), eroded, -torch.inf))
    return torch.where(known & opened.isfinite().all(dim=0), (y - opened).mean(dim=0), 0)


def _max_in_square(image: Tensor) -> Tensor:
    """Return the maximum in the square around each pixel."""
    half = SQUARE // 2
    return max_pool2d(max_pool2d(image, (SQUARE, 1), 1, (half, 0)), (1, SQUARE), 1, (0, half))


def _specks(contrast: Tensor, y: Tensor, threshold: float, known: Tensor) -> Tensor:
    """Return the specks among the components of T above a threshold, bool ``(H, W)``."""
    numbers = labels((contrast > threshold) & known)
    boxes = Boxes.of(numbers)
    fits = (boxes.size >= MIN_SPECK_PIXELS) & (torch.maximum(boxes.height, boxes.width) <= LARGEST)
    numbers = torch.cat([fits.new_zeros(1), fits])[numbers] * numbers
    inside = numbers > 0
    if not bool(inside.any()):
        return inside
    count = int(boxes.size.numel())
    near = dilate(inside) & ~inside
    around = max_pool2d(max_pool2d(numbers[None].double(), (7, 1), 1, (3, 0)), (1, 7), 1, (0, 3))[0].long()
    ring = around * (~inside & ~near & known)  # two or three pixels away
    grey = y.mean(dim=0)
    outer, outer_spread = _label_moments(grey, ring, count)
    top = _label_moments(grey, numbers, count)[0] - outer
    spread = torch.stack([_label_moments(each, numbers, count)[1] for each in y]).amax(dim=0)
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
    varied = _label_moments(grey, numbers, count)[1]
    one = (spread <= MAX_SPECK_DEVIATION) & (cliff >= CLIFF_OF_ONE) & (outer_spread <= FLAT_AROUND_ONE * top)
    calm = (varied <= FLAT * top) & (cliff >= CLIFF) & (outer_spread <= FLAT_AROUND * top)
    dusty = (one | calm) & (top >= threshold / 2)
    dusty[0] = False
    return dusty[numbers]


def _label_moments(values: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of the values of each label from 1 to ``count``, and 0 for label 0."""
    labelled = numbers > 0
    at, of_labels = numbers[labelled], values[labelled].double()
    size = torch.zeros(count + 1, dtype=torch.float64, device=values.device)
    total, square = size.clone(), size.clone()
    size.index_add_(0, at, torch.ones_like(of_labels))
    total.index_add_(0, at, of_labels)
    mean = total / size.clamp_min(1)
    square.index_add_(0, at, (of_labels - mean[at]).square())
    return mean.to(values.dtype), (square / size.clamp_min(1)).sqrt().to(values.dtype)
