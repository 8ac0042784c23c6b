"""Check whether DOP and the convex program can separate a matrix, given the magnitudes of its entries."""

import torch
from torch import Tensor

from dop_lightning.problems.problem import Problem, scale

CONVEX_SPREAD = 1e6
"""Maximum entry for the convex program, in units of the median: its tolerance is relative to the whole matrix."""


def check_sizes(problem: Problem) -> None:
    """Raise an error if squares of the entries overflow or underflow.

    Raises:
        ValueError: the entries are too large, or so small that the square of their rounding error is 0.
    """
    y = problem.observation
    limits = torch.finfo(y.dtype)
    largest = _max_magnitude(y)
    most, least = 1e-3 * (limits.max / y.numel()) ** 0.5, limits.tiny**0.5 / limits.eps
    if largest > most or 0 < largest < least:
        raise ValueError(
            f"{problem.name}: the largest entry must be between {least:.0e} and {most:.0e} in {limits.bits}-bit "
            f"precision, got {largest:.3g}; use another unit"
        )


def check_spread(problem: Problem, limit: float | None = None) -> None:
    """Raise an error if the largest entry is so large that the others are lost to rounding.

    Args:
        problem: the matrix.
        limit: maximum entry in units of the median absolute value. Defaults to 1/ε of the dtype.

    Raises:
        ValueError: the largest entry exceeds the limit.
    """
    y = problem.observation
    limit = 1 / torch.finfo(y.dtype).eps if limit is None else limit
    largest, unit = _max_magnitude(y), scale(problem)
    if largest > limit * unit:
        raise ValueError(
            f"{problem.name}: the largest entry must be at most {limit:.0e} times the median absolute value, got "
            f"{largest / unit:.1e} times; replace it by NaN to mark it as missing"
        )


def _max_magnitude(y: Tensor) -> float:
    """Return the largest absolute value without copying the tensor."""
    return max(abs(float(extreme)) for extreme in y.aminmax())
