r"""Dead lines: whole rows and columns that carry no information about the scene.

Isolated outliers are detected by their places. A dead row, however, is connected and looks like a line in the picture.
It differs from one in two ways. It runs from one end of the image to the other, and the picture continues across it:
its neighbours, a above and b below, depend on each other, but the row does not depend on them.

Let ``Q`` be a low quantile over the entries of a line, and v′ a copy of v that is shifted along the line by a large
distance. The dependence of two lines u and v is

    ``R(u, v) = Q|u − v| / Q|u − v′|``,

which is near 0 if they show the same content and 1 if they are independent. If a fraction p of the entries are other
outliers, a fraction (1 − p)² of the differences is free of them. Q is the quantile at half of that fraction, at most
the lower quartile. A row y is dead if ``R(a, b) < 0.7`` and it is

- *constant*: the fraction of its entries within one grey level of some value v is at least the fraction of entries
  that do not stand out from their line, the others are rarely near v, and a and b vary and rarely have that value; or
- *noise*: ``R(y, a)`` and ``R(y, b)`` are above 0.7, and the difference of adjacent entries, ``Q|yⱼ − yⱼ₊₁|``, is
  several times that of a and b.

In a photograph, no line is constant within one grey level from end to end while its neighbours vary. Table rules,
window frames on a screen and lines of a drawing lie on a uniform background, where a and b are constant or equal.
Once a line has been detected, weaker criteria apply to other lines, such as those across a black coat.

Shapes: C×H×W, an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.sorting import ascending_lines

SHORTEST = 48
"""Minimum number of entries of a line that can be judged."""

THICKEST = 4
"""Maximum number of adjacent dead lines."""

SAMPLES = 512
"""Maximum number of entries of a line that are examined, evenly spaced."""

LEVEL = 1.5 / 255
"""Entries count as equal if they differ by at most this, in scales of the observation."""

MOST = 0.6
"""Upper bound of the fraction of other values allowed in a constant line. Above it, too many entries may be outliers,
and no dead lines are detected in the channel."""

FAR = 0.25
"""Deviation from the local median of its line above which an entry stands out, in scales of the observation."""

UNNOTICED = 1.6
"""Fraction of outliers, relative to that of entries that stand out."""

DEPENDENT = 0.7
"""R below which two lines depend on each other."""

DULL = 0.65
"""Fraction of entries with one of two values from which a line counts as paper, a frame or a wall, and its neighbours
are not tested."""

REPEATED = 0.9
"""Fraction of equal entries above which two lines belong to a drawing."""

NEAR = 20.5 / 255
"""Other values are near that of a constant line if they differ by at most this, in scales of the observation."""

NEARBY = 0.4
"""Upper bound of the fraction of other values of a constant line that are near its value. Its smallest and its largest
value are not counted, because impulses have them. Values of outliers are rarely near, those of smooth parts often."""

FEW = 0.02
"""Fraction of other values in a constant line, and of those near its value, that is always allowed."""

RARE = 0.35
"""In an image without other dead lines, upper bound of the fraction of the neighbours' entries that have the value of a
constant line."""

OTHER = 0.6
"""Upper bound of the fraction of other values in a constant line, relative to that in its neighbours."""

ROUGH = 2.5
"""Minimum roughness of a noise line relative to its neighbours."""

LAGS = (0.29, 0.43, 0.61)
"""Distances at which the entries of a line count as independent, as fractions of its length."""


def dead_lines(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """Return which entries belong to dead rows or columns.

    The first and last rows and columns are never detected, because they have only one neighbour.

    Args:
        y: the observation, ``(C, H, W)``; no lines are detected for any other number of dimensions.
        scale: scale of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed.

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
    if bool(rows.any() | columns.any()):  # weaker criteria once some lines are dead
        rows |= _dead_rows(values, surely=False)
        columns |= _dead_rows(values.transpose(1, 2), surely=False)
    return rows[:, :, None] | columns[:, None, :]


def _dead_rows(y: Tensor, surely: bool) -> Tensor:
    """Return which rows are dead, bool ``(C, H)``; unobserved entries of ``y`` are nan."""
    channels, height, width = y.shape
    dead = torch.zeros(channels, height, dtype=torch.bool, device=y.device)
    if min(height, width) < SHORTEST:
        return dead
    at = torch.linspace(0, width - 1, min(width, SAMPLES), device=y.device).long()
    line = y[:, :, at]
    allowed, low = _standing_out(line)
    rough = _quantile(y[:, :, (at + 1) % width] - line, low[:, None])
    value, share, near = _mode(line)
    constant = (1 - share <= allowed) & (near <= NEARBY * (1 - share) + FEW)
    for c in range(channels):
        for thickness in range(1, THICKEST + 1):
            count = height - thickness - 1  # groups that exclude the first and the last row
            neighbours = torch.maximum(rough[c, :count], rough[c, thickness + 1 :]).clamp_min(LEVEL)
            odd = torch.stack(
                [
                    constant[c, k : k + count] | ((rough[c, k : k + count] > ROUGH * neighbours) & (allowed[c] > 0))
                    for k in _group_positions(thickness)
                ]
            )
            # dead or constant lines cannot be neighbours, and dead lines belong to one group only
            odd_one = dead[c] | constant[c]
            free = ~(odd_one[:count] | odd_one[thickness + 1 :] | dead[c, 1 : count + 1])
            for begin in (odd.all(dim=0) & free).nonzero().flatten().tolist():
                above, below = line[c, begin], line[c, begin + thickness + 1]
                if surely and not _is_background(above, below, low[c]):
                    continue
                dead[c, begin + 1 : begin + thickness + 1] |= all(
                    _is_dead(line[c, k], above, below, low[c], float(value[c, k]) if constant[c, k] else None, surely)
                    for k in range(begin + 1, begin + thickness + 1)
                )
    return dead | (dead.any(dim=0, keepdim=True) & constant)


