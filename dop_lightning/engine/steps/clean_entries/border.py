r"""Detection of flat border lines: a first or last row or column of constant value v in one channel.

Scanners and converters leave such lines at the border of an image. They are part of the true image. Under impulse
noise, however, the entries that still have the value v look like impulses to any method that compares them with their
neighbours. A line of n entries is flat if

- more than :data:`MIN_FLAT_FRACTION` of its entries have the value v, significantly more than in the adjacent line;
- the other entries are far from v; and
- the positions of the other entries are random. If n₁ entries have the value v and n₂ do not, independent entries form
  ``μ = 1 + 2n₁n₂/n`` runs on average, with variance ``(μ − 1)(μ − 2)/(n − 1)`` [Wald & Wolfowitz, 1940].

Shapes: C×H×W, an image.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dop_lightning.problems.problem import Problem, scale

SHORTEST = 48
"""Minimum number of observed entries; shorter lines are not tested."""

MIN_FLAT_FRACTION = 0.5
"""Minimum fraction of entries with the value v in a flat line."""

MIN_FRACTION_DIFFERENCE = 0.15
"""Minimum difference of this fraction between the line and the adjacent line."""

MIN_OUTLIER_DISTANCE = 0.25
"""Minimum distance of an outlier from v, in scales of the observation."""

MAX_NEAR_FRACTION = 0.02
"""Maximum fraction of entries that differ from v by less than :data:`MIN_OUTLIER_DISTANCE`."""

DEVIATIONS = 3.0
"""Significance level in standard deviations: minimum for the difference in the fraction of v between the two lines,
maximum for the deviation of the number of runs from its mean."""


def border_of(problem: Problem, damage: str) -> Tensor:
    """Return the values of the flat border lines of a problem, ``(*m)``; nan elsewhere.

    The result is all nan if ``damage`` is ``points``. For a tile, the lines of the whole image are used.
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
    """Detect flat border lines and return their values.

    Args:
        y: observation, ``(C, H, W)``.
        scale: scale of the observation, positive.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed.

    Returns:
        ``(C, H, W)``, the value v at the entries of flat lines and nan elsewhere.

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
    """Yield channel, side and value of each flat border line. The sides are top, bottom, left and right (0 to 3)."""
    if min(y.shape[1:]) < 2:
        return
    for c in range(len(y)):
        for side in (k for k in range(4) if sides[k]):
            line, adjacent = (_side(y[c], side, depth) for depth in (0, 1))
            if observed is not None:
                line, adjacent = line[_side(observed[c], side)], adjacent[_side(observed[c], side, 1)]
            value = _flat_value(line, adjacent, scale)
            if value is not None:
                yield c, side, value


def _side(channel: Tensor, side: int, depth: int = 0) -> Tensor:
    """Return the row or column of ``(H, W)`` that is ``depth`` lines from a side."""
    return (channel if side < 2 else channel.mT)[depth if side % 2 == 0 else -1 - depth]


def _flat_value(line: Tensor, adjacent: Tensor, scale: float) -> float | None:
    """Return v if a line of n entries is flat and the adjacent line is not; otherwise ``None``."""
    n = line.numel()
    if n < SHORTEST:
        return None
    value = float(line.mode().values)
    equal = line == value
    count = int(equal.sum())
    other = float((adjacent == value).to(line.dtype).mean())
    chance = math.sqrt((count / n * (1 - count / n) + other * (1 - other)) / n)
    if (
        count <= MIN_FLAT_FRACTION * n
        or count == n
        or count / n - other < max(MIN_FRACTION_DIFFERENCE, DEVIATIONS * chance)
    ):
        return None
    if float(((line - value).abs() < MIN_OUTLIER_DISTANCE * scale).sum()) - count > MAX_NEAR_FRACTION * n:
        return None
    expected = 1 + 2 * count * (n - count) / n
    deviation = math.sqrt(max((expected - 1) * (expected - 2) / (n - 1), 0))
    runs = 1 + int((equal[1:] != equal[:-1]).sum())
    return value if abs(runs - expected) <= DEVIATIONS * deviation else None
