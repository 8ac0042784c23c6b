"""The median of what is around each entry: an estimate that few outliers do not move.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

SIDE = 5
"""Side of the window, pixels."""

AT_ONCE = 1 << 20
"""Entries whose windows are sorted at once, 25 values each."""


def window_median(y: Tensor, known: Tensor) -> Tensor:
    """The median of the observed entries in a window; of the whole channel where there is none.

    Args:
        y: the observation, ``(C, H, W)``.
        known: bool, which entries were observed.
    """
    reach = SIDE // 2
    values = torch.where(known, y, torch.nan)
    around = pad(values[None], [reach] * 4, mode="replicate")[0]
    result = torch.empty_like(y)
    rows = max(1, AT_ONCE // (y.shape[0] * y.shape[2]))
    for top in range(0, y.shape[1], rows):
        part = around[:, top : top + rows + SIDE - 1]
        windows = part.unfold(1, SIDE, 1).unfold(2, SIDE, 1).flatten(3)
        result[:, top : top + rows] = windows.nanmedian(dim=-1).values
    everywhere = values.flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)
    return torch.where(result.isnan(), everywhere[:, None, None], result)
