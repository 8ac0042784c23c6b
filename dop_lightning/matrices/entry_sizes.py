"""Which matrices DOP and the convex program can separate, by the sizes of their entries."""

import torch
from torch import Tensor

from dop_lightning.problems.problem import Problem, scale

CONVEX_SPREAD = 1e6
"""The largest entry of a convex program, in units of the median: its tolerance is relative to all of the matrix."""


def check_sizes(problem: Problem) -> None:
    """Refuse numbers whose squares are none of their type.

    Raises:
        ValueError: they are too large, or so small that the square of their rounding is 0.
    """
    y = problem.observation
    limits = torch.finfo(y.dtype)
    largest = _largest(y)
    most, least = 1e-3 * (limits.max / y.numel()) ** 0.5, limits.tiny**0.5 / limits.eps
    if largest > most or 0 < largest < least:
        raise ValueError(
            f"{problem.name}: the largest entry must lie between {least:.0e} and {most:.0e} for numbers of "
            f"{limits.bits} bits, got {largest:.3g}; use another unit"
        )


def check_spread(problem: Problem, limit: float | None = None) -> None:
    """Refuse an entry beside which the others are lost to rounding.

    Args:
        problem: the matrix.
        limit: of the largest entry, in units of the median absolute value; by default 1/ε of its number format.

    Raises:
        ValueError: the largest entry is larger.
    """
    y = problem.observation
    limit = 1 / torch.finfo(y.dtype).eps if limit is None else limit
    largest, unit = _largest(y), scale(problem)
    if largest > limit * unit:
        raise ValueError(
            f"{problem.name}: the largest entry must be at most {limit:.0e} times the median absolute value, got "
            f"{largest / unit:.1e} times; replace it by NaN, which marks what is missing"
        )


def _largest(y: Tensor) -> float:
    """Return the largest absolute value, without a copy."""
    return max(abs(float(extreme)) for extreme in y.aminmax())
