"""Boundary conditions of images: padding, and its transpose.

Shapes: K problems, C channels, H×W pixels; a margin of p pixels extends H to H + 2p.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Boundary = Literal["reflect", "circular", "valid"]

BOUNDARIES: tuple[Boundary, ...] = ("reflect", "circular", "valid")


def least_side(boundary: Boundary, margin: int) -> int:
    """Return the minimum number of pixels of a side for a margin.

    >>> least_side("reflect", 3), least_side("circular", 3)
    (4, 3)
    """
    return max(1, margin + 1 if boundary == "reflect" else margin)


def pad(images: Tensor, margins: tuple[int, int], boundary: Boundary) -> Tensor:
    """Pad images by reflection without repeating the edge (``reflect``), or periodically (``circular``).

    Args:
        images: ``(K, C, H, W)``.
        margins: rows above and below, and columns left and right; see :func:`least_side` for their limit.
        boundary: ``reflect`` or ``circular``.

    Returns:
        ``(K, C, H + 2·rows, W + 2·columns)``.
    """
    rows, columns = margins
    if rows == columns == 0:
        return images
    return functional.pad(images, (columns, columns, rows, rows), mode=boundary)


def unpad(padded: Tensor, margins: tuple[int, int], boundary: Boundary) -> Tensor:
    """Transpose of :func:`pad`: add every entry of the margins to the entry from which it was copied.

    Args:
        padded: ``(K, C, H + 2·rows, W + 2·columns)``.
        margins: margins, as for :func:`pad`.
        boundary: boundary, as for :func:`pad`.

    Returns:
        ``(K, C, H, W)``.
    """
    for axis, margin in zip((-2, -1), margins, strict=True):
        padded = _unpad_axis(padded, margin, boundary, axis)
    return padded


def _unpad_axis(padded: Tensor, margin: int, boundary: Boundary, axis: int) -> Tensor:
    if margin == 0:
        return padded
    side = padded.shape[axis] - 2 * margin
    before, inside, after = torch.split(padded, [margin, side, margin], dim=axis)
    inside = inside.clone()
    if boundary == "circular":
        inside.narrow(axis, side - margin, margin).add_(before)
        inside.narrow(axis, 0, margin).add_(after)
    else:
        inside.narrow(axis, 1, margin).add_(before.flip(axis))
        inside.narrow(axis, side - 1 - margin, margin).add_(after.flip(axis))
    return inside
