"""Partial thresholding of singular values and eigenvalues, for a large low-rank matrix.

Only the leading values are computed, by subspace iteration on a block of columns. The iteration starts from the range
of the previous solution; the block is enlarged if all its values exceed the threshold. A bound on the error ends the
iteration. Let R hold the residuals of the retained triplets: these are exact triplets of a matrix within ``‖R‖_F`` of M
(``√2‖R‖_F`` of a symmetric one), and proximal operators are nonexpansive. The other triplets must be below the
threshold by their own residual. If these conditions are not met soon, the full decomposition is computed. Either way,
the result is the same within the bound.

Shapes: n rows, m columns, b columns of the block.
"""

import torch
from torch import Tensor

EXTRA = 10
"""Columns of the block in addition to the expected rank, to find values that have risen above the threshold."""

PASSES = 12
"""Products of the matrix with a block before falling back to the full decomposition, which takes about as long."""

SEARCH = 3
"""Minimum number of passes, so that random columns align with values that have risen above the threshold."""

MAX_BLOCK_DIVISOR = 4
"""A block with more than 1/MAX_BLOCK_DIVISOR of the smaller side's columns is no faster than the full decomposition."""


def partial_singular_value_threshold(
    M: Tensor, threshold: Tensor, last: Tensor, rank: int, error: float
) -> tuple[Tensor, int]:
    """Compute :func:`~dop_lightning.engine.convex.proximal.singular_value_threshold` of one matrix.

    Args:
        M: ``(n, m)``, finite.
        threshold: t, scalar, at least 0.
        last: previous solution, ``(n, m)``, where the search starts.
        rank: rank of ``last``.
        error: bound on the Frobenius norm of the error, relative to the largest singular value; above 0.

    Returns:
        The result, ``(n, m)``, and the number of singular values above t.
    """
    Q: Tensor | None = _start_subspace(last, rank)
    U, S = M[:, :0], M[0, :0]
    for number in range(PASSES):
        if Q is None:
            break
        Z = M @ Q  # n b
        if number > 0:
            residuals = torch.linalg.vector_norm(Z - U * S, dim=0)  # of M·V = U·S; Mᵀ·U = V·S holds exactly
            kept = threshold < S
            if bool(kept.all()):
                Q = _enlarge(Q)
                U, S = M[:, :0], M[0, :0]
                if Q is None:
                    break
                Z = M @ Q
            elif number >= SEARCH - 1 and _has_converged(S, residuals, kept, threshold, error):
                return (U[:, kept] * (S[kept] - threshold)) @ Q[:, kept].mT, int(kept.sum())
        U = torch.linalg.qr(Z)[0]
        Q, S, Ph = torch.linalg.svd(M.mT @ U, full_matrices=False)  # m b: right Ritz vectors, descending values
        U = U @ Ph.mT
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    return (U * (S - threshold).clamp(min=0)) @ Vh, int((threshold < S).sum())


def partial_eigenvalue_threshold(
    M: Tensor, threshold: Tensor, last: Tensor, rank: int, error: float
) -> tuple[Tensor, int]:
    """Compute :func:`~dop_lightning.engine.convex.proximal.eigenvalue_threshold` of one matrix.

    The block holds the eigenvalues of largest magnitude, of either sign, until one is at most t in magnitude.

    Args:
        M: ``(n, n)``, finite, need not be symmetric.
        threshold: t, scalar, at least 0.
        last: previous solution, ``(n, n)``, symmetric, where the search starts.
        rank: rank of ``last``.
        error: bound on the Frobenius norm of the error, relative to the largest magnitude; above 0.

    Returns:
        The result, ``(n, n)``, and the number of eigenvalues above t.
    """
    H = (M + M.mT) / 2
    Q: Tensor | None = _start_subspace(last, rank)
    for number in range(PASSES):
        if Q is None:
            break
        Z = H @ Q  # n b
        w, P = torch.linalg.eigh(Q.mT @ Z)
        V, Z = Q @ P, Z @ P
        residuals = torch.linalg.vector_norm(Z - V * w, dim=0)
        kept = w > threshold
        if bool((w.abs() > threshold).all()):
            Q = _enlarge(V)
        elif number >= SEARCH and _has_converged(w, residuals, kept, threshold, error):
            return (V[:, kept] * (w[kept] - threshold)) @ V[:, kept].mT, int(kept.sum())
        else:
            Q = torch.linalg.qr(Z)[0]
    w, V = torch.linalg.eigh(H)
    return (V * (w - threshold).clamp(min=0)) @ V.mT, int((w > threshold).sum())


def _start_subspace(last: Tensor, rank: int) -> Tensor | None:
    """Return the row space of ``last`` and random columns, orthonormal ``(m, b)``; the columns are reproducible."""
    draws = _draw_normal(last, rank + EXTRA)
    if draws is None:
        return None
    if rank > 0:
        space = torch.linalg.qr(last.mT @ (last @ draws[:, :rank]))[0]
        draws = torch.cat([space, draws[:, rank:]], dim=1)
    return torch.linalg.qr(draws)[0]


def _enlarge(Q: Tensor) -> Tensor | None:
    """Return ``Q`` and as many random columns, orthonormal; ``None`` if the block would be too large."""
    draws = _draw_normal(Q, 2 * Q.shape[1], Q.shape[0])
    return None if draws is None else torch.linalg.qr(torch.cat([Q, draws[:, Q.shape[1] :]], dim=1))[0]


def _draw_normal(like: Tensor, columns: int, side: int | None = None) -> Tensor | None:
    """Return ``(m, columns)`` normal numbers; ``None`` if a block of this size does not pay off."""
    rows = like.shape[-1] if side is None else side
    smaller = min(like.shape) if side is None else side
    if MAX_BLOCK_DIVISOR * columns > smaller:
        return None
    generator = torch.Generator(device="cpu").manual_seed(0)
    return torch.randn(rows, columns, dtype=like.dtype, generator=generator, device="cpu").to(like.device)


def _has_converged(values: Tensor, residuals: Tensor, kept: Tensor, threshold: Tensor, error: float) -> bool:
    """Return whether the retained triplets are exact to the bound and the others are certainly below the threshold."""
    exact = torch.linalg.vector_norm(residuals * kept) <= error * values.abs().max()
    return bool(exact & (kept | (values + residuals <= threshold)).all())
