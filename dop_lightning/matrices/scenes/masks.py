r"""Binary masks of moving objects, by residuals in units of the noise, hysteresis, and connected components.

Shapes: F frames, C channels, H × W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dop_lightning.matrices.scenes.components import Runs

WEAK, STRONG = 3.0, 6.0
"""Thresholds of hysteresis, in standard deviations of the noise."""

CORNER = 0.3
"""Minimum fraction of the window that the corner of an object covers."""

SMALL = 5e-4
"""Components below this fraction of the frame must overlap another one in an adjacent frame."""

MIN_COMPONENT_PIXELS = 9
"""Minimum size of a component in pixels; smaller ones are noise."""


def evidence(residuals: Tensor, noise: Tensor) -> Tensor:
    r"""Return the distance of each pixel from the background in standard deviations of the noise.

    ``z = √(1/C·Σ_c (r_c/σ_c)²)``, where ``σ_c = max(1.4826·median_f |r_c|, 1/255)`` is the noise of each entry: the
    median absolute deviation over frames [Hampel, 1974]. It is larger for moving leaves than for a wall.

    Args:
        residuals: r, frames minus background, ``(F, C, H, W)``.
        noise: σ, ``(C, H, W)``, above 0.

    Returns:
        ``(F, H, W)``.
    """
    return (residuals / noise).square_().mean(dim=1).sqrt_()


def candidates(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels of weak and of strong evidence, bool ``(F, H, W)`` each.

    Evidence is weak if more than half of a window of 5×5 pixels (3×3 if a side is below 100) exceeds :data:`WEAK`,
    which is the median filter of the mask. If z exceeds :data:`STRONG`, 30 % are sufficient, which preserves corners.
    Evidence is strong if, in addition, z exceeds :data:`STRONG`.

    Args:
        z: result of :func:`evidence`, ``(F, H, W)``.
    """
    side = 5 if min(z.shape[1:]) >= 100 else 3
    share = (z > WEAK).to(z)[:, None]
    for window in ((side, 1), (1, side)):  # the mean over a square is separable
        padding = (window[0] // 2, window[1] // 2)
        share = avg_pool2d(share, window, 1, padding, count_include_pad=False)
    share, is_strong = share[:, 0], z > STRONG
    weak = (share > 0.5) | (is_strong & (share > CORNER))
    return weak, weak & is_strong


def connected_masks(weak: Tensor, strong: Tensor) -> Tensor:
    """Return the masks of consecutive frames: connected components that contain strong evidence.

    This is hysteresis [Canny, 1986] with 8-connectivity. Components smaller than 9 pixels are dropped. Components
    smaller than 0.05 % of the frame are kept only if they share a pixel with another component in the previous or next
    frame. The mask of a frame depends on its two adjacent frames only.

    Args:
        weak: bool ``(F, H, W)``.
        strong: bool ``(F, H, W)``, a subset of ``weak``.

    Returns:
        bool ``(F, H, W)``.

    >>> weak = torch.zeros(1, 6, 8, dtype=torch.bool)
    >>> weak[0, 1:5, 1:4] = weak[0, 0:4, 5:8] = True
    >>> strong = torch.zeros_like(weak)
    >>> strong[0, 2, 2] = True
    >>> int(connected_masks(weak, strong).sum())
    12
    """
    runs = Runs.of(weak.numpy())
    if len(runs.start) == 0:
        return torch.zeros_like(weak)
    numbers = runs.components()
    count = int(numbers.max()) + 1
    area, strong_area = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    which = torch.from_numpy(numbers)
    area.index_add_(0, which, torch.from_numpy(runs.end - runs.start))
    strong_area.index_add_(0, which, torch.from_numpy(runs.totals(strong.numpy())))
    kept = (area >= MIN_COMPONENT_PIXELS) & (strong_area > 0)
    earlier, later = (which[torch.from_numpy(pair)] for pair in runs.touching())
    both = kept[earlier] & kept[later]
    supported = torch.zeros_like(kept)
    supported[earlier[both]] = True
    supported[later[both]] = True
    kept &= supported | (area >= SMALL * weak[0].numel())
    return torch.from_numpy(runs.mask(kept[which].numpy()))
