"""Thresholding of singular values and eigenvalues by the leading ones alone, for one large matrix of low rank.

Subspace iteration on a block of columns that starts from the range of the previous solution, and is enlarged where all
that it holds lies beyond the threshold. It ends by a bound on the error. Let R hold the residuals of the triplets that
are kept: they are exact triplets of a matrix within ``‖R‖_F`` of M (``√2‖R‖_F`` of a symmetric one), and a proximal
operator moves no further than its argument. Those that are not kept must lie below the threshold by their own residual.
Where neither comes true soon, the full decomposition is computed: the result is the same to the bound either way.

Shapes: n rows, m columns, b columns of the block.
"""

import torch
from torch import Tensor

EXTRA = 10
"""Columns of the block beyond the rank that is expected: they find what rises above the threshold."""

PASSES = 12
"""Products of the matrix with a block before the full decomposition takes over; as many take about as long."""

SEARCH = 3
"""Passes at least, so that random columns turn to what has risen above the threshold since the previous solution."""

SHARE = 4
"""A block of more than this part of the smaller side, one SHARE-th, is no faster than the full decomposition."""


def partial_singular_value_threshold(
    M: Tensor, threshold: Tensor, last: Tensor, rank: int, error: float
) -> tuple[Tensor, int]:
    """:func:`~dop_lightning.engine.convex.proximal.singular_value_threshold` of one matrix.

    Args:
        M: ``(n, m)``, finite.
        threshold: t, one number, at least 0.
        last: the previous solution, ``(n, m)``, where the search starts.
        rank: the rank of ``last``.
        error: bound on the Frobenius norm of the error, relative to the largest singular value; above 0.

    Returns:
        The result, ``(n, m)``, and how many singular values lie above t.
    """
    Q: Tensor | None = _start(last, rank)
    U, S = M[:, :0], M[0, :0]
    for number in range(PASSES):
        if Q is None:
            break
        Z = M @ Q  # n b
        if number > 0:
            residuals = torch.linalg.vector_norm(Z - U * S, dim=0)  # of M·V = U·S, where Mᵀ·U = V·S holds
            kept = threshold < S
            if bool(kept.all()):
                Q = _enlarged(Q)
                U, S = M[:, :0], M[0, :0]
                if Q is None:
                    break
                Z = M @ Q
            elif number >= SEARCH - 1 and _settled(S, residuals, kept, threshold, error):
                return (U[:, kept] * (S[kept] - threshold)) @ Q[:, kept].mT, int(kept.sum())
        U = torch.linalg.qr(Z)[0]
        Q, S, Ph = torch.linalg.svd(M.mT @ U, full_matrices=False)  # m b: right Ritz vectors, values from the largest
        U = U @ Ph.mT
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    return (U * (S - threshold).clamp(min=0)) @ Vh, int((threshold < S).sum())


def partial_eigenvalue_threshold(
    M: Tensor, threshold: Tensor, last: Tensor, rank: int, error: float
) -> tuple[Tensor, int]:
    """:func:`~dop_lightning.engine.convex.proximal.eigenvalue_threshold` of one matrix.

    The block holds the eigenvalues of largest magnitude, of either sign, down to one that is within ±t.

    Args:
        M: ``(n, n)``, finite, symmetric or not.
        threshold: t, one number, at least 0.
        last: the previous solution, ``(n, n)``, symmetric, where the search starts.
        rank: the rank of ``last``.
        error: bound on the Frobenius norm of the error, relative to the largest magnitude; above 0.

    Returns:
        The result, ``(n, n)``, and how many eigenvalues lie above t.
    """
    H = (M + M.mT) / 2
    Q: Tensor | None = _start(last, rank)
    for number in range(PASSES):
        if Q is None:
            break
        Z = H @ Q  # n b
        w, P = torch.linalg.eigh(Q.mT @ Z)
        V, Z = Q @ P, Z @ P
        residuals = torch.linalg.vector_norm(Z - V * w, dim=0)
        kept = w > threshold
        if bool((w.abs() > threshold).all()):
            Q = _enlarged(V)
        elif number >= SEARCH and _settled(w, residuals, kept, threshold, error):
            return (V[:, kept] * (w[kept] - threshold)) @ V[:, kept].mT, int(kept.sum())
        else:
            Q = torch.linalg.qr(Z)[0]
    w, V = torch.linalg.eigh(H)
    return (V * (w - threshold).clamp(min=0)) @ V.mT, int((w > threshold).sum())


def _start(last: Tensor, rank: int) -> Tensor | None:
    """``(m, b)`` orthonormal: the row space of ``last`` and random columns, always the same."""
    draws = _draws(last, rank + EXTRA)
    if draws is None:
        return None
    if rank > 0:
        space = torch.linalg.qr(last.mT @ (last @ draws[:, :rank]))[0]
        draws = torch.cat([space, draws[:, rank:]], dim=1)
    return torch.linalg.qr(draws)[0]


def _enlarged(Q: Tensor) -> Tensor | None:
    """``Q`` and as many random columns, orthonormal; ``None`` where that is too much."""
    draws = _draws(Q, 2 * Q.shape[1], Q.shape[0])
    return None if draws is None else torch.linalg.qr(torch.cat([Q, draws[:, Q.shape[1] :]], dim=1))[0]


def _draws(like: Tensor, columns: int, side: int | None = None) -> Tensor | None:
    """``(m, columns)`` normal numbers; ``None`` where a block of so many columns does not pay."""
    rows = like.shape[-1] if side is None else side
    smaller = min(like.shape) if side is None else side
    if SHARE * columns > smaller:
        return None
    generator = torch.Generator(device="cpu").manual_seed(0)
    return torch.randn(rows, columns, dtype=like.dtype, generator=generator, device="cpu").to(like.device)


def _settled(values: Tensor, residuals: Tensor, kept: Tensor, threshold: Tensor, error: float) -> bool:
    """Whether the kept triplets are exact to the bound, and the others surely below the threshold."""
    exact = torch.linalg.vector_norm(residuals * kept) <= error * values.abs().max()
    return bool(exact & (kept | (values + residuals <= threshold)).all())
