"""Scratches of one value or of one opacity: the paths of runs with the best likelihood under likely models.

Shapes: C×H×W, an image in [0, 1].
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.likely_scratches import likely_half_transparent, likely_opaque
from dop_lightning.engine.steps.clean_entries.run_paths import best_paths
from dop_lightning.engine.steps.clean_entries.scratch_models import HalfTransparent, Opaque

TILE, OVERLAP = 1024, 128
"""Side length and overlap, in pixels, of the tiles of a large image, which limit the memory."""

MIN_MEAN_GAIN = 2.4
"""Minimum mean gain per row of all half-transparent scratches. Curves of undamaged pictures have 1.3 to 2.2 under the
opacity with most votes, scratches 2.6 and more."""


def exact_scratches(y: Tensor, known: Tensor) -> Tensor:
    """Return the support of scratches of one value or one opacity; bool, ``(H, W)``.

    Args:
        y: image, ``(C, H, W)``, in [0, 1].
        known: bool, ``(H, W)``. Unknown pixels give no evidence.
    """
    y, known = y.to("cpu", torch.float32), known.cpu()
    tiles = [(rows, columns) for rows in _spans(y.shape[1]) for columns in _spans(y.shape[2])]
    parts = [(y[:, rows, columns], known[rows, columns]) for rows, columns in tiles]
    found = torch.zeros_like(known)
    for opaque in likely_opaque(parts):
        found |= _found(opaque, y, known, tiles)
    rest = known & ~found
    for half in likely_half_transparent(parts):
        found |= _found(half, y, rest, tiles)
    return found


def _found(model: Opaque | HalfTransparent, y: Tensor, known: Tensor, tiles: list[tuple[slice, slice]]) -> Tensor:
    """Return the pixels of the scratches of a model, ``(H, W)``; none if half-transparent ones have a low gain."""
    found = torch.zeros_like(known)
    gain, rows = 0.0, 0
    for tile in tiles:
        image, seen, pixels = y[:, tile[0], tile[1]], known[tile], found[tile]
        for part, visible, painted in ((image, seen, pixels), (image.transpose(1, 2), seen.T, pixels.T)):
            for path in best_paths(model.gains(part, visible)):
                path.paint(painted)
                gain += path.gain
                rows += len(path.rows)
    accepted = isinstance(model, Opaque) or gain > MIN_MEAN_GAIN * rows
    return found if accepted else torch.zeros_like(found)


def _spans(size: int) -> list[slice]:
    """Return overlapping intervals of at most :data:`TILE` pixels that cover a side."""
    begins = range(0, max(1, size - OVERLAP), TILE - OVERLAP)
    return [slice(begin, min(begin + TILE, size)) for begin in begins]
