"""Medians of windows, of what was observed alone.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

AT_ONCE = 1 << 20
"""Entries whose windows are sorted at once."""


def window_median(y: Tensor, known: Tensor, side: int) -> Tensor:
    """The median of the known entries in a window around each entry; of the whole channel where there is none.

    Args:
        y: ``(C, H, W)``.
        known: bool, ``(C, H, W)``.
        side: of the window, odd, pixels; entries at the edge are repeated beyond it.
    """
    reach = side // 2
    values = torch.where(known, y, torch.nan)
    around = pad(values[None], [reach] * 4, mode="replicate")[0]
    result = torch.empty_like(y)
    rows = max(1, AT_ONCE // (y.shape[0] * y.shape[2]))
    for top in range(0, y.shape[1], rows):
        part = around[:, top : top + rows + side - 1]
        windows = part.unfold(1, side, 1).unfold(2, side, 1).flatten(3)
        result[:, top : top + rows] = windows.nanmedian(dim=-1).values
    everywhere = values.flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)
    return torch.where(result.isnan(), everywhere[:, None, None], result)


def window_median_at(y: Tensor, known: Tensor, side: int, at: Tensor) -> Tensor:
    """:func:`window_median` of some entries, which is faster where they are few; the others stay as they are.

    Args:
        y: ``(C, H, W)``.
        known: bool, ``(C, H, W)``.
        side: of the window, odd, pixels.
        at: bool, ``(C, H, W)``, which entries.
    """
    reach = side // 2
    values = torch.where(known, y, torch.nan)
    around = pad(values[None], [reach] * 4, mode="replicate")[0]
    channel, row, column = at.nonzero(as_tuple=True)
    steps = torch.arange(side, device=y.device)
    result = y.clone()
    for start in range(0, channel.numel(), AT_ONCE // 32):
        part = slice(start, start + AT_ONCE // 32)
        c, i, j = channel[part], row[part], column[part]
        rows, columns = (i[:, None] + steps)[:, :, None], (j[:, None] + steps)[:, None]
        medians = around[c[:, None, None], rows, columns].flatten(1).nanmedian(dim=-1).values
        result[c, i, j] = torch.where(medians.isnan(), y[c, i, j], medians)
    return result


def opposite_median(y: Tensor, known: Tensor) -> Tensor:
    """The median of four means: of the two opposite neighbours of an entry, across, down and along both diagonals.

    It follows slopes, and outliers of two of the four pairs change little. Pairs of which one was not observed are left
    out; where there is none, it is the value itself.

    Args:
        y: ``(C, H, W)``.
        known: bool, ``(C, H, W)``.
    """
    values = torch.where(known, y, torch.nan)
    around = pad(values[None], [1] * 4, mode="replicate")[0]
    height, width = y.shape[1:]

    def moved(down: int, right: int) -> Tensor:
        return around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    pairs = [(moved(i, j) + moved(-i, -j)) / 2 for i, j in ((0, 1), (1, 0), (1, 1), (1, -1))]
    ordered = torch.stack(pairs).nan_to_num(nan=torch.inf).sort(dim=0).values
    count = ordered.isfinite().sum(dim=0, keepdim=True)
    low, high = (ordered.gather(0, at.clamp(0, 3)) for at in ((count - 1) // 2, count // 2))
    return torch.where(count > 0, (low + high) / 2, y[None])[0]
