"""Proximal operators of ‖·‖₁, ‖·‖_* and trace + {X ⪰ 0}: thresholding of entries, singular values and eigenvalues.

The partial variants compute only the leading triplets, see :mod:`dop_lightning.engine.convex.partial`.

Shapes: K problems, n rows, m columns.
"""

from torch import Tensor
from torch.linalg import eigh, svd


def soft_threshold(v: Tensor, threshold: Tensor) -> Tensor:
    """``argmin_s t‖s‖₁ + ½‖s − v‖²``: shrink entries towards 0 by t, ``sign(v)·max(|v| − t, 0)``.

    Args:
        v: ``(K, *m)``.
        threshold: t, ``(K,)``, at least 0, one per problem.

    Returns:
        ``(K, *m)``.

    >>> import torch
    >>> soft_threshold(torch.tensor([[3.0, -0.5, -2.0]]), torch.tensor([1.0]))
    tensor([[ 2.,  0., -1.]])
    """
    t = threshold.view(-1, *[1] * (v.ndim - 1))
    return v - v.clamp(-t, t)


def singular_value_threshold(M: Tensor, threshold: Tensor) -> Tensor:
    """``argmin_X t‖X‖_* + ½‖X − M‖²``: ``U·max(Σ − t, 0)·Vᵀ`` with the singular value decomposition ``M = UΣVᵀ``.

    Args:
        M: ``(K, n, m)``, finite.
        threshold: t, ``(K,)``, at least 0, one per problem.

    Returns:
        ``(K, n, m)``.
    """
    U, S, Vh = svd(M, full_matrices=False)
    return (U * (S - threshold[:, None]).clamp(min=0)[:, None, :]) @ Vh


def eigenvalue_threshold(M: Tensor, threshold: Tensor) -> Tensor:
    """``argmin_X t‖X‖_* + ½‖X − M‖²`` over ``X ⪰ 0``: ``V·max(W − t, 0)·Vᵀ`` with ``½(M + Mᵀ) = VWVᵀ``.

    X is symmetric, so the antisymmetric part of M has no effect.

    Args:
        M: ``(K, n, n)``, finite, need not be symmetric.
        threshold: t, ``(K,)``, at least 0, one per problem.

    Returns:
        ``(K, n, n)``, symmetric positive semidefinite.
    """
    w, V = eigh((M + M.mT) / 2)
    return (V * (w - threshold[:, None]).clamp(min=0)[:, None, :]) @ V.mT
