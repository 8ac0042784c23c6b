"""Check whether an observed matrix is symmetric apart from outliers, as required by ``UUᵀ``.

Shapes: Y ``(n, n)``.
"""

import torch
from torch import Tensor

from dop_lightning.problems.problem import Problem

QUANTILE = 0.1
"""Fraction of the pairs of opposite entries that must agree. With half of the entries outliers, a quarter agree."""

LIMIT = 0.5
"""Difference of opposite entries, relative to that of unrelated ones, above which a matrix is not symmetric."""

MIN_PAIRS = 50
"""Minimum number of pairs for an estimate."""


def asymmetry(observation: Tensor, mask: Tensor | None = None) -> float | None:
    """Measure the asymmetry of a matrix apart from outliers: about 0 if it is symmetric, about 1 if it is unrelated.

    It is the 10 % quantile of ``|Yᵢⱼ − Yⱼᵢ|`` divided by that of ``|Yᵢⱼ − Yⱼ₋₁,ᵢ|``, whose entries are unrelated even
    in a symmetric matrix. Unlike the median, such a low quantile is robust: with 50 % outliers, a quarter of the pairs
    contain none.

    Args:
        observation: Y ``(n, n)``.
        mask: boolean ``(n, n)``, true where Y was observed; ``None`` if all entries were observed.

    Returns:
        A number ≥ 0. ``None`` if fewer than 50 pairs were observed, or if unrelated entries are equal, so that they
        cannot serve as a reference.

    Raises:
        ValueError: the matrix is not square.
    """
    if observation.ndim != 2 or observation.shape[0] != observation.shape[1]:
        raise ValueError(f"observation must be a square matrix, got shape {tuple(observation.shape)}")
    observed = torch.ones_like(observation, dtype=torch.bool) if mask is None else mask
    opposite = observed & observed.T
    pairs = (observation - observation.T).abs()[opposite.triu(1)]
    shifted = (observation - observation.T.roll(1, 1)).abs()  # Yᵢⱼ with Yⱼ₋₁,ᵢ
    unrelated = shifted[observed & observed.T.roll(1, 1)]
    if len(pairs) < MIN_PAIRS or len(unrelated) < MIN_PAIRS:
        return None
    scale = _low_quantile(unrelated)
    return _low_quantile(pairs) / scale if scale > 0 else None


def _low_quantile(values: Tensor) -> float:
    return float(values.kthvalue(max(1, int(QUANTILE * len(values)))).values)


def symmetry_hint(problem: Problem) -> str | None:
    """Return one line of advice if ``UUᵀ`` is fitted to a matrix that is far from symmetric, otherwise ``None``.

    The operator must be the identity or an entry mask. For other measurements the symmetry is unknown, and ``None`` is
    returned.
    """
    y = problem.observation
    if problem.sensing is not None or y.ndim != 2 or y.shape[0] != y.shape[1]:
        return None
    found = asymmetry(y, problem.mask)
    if found is None or found <= LIMIT:
        return None
    return (
        f"{problem.name}: the observation is far from symmetric, even without outliers, but UUᵀ is symmetric; use "
        "UVᵀ instead: --model.signal Factor"
    )
