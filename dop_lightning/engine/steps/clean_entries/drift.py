"""What an estimate is off by on the whole, around an entry.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.medians import window_median_at

SIDE = 11
"""Side of the window, pixels: so wide that the noise in it hardly matters."""


def local_drift(residual: Tensor, clean: Tensor) -> Tensor:
    """The median of the residuals of the clean entries around each entry that is not clean; 0 at the others.

    A network that has fitted bright stars may be off by a little in all of the sky. What it has left over of the clean
    neighbours tells by how much. The median is not misled by a star that it has not fitted yet.

    Args:
        residual: ``y − x̂``, ``(C, H, W)``.
        clean: bool, the same shape.

    >>> residual = torch.full((1, 32, 32), 0.25)
    >>> residual[..., 5, 5] = 9.0
    >>> local_drift(residual, residual < 1)[0, 5, 4:6]
    tensor([0.0000, 0.2500])
    """
    unknown = torch.zeros_like(residual)  # where no neighbour is clean
    found = window_median_at(torch.where(clean, residual, unknown), clean, SIDE, ~clean)
    return torch.where(clean, unknown, found)
