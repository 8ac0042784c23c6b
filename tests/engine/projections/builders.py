"""Matrices with gross outliers."""

import torch
from torch import Tensor

from dop_lightning.problems.problem import Problem


def low_rank(n: int, m: int, rank: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    U, V = (torch.randn(side, rank, generator=generator, dtype=torch.float64) for side in (n, m))
    return (U @ V.mT).to(dtype)


def corrupted(L: Tensor, share: float, seed: int = 0, noise: float = 0.0) -> Tensor:
    """With outliers in ±5 times the mean |L|, and noise of a part of its root mean square."""
    generator = torch.Generator().manual_seed(seed + 1000)
    size = 5 * float(L.abs().mean())
    where = torch.rand(L.shape, generator=generator) < share
    outliers = (2 * torch.rand(L.shape, generator=generator) - 1) * size
    dense = torch.randn(L.shape, generator=generator) * noise * float(L.square().mean().sqrt())
    return L + where * outliers.to(L) + dense.to(L)


def problem(
    n: int = 150,
    m: int = 120,
    rank: int = 3,
    share: float = 0.1,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    mask: Tensor | None = None,
) -> Problem:
    L = low_rank(n, m, rank, seed, dtype)
    D = corrupted(L, share, seed, noise)
    if mask is not None:
        D = torch.where(mask, D, 0)
    return Problem(f"m{seed}", D, truth=L, mask=mask, seed=seed)


def relative_error(found: Tensor, truth: Tensor | None) -> float:
    assert truth is not None
    return float(torch.linalg.vector_norm(found - truth) / torch.linalg.vector_norm(truth))
