"""Convex program of a batch (Eq. 8): ``min ‖X‖_* + λ‖s‖₁`` subject to ``A(X) + s = y``.

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
"""Safety factor on the norm of a general A, which power iteration estimates from below."""


@dataclass(frozen=True)
class ConvexProgram:
    """Eq. 8 for K problems, with the two norms that determine step sizes.

    Attributes:
        observation: y, ``(K, *o)``.
        operator: A.
        weight: λ, ``(K,)``.
        norm: ``‖A‖²``, ``(K,)``: 1 for the identity and entry masks, estimated otherwise.
        scale: estimate of ``‖A*(y)‖₂``, the largest singular value, ``(K,)``; 1 if y = 0.
        shape: ``(n, m)``.
    """

    observation: Tensor
    operator: Operator
    weight: Tensor
    norm: Tensor
    scale: Tensor
    shape: tuple[int, int]


def convex_program(problems: ProblemBatch, operator: Operator, alpha: Sequence[float]) -> ConvexProgram:
    """Return Eq. 8 with ``λ = 1/α``.

    Args:
        problems: batch of matrices, in the precision of the solver.
        operator: its A.
        alpha: one α per problem, above 0.

    Raises:
        ValueError: the signals are not matrices.
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
    scale = _largest_singular_value(lambda v: back @ v, lambda u: back.mT @ u, X[:, :1].mT)  # start: K m 1
    return ConvexProgram(y, operator, weight, norm, torch.where(scale > 0, scale, 1.0), (n, m))


def matrix_shape(problems: ProblemBatch) -> tuple[int, int]:
    """Return the shape ``(n, m)`` of the signals.

    Raises:
        ValueError: the signals are not matrices.
    """
    if len(problems.signal_shape) != 2:
        raise ValueError(f"problems must be matrices (n, m), got signals of shape {problems.signal_shape}")
    n, m = problems.signal_shape
    return n, m


def norms(v: Tensor) -> Tensor:
    """Return the Euclidean norm of each problem's entries, ``(K, …)`` to ``(K,)``."""
    return torch.linalg.vector_norm(v.flatten(1), dim=1)


def column(v: Tensor, like: Tensor) -> Tensor:
    """Reshape ``(K,)`` to broadcast over ``like``, ``(K, …)``."""
    return v.view(-1, *[1] * (like.ndim - 1))


def _largest_singular_value(
    forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], start: Tensor
) -> Tensor:
    """Estimate the largest singular value of K linear maps by power iteration.

    The estimate is a lower bound, accurate if the value is well separated from the next one.
    """
    v = start
    value = norms(v)
    for _ in range(POWER_ITERATIONS):
        v = adjoint(forward(v / column(value.clamp(min=torch.finfo(v.dtype).tiny), v)))
        value = norms(v)
    return value.sqrt()
