"""Medians of the observed entries of windows.

The entries of all windows are sorted at once by a sorting network, Batcher's odd-even merge sort [Batcher, 1968], whose
comparisons are minima and maxima of whole arrays, or, if a compiler is available, of registers
(``foundation/native/filters.cpp``).

Shapes: C×H×W, an image.
"""

from ctypes import CDLL, c_int, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from dop_lightning.engine.steps.clean_entries.compiled import kernels_for

AT_ONCE = 1 << 15
"""Number of windows that are sorted at once, so that they fit in the cache of a core."""

MIN_COLUMNS = 16
"""Minimum width of an image for the compiled kernel, which has up to 16 windows in a register. Narrower images are
widened."""


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
    if (kernels := kernels_for(y)) is not None:
        wide = around if y.shape[2] >= MIN_COLUMNS else pad(around, [0, MIN_COLUMNS - y.shape[2]])
        result = _compiled_medians(kernels, wide, side)[:, :, : y.shape[2]]
    else:
        rows = max(1, AT_ONCE // (y.shape[0] * y.shape[2]))
        parts = [around[:, top : top + rows + side - 1] for top in range(0, y.shape[1], rows)]
        result = torch.cat([_window_medians(part, side) for part in parts], dim=1)
    everywhere = values.flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)
    return torch.where(result.isnan(), everywhere[:, None, None], result)


def _compiled_medians(kernels: CDLL, around: Tensor, side: int) -> Tensor:
    """Compute :func:`_window_medians` with the compiled kernel."""
    gaps = bool(around.isnan().any())
    network = _sorting_network(side * side, None if gaps else (side * side // 2,))
    comparisons = torch.tensor([comparison[:2] for comparison in network], dtype=torch.int32, device="cpu")
    planes, rows, columns = around.shape[0], around.shape[1] - side + 1, around.shape[2] - side + 1
    around, result = around.contiguous(), around.new_empty(planes, rows, columns)
    kernels.window_medians(
        c_void_p(around.data_ptr()),
        c_void_p(result.data_ptr()),
        c_void_p(comparisons.data_ptr()),
        c_int64(len(comparisons)),
        c_int(side),
        c_int64(planes),
        c_int64(rows),
        c_int64(columns),
        c_int(gaps),
        c_int(torch.get_num_threads()),
    )
    return result


def _window_medians(around: Tensor, side: int) -> Tensor:
    """Return the medians of all windows inside ``around``; nan for windows without known entries."""
    height, width = around.shape[1] - side + 1, around.shape[2] - side + 1
    windows = [around[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]
    missing = around.isnan()
    if not bool(missing.any()):
        centre = side * side // 2
        return _sort_elementwise(windows, (centre,))[centre]
    known = torch.zeros_like(windows[0], dtype=torch.uint8)
    for i in range(side):
        for j in range(side):
            known += ~missing[:, i : i + height, j : j + width]
    ordered = torch.stack(_sort_elementwise([window.nan_to_num(torch.inf) for window in windows]))
    middle = ordered.gather(0, ((known.long() - 1) // 2).clamp_min_(0)[None])[0]
    return middle.masked_fill_(known == 0, torch.nan)


def _sort_elementwise(values: list[Tensor], needed: tuple[int, ...] | None = None) -> list[Tensor]:
    """Sort the arrays elementwise; only the results at the positions ``needed`` are valid, by default all."""
    values = list(values)
    for low, high, has_low, has_high in _sorting_network(len(values), needed):
        smaller = torch.minimum(values[low], values[high]) if has_low else values[low]
        if has_high:
            values[high] = torch.maximum(values[low], values[high])
        values[low] = smaller
    return values


@cache
def _sorting_network(number: int, needed: tuple[int, ...] | None = None) -> list[tuple[int, int, bool, bool]]:
    """Return the comparisons of Batcher's network for a number of values, and which of their results are used."""
    comparisons = []
    size = 1
    while size < number:
        step = size
        while step:
            for begin in range(step % size, number - step, 2 * step):
                for low in range(begin, min(begin + step, number - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        comparisons.append((low, low + step))
            step //= 2
        size *= 2
    used, found = set(range(number) if needed is None else needed), []
    for low, high in reversed(comparisons):
        if low in used or high in used:
            found.append((low, high, low in used, high in used))
            used |= {low, high}
    return found[::-1]


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
