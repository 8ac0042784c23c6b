"""Whether an observed matrix is symmetric apart from outliers, as ``UUᵀ`` is.

Shapes: Y ``(n, n)``.
"""

import torch
from torch import Tensor

from dop_lightning.problems.problem import Problem

QUANTILE = 0.1
"""Of the pairs of opposite entries, the share that must agree. Of half outliers, a quarter do."""

LIMIT = 0.5
"""Agreement, relative to that of unrelated entries, beyond which a matrix is not symmetric."""

LEAST_PAIRS = 50
"""Of fewer pairs nothing is said."""


def asymmetry(observation: Tensor, mask: Tensor | None = None) -> float | None:
    """How far a matrix is from symmetric apart from outliers: about 0 where it is, about 1 where nothing is alike.

    The 10 % quantile of ``|Yᵢⱼ − Yⱼᵢ|`` divided by that of ``|Yᵢⱼ − Yⱼ₋₁,ᵢ|``, entries that have nothing to do with
    each other in a symmetric matrix either. A quantile that low does not see outliers: at 50 % of them a quarter of
    the pairs have none. A median would.

    Args:
        observation: Y ``(n, n)``.
        mask: boolean ``(n, n)``, true where Y was observed; ``None`` for all.

    Returns:
        At least 0; ``None`` where fewer than 50 pairs were observed, too few to tell, or where the entries are alike
        anyhow, so that there is nothing to compare with.

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
    if len(pairs) < LEAST_PAIRS or len(unrelated) < LEAST_PAIRS:
        return None
    scale = _low(unrelated)
    return _low(pairs) / scale if scale > 0 else None


def _low(values: Tensor) -> float:
    return float(values.kthvalue(max(1, int(QUANTILE * len(values)))).values)


def symmetry_hint(problem: Problem) -> str | None:
    """A line for the user where ``UUᵀ`` is to be fitted to a matrix that is far from symmetric; else ``None``.

    To be asked where the operator is the identity or an entry mask: of measurements nothing is known, and ``None`` is
    returned.
    """
    y = problem.observation
    if problem.sensing is not None or y.ndim != 2 or y.shape[0] != y.shape[1]:
        return None
    found = asymmetry(y, problem.mask)
    if found is None or found <= LIMIT:
        return None
    return (
        f"{problem.name}: the observation is far from symmetric, not by outliers alone, and UUᵀ is symmetric; "
        "for any matrix use UVᵀ: --model.signal Factor"
    )
