"""Medians of the observed entries of windows.

The entries of all windows are sorted at once by a sorting network, Batcher's odd-even merge sort [Batcher, 1968], whose
comparisons are minima and maxima of whole arrays.

Shapes: C×H×W, an image.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

AT_ONCE = 1 << 15
"""Number of windows that are sorted at once, so that they fit in the cache of a core."""


def window_median(y: Tensor, known: Tensor, side: int) -> Tensor:
    """Return the median of the known entries in a window around each entry.

    If a window has no known entries, return the median of the channel, or 0 if the channel has none either.

    Args:
        y: ``(C, H, W)``.
        known: bool, ``(C, H, W)``.
        side: side of the window, odd, pixels; the edge pixels are repeated beyond the image.
    """
    reach = side // 2
    values = torch.where(known, y, torch.nan)
    around = pad(values[None], [reach] * 4, mode="replicate")[0]
    rows = max(1, AT_ONCE // (y.shape[0] * y.shape[2]))
    parts = [around[:, top : top + rows + side - 1] for top in range(0, y.shape[1], rows)]
    result = torch.cat([_window_medians(part, side) for part in parts], dim=1)
    everywhere = values.flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)
    return torch.where(result.isnan(), everywhere[:, None, None], result)


def _window_medians(around: Tensor, side: int) -> Tensor:
    """Return the medians of all windows inside ``around``; nan for windows without known entries."""
    height, width = around.shape[1] - side + 1, around.shape[2] - side + 1
    windows = [around[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]
    missing = around.isnan()
    if not bool(missing.any()):
        return _sort_elementwise(windows)[side * side // 2]
    known = torch.zeros_like(windows[0], dtype=torch.uint8)
    for i in range(side):
        for j in range(side):
            known += ~missing[:, i : i + height, j : j + width]
    ordered = torch.stack(_sort_elementwise([window.nan_to_num(torch.inf) for window in windows]))
    middle = ordered.gather(0, ((known.long() - 1) // 2).clamp_min_(0)[None])[0]
    return middle.masked_fill_(known == 0, torch.nan)


def _sort_elementwise(values: list[Tensor]) -> list[Tensor]:
    """Sort the arrays elementwise."""
    values = list(values)
    for low, high in _sorting_network(len(values)):
        values[low], values[high] = torch.minimum(values[low], values[high]), torch.maximum(values[low], values[high])
    return values


@cache
def _sorting_network(number: int) -> list[tuple[int, int]]:
    """Return the comparisons of Batcher's network for a number of values."""
    found = []
    size = 1
    while size < number:
        step = size
        while step:
            for begin in range(step % size, number - step, 2 * step):
                for low in range(begin, min(begin + step, number - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        found.append((low, low + step))
            step //= 2
        size *= 2
    return found


def window_median_at(y: Tensor, known: Tensor, side: int, at: Tensor) -> Tensor:
    """Return the median of the known entries in a window around some entries; the others keep their value.

    This is faster than :func:`window_median` for few entries. Entries without known entries in their window keep their
    value.

    Args:
        y: ``(C, H, W)``.
        known: bool, ``(C, H, W)``.
        side: side of the window, odd, pixels.
        at: bool, ``(C, H, W)``, the entries to compute.
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
    """Return the median of four means of opposite neighbours: horizontal, vertical and both diagonals.

    The result is exact on slopes, and outliers in one of the four pairs have little effect. Pairs with an unobserved
    entry are ignored; if no pair is left, the result is the value itself.

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