def _group_positions(thickness: int) -> range:
    """Return the positions of the rows of a group relative to its upper neighbour."""
    return range(1, thickness + 1)


def _is_background(above: Tensor, below: Tensor, low: Tensor) -> bool:
    """Return whether two lines show the same part of a photograph, not of a drawing.

    In a drawing, adjacent lines are equal or have only two values.
    """
    if max(_frequent_fraction(above), _frequent_fraction(below)) >= DULL:
        return False
    known = (above - below).isfinite().sum().clamp_min(1)
    if float((above == below).sum() / known) > REPEATED:
        return False
    return float(_dependence(above, below, low)) < DEPENDENT


def _frequent_fraction(line: Tensor) -> float:
    """Return the fraction of entries of a line with one of its two most frequent values."""
    levels = (line[line.isfinite()] / (2 * LEVEL)).round()
    counts = levels.unique(return_counts=True)[1]
    return float(counts.sort().values[-2:].sum() / levels.numel()) if levels.numel() else 1.0


def _is_dead(row: Tensor, above: Tensor, below: Tensor, low: Tensor, value: float | None, surely: bool) -> bool:
    """Return whether a row is independent of its neighbours; ``value`` is its value if it is constant."""
    if value is not None:
        elsewhere = max(_value_fraction(above, value), _value_fraction(below, value))
        distinct = 1 - _value_fraction(row, value) <= OTHER * (1 - elsewhere)
        return distinct and (elsewhere < RARE or not surely)
    return float(torch.minimum(_dependence(row, above, low), _dependence(row, below, low))) > DEPENDENT


def _quantile(values: Tensor, low: Tensor) -> Tensor:
    """Return Q of the absolute values along the last dimension, ignoring nan; ``low`` is its fraction."""
    ordered = ascending_lines(values.abs())  # nan last
    known = ordered.isfinite().sum(dim=-1, keepdim=True)
    return ordered.gather(-1, (known * low[..., None]).long())[..., 0]


def _dependence(one: Tensor, other: Tensor, low: Tensor) -> Tensor:
    """Return R of lines along the last dimension; 1 if they are constant."""
    length = other.shape[-1]
    apart = torch.cat([one - other.roll(round(lag * length), -1) for lag in LAGS], dim=-1)
    by_chance = _quantile(apart, low)
    return torch.where(by_chance > LEVEL, _quantile(one - other, low) / by_chance.clamp_min(1e-12), 1.0).nan_to_num(1.0)


def _mode(line: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the most frequent value of each line, the fraction of entries within one grey level, and that near it."""
    ordered = ascending_lines(line).nan_to_num(torch.inf)
    known = ordered.isfinite().sum(dim=-1).clamp_min(1)
    begin = torch.arange(line.shape[-1], device=line.device)
    counts = torch.searchsorted(ordered, ordered + 2 * LEVEL, right=True) - begin
    counts = torch.where(ordered.isfinite(), torch.minimum(counts, known[..., None] - begin), 0)
    most = counts.max(dim=-1)
    value = ordered.gather(-1, (most.indices + most.values // 2).clamp_max(line.shape[-1] - 1)[..., None])[..., 0]
    apart = (line - value[..., None]).abs()
    near = ((apart > 2 * LEVEL) & (apart <= NEAR) & ~_is_extreme(line, -1)).sum(dim=-1)
    return value, most.values / known, near / known


def _value_fraction(line: Tensor, value: float) -> float:
    """Return the fraction of entries of a line that have a value."""
    return float(((line - value).abs() <= LEVEL).sum() / line.isfinite().sum().clamp_min(1))


def _is_extreme(line: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """Return which entries have the smallest or the largest value along ``dims``, as impulses do."""
    lowest = line.nan_to_num(torch.inf).amin(dims, keepdim=True)
    highest = line.nan_to_num(-torch.inf).amax(dims, keepdim=True)
    return (line - lowest <= LEVEL) | (highest - line <= LEVEL)


def _standing_out(line: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum fraction of other values in a constant line, ``(C, 1)``, and the fraction of Q, ``(C,)``.

    Both follow the fraction of entries that stand out from their line. The first is −1 if that is too large.
    """
    around = _median_of_five([line.roll(k, -1) for k in (-2, -1, 0, 1, 2)])
    stand_out = (line - around).abs() > FAR
    salt_and_pepper = stand_out & _is_extreme(line, (1, 2))
    known = line.isfinite().sum(dim=(1, 2)).clamp_min(1)
    share, noticed = (each.sum(dim=(1, 2)) / known for each in (stand_out, salt_and_pepper))
    allowed = UNNOTICED * share + 3 * (share / line.shape[-1]).sqrt() + FEW
    other = 2 * (share - noticed) + noticed  # half of random values are within a quarter of the range of grey
    low = ((1 - other).clamp_min(0.2).square() / 2).clamp_max(0.25)
    return torch.where(allowed < MOST, allowed, -1.0)[:, None], low


def _median_of_five(values: Sequence[Tensor]) -> Tensor:
    """Return the elementwise median of five arrays, ignoring nan."""
    a, b, c, d, e = values
    if bool(a.isnan().any()):
        return torch.stack(list(values)).nanmedian(dim=0).values
    low = torch.maximum(torch.minimum(a, b), torch.minimum(c, d))
    high = torch.minimum(torch.maximum(a, b), torch.maximum(c, d))
    return torch.maximum(torch.minimum(low, high), torch.minimum(e, torch.maximum(low, high)))
