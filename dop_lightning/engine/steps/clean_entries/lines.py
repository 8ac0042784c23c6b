r"""Dead lines: whole rows and columns that say nothing of what is in front of them.

Isolated outliers are told by their places; a dead row is connected, and looks like a line of the picture. It differs
from one in two ways. It runs from one end of the image to the other, and what lies behind it goes on: its neighbours a
above and b below depend on each other, but the row does not depend on them.

With ``Q`` the lower quartile over the entries of a line and a′ a copy of a whose entries are moved along by a large
distance, the dependence of two lines u and v is

    ``R(u, v) = Q|u − v| / Q|u − v′|``,

near 0 where they show the same and 1 where they are independent. The lower quartile ignores up to half of the entries:
other outliers are no obstacle. A row y is dead where ``R(a, b) < 0.7`` and it is

- *constant*: the share of its entries within a grey level of one value v is as large as the share of the entries
  that do not stand out from their own line, while a and b vary and seldom have that value; or
- *noise*: ``R(y, a)`` and ``R(y, b)`` are above 0.7, and its entries differ from the next by ``Q|yⱼ − yⱼ₊₁|``, several
  times as much as those of a and b do.

No line of a photograph is constant to a grey level from end to end while what is beside it is not. Rules of a table,
the frames of a window on a screen and lines of a drawing lie on paper: there a and b do not vary, or are equal.
Once a line is dead for sure, others are told by less: those in front of a black coat.

Shapes: C×H×W, an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.sorting import ascending_lines

SHORTEST = 48
"""Lines of fewer entries tell nothing."""

THICKEST = 4
"""So many adjacent lines may be dead."""

SAMPLES = 512
"""Entries of a line that are looked at, evenly spaced."""

LEVEL = 1.5 / 255
"""Entries that differ by no more, in scales of the observation, have the same value."""

MOST = 0.6
"""Where more entries of a line may be outliers, nothing is told."""

FAR = 0.25
"""An entry that differs by more from the median of its line stands out, in scales of the observation."""

DEPENDENT = 0.7
"""R below which two lines depend on each other."""

DULL = 0.65
"""Share of the entries with one of two values above which a line is no background: paper, a frame, a wall."""

REPEATED = 0.9
"""Share of equal entries above which two lines are of a drawing."""

RARE = 0.35
"""At most this share of the neighbours' entries have the value of a constant line."""

OTHER = 0.6
"""In an image with dead lines, a constant line has at most this share of other values, in shares of its neighbours'."""

ROUGH = 2.5
"""A noise line is rougher than its neighbours by this factor."""

LAGS = (0.29, 0.43, 0.61)
"""Distances between independent entries of a line, as shares of its length."""


