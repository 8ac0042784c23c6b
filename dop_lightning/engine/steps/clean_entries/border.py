r"""Flat border lines: a first or last row or column that has one value in a channel, unlike the picture beside it.

Scanners and converters leave such lines, and they belong to the picture. Under impulses, the entries that still have
the value v look like impulses to everything that compares them with their neighbours. A line of n entries is flat if

- more than :data:`MOST` of its entries have the value v, significantly more than in the adjacent line;
- the others are far from v; and
- they are placed independently. If n₁ entries have v and n₂ do not, independent entries form ``1 + 2n₁n₂/n`` runs of
  equal kind on average, with variance ``(μ − 1)(μ − 2)/(n − 1)`` [Wald & Wolfowitz, 1940].

Shapes: C×H×W, an image.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dop_lightning.problems.problem import Problem, scale

SHORTEST = 48
"""Lines with fewer observed entries are not tested."""

MOST = 0.5
"""Share of the entries that have the value of a flat line."""

MORE = 0.15
"""Least difference of that share between the line and the adjacent one."""

FAR = 0.25
"""Distance of an outlier from v, in scales of the observation."""

NEAR = 0.02
"""Largest share of entries that differ from v by less."""

DEVIATIONS = 3.0
"""Standard deviations: the least of that difference, and the largest of the number of runs."""


def border_of(problem: Problem, damage: str) -> Tensor:
    """Return the values of flat border lines, ``(*m)``, nan elsewhere and if ``damage`` is ``points``.

    A tile has those of its whole.
    """
    part = problem.part
    whole = problem if part is None else part.whole
    if damage == "points" or whole.observation.dim() != 3:
        return torch.full_like(problem.observation, math.nan)
    if part is None:
        return flat_border(whole.observation, scale(whole), whole.mask)
    height, width = whole.observation.shape[1:]
    sides = (part.rows.start == 0, part.rows.stop == height, part.columns.start == 0, part.columns.stop == width)
    found = torch.full_like(problem.observation, math.nan)
    for c, side, value in _flat_lines(whole.observation, scale(whole), whole.mask, sides):
        _side(found[c], side).fill_(value)
    return found


def flat_border(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """Return the values of flat border lines.

    Args:
        y: the observation, ``(C, H, W)``.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are.

    Returns:
        ``(C, H, W)``, v at the entries of flat lines and nan elsewhere.

    >>> y = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> y[0, :, 0] = (torch.rand(64, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    >>> flat_border(y)[0, 10, :3]
    tensor([0., nan, nan])
    """
    values = torch.full_like(y, math.nan)
    for c, side, value in _flat_lines(y, scale, observed, (True,) * 4):
        _side(values[c], side).fill_(value)
    return values


def _flat_lines(
    y: Tensor, scale: float, observed: Tensor | None, sides: Sequence[bool]
) -> Iterator[tuple[int, int, float]]:
    """Yield the channel, the side and the value of flat border lines; sides are top, bottom, left and right."""
    if min(y.shape[1:]) < 2:
        return
    for c in range(len(y)):
        for side in (k for k in range(4) if sides[k]):
            line, beside = (_side(y[c], side, depth) for depth in (0, 1))
            if observed is not None:
                line, beside = line[_side(observed[c], side)], beside[_side(observed[c], side, 1)]
            value = _flat_value(line, beside, scale)
            if value is not None:
                yield c, side, value


def _side(channel: Tensor, side: int, depth: int = 0) -> Tensor:
    """Return a line along a side of ``(H, W)``, ``depth`` lines from it."""
    return (channel if side < 2 else channel.mT)[depth if side % 2 == 0 else -1 - depth]


def _flat_value(line: Tensor, beside: Tensor, scale: float) -> float | None:
    """Return v if a line of n entries is flat, unlike the adjacent one."""
    n = line.numel()
    if n < SHORTEST:
        return None
    value = float(line.mode().values)
    equal = line == value
    count = int(equal.sum())
    other = float((beside == value).to(line.dtype).mean())
    chance = math.sqrt((count / n * (1 - count / n) + other * (1 - other)) / n)
    if count <= MOST * n or count == n or count / n - other < max(MORE, DEVIATIONS * chance):
        return None
    if float(((line - value).abs() < FAR * scale).sum()) - count > NEAR * n:
        return None
    expected = 1 + 2 * count * (n - count) / n
    deviation = math.sqrt(max((expected - 1) * (expected - 2) / (n - 1), 0))
    runs = 1 + int((equal[1:] != equal[:-1]).sum())
    return value if abs(runs - expected) <= DEVIATIONS * deviation else None
