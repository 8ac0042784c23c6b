"""The convex program of a batch (Eq. 8): ``min ‖X‖_* + λ‖s‖₁`` subject to ``A(X) + s = y``.

Shapes: K problems, X ``(K, n, m)``, observations ``(K, *o)``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dop_lightning.model.operators import EntryMask, Identity, Operator
from dop_lightning.problems.problem import ProblemBatch

POWER_ITERATIONS = 50
MARGIN = 1.02
"""By this much more than power iterations find the norm of a general A is assumed to be."""


@dataclass(frozen=True)
class ConvexProgram:
    """Eq. 8 of K problems, and the two norms that steps depend on. All in float64.

    Attributes:
        observation: y, ``(K, *o)``.
        operator: A.
        weight: λ, ``(K,)``.
        norm: ``‖A‖²``, ``(K,)``; 1 of the identity and of entry masks, else estimated.
        scale: ``‖A*(y)‖₂``, the largest singular value, ``(K,)``, estimated; 1 where y = 0.
        shape: ``(n, m)``.
    """

    observation: Tensor
    operator: Operator
    weight: Tensor
    norm: Tensor
    scale: Tensor
    shape: tuple[int, int]


def convex_program(problems: ProblemBatch, operator: Operator, alpha: Sequence[float]) -> ConvexProgram:
    """Eq. 8 with ``λ = 1/α``.

    Args:
        problems: the batch, of matrices in float64.
        operator: its A.
        alpha: one number a problem, above 0.

    Raises:
        ValueError: the signals are no matrices.
    """
    n, m = matrix_shape(problems)
    y = problems.observation
    weight = torch.tensor([1.0 / a for a in alpha], dtype=y.dtype, device=y.device)
    X = problems.normal((n, m), 1.0, "init", 8)
    if type(operator) in (Identity, EntryMask):
        norm = torch.ones_like(weight)
    else:
        norm = (MARGIN * _largest_singular_value(operator.forward, operator.adjoint, X)).square()
        norm = torch.where(norm > 0, norm, 1.0)
    back = operator.adjoint(y)
    scale = _largest_singular_value(lambda v: back @ v, lambda u: back.mT @ u, X[:, :1].mT)  # of K m 1
    return ConvexProgram(y, operator, weight, norm, torch.where(scale > 0, scale, 1.0), (n, m))


def matrix_shape(problems: ProblemBatch) -> tuple[int, int]:
    """``(n, m)`` of the signals.

    Raises:
        ValueError: they are no matrices.
    """
    if len(problems.signal_shape) != 2:
        raise ValueError(f"problems must be of matrices, n×m, got signals of shape {problems.signal_shape}")
    n, m = problems.signal_shape
    return n, m


def norms(v: Tensor) -> Tensor:
    """Euclidean norm of each problem's entries, ``(K, …)`` to ``(K,)``."""
    return torch.linalg.vector_norm(v.flatten(1), dim=1)


def column(v: Tensor, like: Tensor) -> Tensor:
    """``(K,)`` shaped to broadcast over ``like``, ``(K, …)``."""
    return v.view(-1, *[1] * (like.ndim - 1))


def _largest_singular_value(
    forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], start: Tensor
) -> Tensor:
    """Of K linear maps, by power iteration: from below, and close where it is well apart from the next."""
    v = start
    value = norms(v)
    for _ in range(POWER_ITERATIONS):
        v = adjoint(forward(v / column(value.clamp(min=torch.finfo(v.dtype).tiny), v)))
        value = norms(v)
    return value.sqrt()