def dead_lines(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """The entries of dead rows and columns.

    The first and the last row and column belong to the picture: they have one neighbour only.

    Args:
        y: the observation, ``(C, H, W)``; of any other number of dimensions it has no lines.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are.

    Returns:
        bool, the shape of ``y``.

    >>> rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    >>> y = 0.5 + 0.2 * torch.sin(rows / 9) + 0.3 * torch.cos(columns / 7)
    >>> y[20] = 1.0
    >>> dead_lines(y[None])[0].all(dim=1).nonzero().flatten().tolist()
    [20]
    """
    if y.dim() != 3:
        return torch.zeros_like(y, dtype=torch.bool)
    values = y / scale if observed is None else torch.where(observed, y / scale, torch.nan)
    rows, columns = (_dead_rows(each, surely=True) for each in (values, values.transpose(1, 2)))
    if bool(rows.any() | columns.any()):  # where some are dead, so may be those in front of a black coat
        rows |= _dead_rows(values, surely=False)
        columns |= _dead_rows(values.transpose(1, 2), surely=False)
    return rows[:, :, None] | columns[:, None, :]


def _dead_rows(y: Tensor, surely: bool) -> Tensor:
    """Which rows are dead, bool ``(C, H)``; nan where nothing was observed."""
    channels, height, width = y.shape
    dead = torch.zeros(channels, height, dtype=torch.bool, device=y.device)
    if min(height, width) < SHORTEST:
        return dead
    at = torch.linspace(0, width - 1, min(width, SAMPLES), device=y.device).long()
    line = y[:, :, at]
    allowed = _standing_out(line)
    rough = _quartile(y[:, :, (at + 1) % width] - line)
    value, share = _mode(line)
    constant = 1 - share <= allowed
    for c in range(channels):
        for thickness in range(1, THICKEST + 1):
            count = height - thickness - 1  # groups that begin at row 1 or later and leave the last row
            neighbours = torch.maximum(rough[c, :count], rough[c, thickness + 1 :])
            odd = torch.stack(
                [
                    constant[c, k : k + count] | ((rough[c, k : k + count] > ROUGH * neighbours) & (allowed[c] > 0))
                    for k in _rows(thickness)
                ]
            )
            # what is dead or constant is no neighbour, and no other group holds what is dead
            odd_one = dead[c] | constant[c]
            free = ~(odd_one[:count] | odd_one[thickness + 1 :] | dead[c, 1 : count + 1])
            for begin in (odd.all(dim=0) & free).nonzero().flatten().tolist():
                above, below = line[c, begin], line[c, begin + thickness + 1]
                if surely and not _is_background(above, below):
                    continue
                dead[c, begin + 1 : begin + thickness + 1] |= all(
                    _is_dead(line[c, k], above, below, float(value[c, k]) if constant[c, k] else None, surely)
                    for k in range(begin + 1, begin + thickness + 1)
                )
    return dead | (dead.any(dim=0, keepdim=True) & constant)


def _rows(thickness: int) -> range:
    """The rows of a group after its upper neighbour."""
    return range(1, thickness + 1)


def _is_background(above: Tensor, below: Tensor) -> bool:
    """Whether two lines show the same part of a photograph: no drawing, where lines repeat or have two values."""
    if max(_commonest(above), _commonest(below)) >= DULL:
        return False
    known = (above - below).isfinite().sum().clamp_min(1)
    if float((above == below).sum() / known) > REPEATED:
        return False
    return float(_dependence(above, below)) < DEPENDENT


def _commonest(line: Tensor) -> float:
    """The share of the two most frequent values of a line."""
    levels = (line[line.isfinite()] / (2 * LEVEL)).round()
    counts = levels.unique(return_counts=True)[1]
    return float(counts.sort().values[-2:].sum() / levels.numel()) if levels.numel() else 1.0


def _is_dead(row: Tensor, above: Tensor, below: Tensor, value: float | None, surely: bool) -> bool:
    """Whether one row says nothing of what its neighbours show; ``value`` if it is constant."""
    if value is not None:
        elsewhere = max(_share_of(above, value), _share_of(below, value))
        return elsewhere < RARE if surely else 1 - _share_of(row, value) <= OTHER * (1 - elsewhere)
    return float(torch.minimum(_dependence(row, above), _dependence(row, below))) > DEPENDENT


def _quartile(values: Tensor) -> Tensor:
    """Q of the absolute values along the last dimension; those that are not known do not count."""
    ordered = ascending_lines(values.abs())  # nan comes last
    known = ordered.isfinite().sum(dim=-1, keepdim=True)
    return ordered.gather(-1, known // 4)[..., 0]


def _dependence(one: Tensor, other: Tensor) -> Tensor:
    """R of lines along the last dimension; 1 where they do not vary."""
    length = other.shape[-1]
    apart = torch.cat([one - other.roll(round(lag * length), -1) for lag in LAGS], dim=-1)
    by_chance = _quartile(apart)
    return torch.where(by_chance > LEVEL, _quartile(one - other) / by_chance.clamp_min(1e-12), 1.0).nan_to_num(1.0)


def _mode(line: Tensor) -> tuple[Tensor, Tensor]:
    """The most frequent value of each line, to a grey level, and its share."""
    ordered = ascending_lines(line).nan_to_num(torch.inf)
    known = ordered.isfinite().sum(dim=-1).clamp_min(1)
    begin = torch.arange(line.shape[-1], device=line.device)
    counts = torch.searchsorted(ordered, ordered + 2 * LEVEL, right=True) - begin
    counts = torch.where(ordered.isfinite(), torch.minimum(counts, known[..., None] - begin), 0)
    most = counts.max(dim=-1)
    value = ordered.gather(-1, (most.indices + most.values // 2).clamp_max(line.shape[-1] - 1)[..., None])[..., 0]
    return value, most.values / known


def _share_of(line: Tensor, value: float) -> float:
    """The share of the entries of a line that have a value."""
    return float(((line - value).abs() <= LEVEL).sum() / line.isfinite().sum().clamp_min(1))


def _standing_out(line: Tensor) -> Tensor:
    """The share of other values that a constant line may have, ``(C, 1)``: that of the entries that are outliers.

    Negative where there are too many.
    """
    around = _median_of_five([line.roll(k, -1) for k in (-2, -1, 0, 1, 2)])
    share = ((line - around).abs() > FAR).sum(dim=(1, 2)) / line.isfinite().sum(dim=(1, 2)).clamp_min(1)
    allowed = 1.6 * share + 3 * (share / line.shape[-1]).sqrt() + 0.02
    return torch.where(allowed < MOST, allowed, -1.0)[:, None]


def _median_of_five(values: Sequence[Tensor]) -> Tensor:
    """Return the median of five arrays, without nan."""
    a, b, c, d, e = values
    if bool(a.isnan().any()):
        return torch.stack(list(values)).nanmedian(dim=0).values
    low = torch.maximum(torch.minimum(a, b), torch.minimum(c, d))
    high = torch.minimum(torch.maximum(a, b), torch.maximum(c, d))
    return torch.maximum(torch.minimum(low, high), torch.minimum(e, torch.maximum(low, high)))
