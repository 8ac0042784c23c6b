r"""Huber regression of many rows onto common, known components.

Shapes: n rows, m columns, r components.
"""

import torch
from torch import Tensor

from dop_lightning.foundation.checks import positive

EFFICIENCY = 1.345
"""Huber's k in units of the noise, for 95 % efficiency under Gaussian noise."""

NARROWING, REST = 9, 7
"""The threshold falls from half of the range to k·σ in ``NARROWING`` iterations; ``REST`` iterations follow."""

REJECTED = 4.0
"""Entries whose residual exceeds this many robust standard deviations of their row get weight 0 in the last step."""

FINAL_PENALTY_FACTOR = 0.1
"""Factor on the penalty in the last step, which no longer needs protection against outliers."""

RANGE = 1.0
"""Range of the values of frames."""

AT_ONCE = 2**21
"""Entries of rows, or of their Gram matrices, that are processed at once."""


def huber_codes(rows: Tensor, components: Tensor, noise: float, penalty: Tensor | None = None) -> Tensor:
    r"""Return the codes c of rows ``y ≈ cV + s`` with sparse s, independently for each row.

    ``c = argmin k·σ·[Σ ρ(y − cV)/(k·σ) + ½ Σ_i penalty_i·c_i²]`` with Huber's ``ρ(t) = t²/2`` for ``|t| ≤ k·σ`` and
    ``k·σ·|t| − (k·σ)²/2`` otherwise. For small σ, the objective in brackets approaches that of
    :func:`~dop_lightning.engine.robust_codes.robust_codes`. It is minimised by modified residuals,
    ``c ← c + (VVᵀ + K)⁻¹(Vψ(y − cV) − Kc)`` with ψ = ρ′ and ``K = k·σ·diag(penalty)`` [Huber and Ronchetti, *Robust
    Statistics*, 2009, section 7.8], so that all rows share one factorization. The last step is a least-squares fit with
    a tenth of K to the entries whose residual is at most 4 robust standard deviations of their row.

    Args:
        rows: ``(n, m)``, frames in [0, 1], or differences of frames.
        components: V, ``(r, m)``, of the same dtype.
        noise: σ, standard deviation of the entries that are not outliers, above 0, in units of the rows.
        penalty: ``(r,)``, at least 0, as in ``robust_codes``; ``None`` means 0.

    Returns:
        ``(n, r)``.

    Raises:
        ValueError: the shapes do not match, or the noise is not positive.

    >>> V = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0]])
    >>> huber_codes(torch.tensor([[0.2, 0.2, 0.9, 0.2, 0.2]]), V, 0.01).round(decimals=3)
    tensor([[0.2000]])
    """
    if rows.dim() != 2 or components.dim() != 2 or rows.shape[1] != components.shape[1]:
        raise ValueError(
            f"rows and components must have the same number of columns, got {tuple(rows.shape)} and "
            f"{tuple(components.shape)}"
        )
    threshold = EFFICIENCY * positive("noise", noise)
    r = len(components)
    if r == 0 or rows.numel() == 0:
        return rows.new_zeros(len(rows), r)
    ridge = rows.new_zeros(r) if penalty is None else threshold * penalty.to(rows)
    gram = components @ components.mT
    least = len(components) * torch.finfo(rows.dtype).eps * gram.diagonal().amax()
    ridge = ridge + least.clamp_min(torch.finfo(rows.dtype).tiny)  # unique codes even for dependent components
    chunk = max(1, AT_ONCE // max(r**2, rows.shape[1]))
    return torch.cat([_codes(part, components, gram, ridge, threshold) for part in rows.split(chunk)])


def _codes(y: Tensor, V: Tensor, gram: Tensor, ridge: Tensor, threshold: float) -> Tensor:
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram + ridge.diag()))  # symmetric
    codes = y @ (V.mT @ inverse)
    widest = max(1.0, RANGE / 2 / threshold)
    narrowing = [widest ** (1 - i / (NARROWING - 1)) for i in range(NARROWING)]
    for factor in (*narrowing, *[1.0] * REST):
        bounded = torch.addmm(y, codes, V, alpha=-1).clamp_(-factor * threshold, factor * threshold)
        codes = codes + (bounded @ V.mT - codes * ridge) @ inverse
    residual = torch.addmm(y, codes, V, alpha=-1).abs_()
    spread = robust_deviation(residual).clamp_min(threshold / EFFICIENCY)
    kept = (residual <= REJECTED * spread[:, None]).to(y)
    products = (V[:, None] * V).flatten(0, 1)  # r² m: one product yields all Gram matrices
    grams = (kept @ products.mT).view(-1, len(V), len(V))
    grams.diagonal(dim1=1, dim2=2).add_(FINAL_PENALTY_FACTOR * ridge)
    return torch.linalg.solve_ex(grams, ((kept * y) @ V.mT)[:, :, None]).result[:, :, 0]


def robust_deviation(residuals: Tensor) -> Tensor:
    """Return the robust standard deviation of each row, ``1.4826·median|r|`` of ``(n, m)``, as ``(n,)``.

    The factor makes the result consistent with Gaussian noise [Hampel, 1974].

    >>> robust_deviation(torch.tensor([[1.0, -1.0, 1.0, 100.0, -1.0]]))
    tensor([1.4826])
    """
    return 1.4826 * residuals.abs().median(dim=1).values
