r"""``tau: auto``: estimate the learning rate of each problem from its data.

Near a solution, the curvature of the quarter squared loss ``¼‖UUᵀ + s − Y‖²`` is at most ``2‖X‖₂ + 2α·max|s|``, in the
metric of the discrepant rates: the sum of the bounds for the two parts of the tangent space. Steps
``τ < 1/(‖X‖₂ + α·max|s|)`` are therefore stable. X and s are unknown, but neither is larger than the data. The rate is

    ``τ = c / (4w·(‖A*(y)‖₂ + α·max|y|))``,   c = 0.9, w the weight of the loss (¼ for the quarter).

Shapes: K problems, matrices ``(K, n, m)``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dop_lightning.model.losses import Loss, SquaredLoss
from dop_lightning.model.operators import Operator
from dop_lightning.problems.problem import ProblemBatch

SAFETY = 0.9
"""c."""

POWER_ITERATIONS = 30

UNDERESTIMATED = 1.05
"""Correction factor: power iteration slightly underestimates the norm."""


def spectral_norms(matrices: Tensor, problems: ProblemBatch) -> tuple[Tensor, Tensor]:
    """Estimate ``‖M‖₂`` by power iteration on ``MᵀM``, started from the random stream of each problem.

    Args:
        matrices: M, ``(K, n, m)``.
        problems: the problems that the matrices belong to.

    Returns:
        The norms ``(K,)``, and the right singular vectors ``(K, m, 1)``. The norms are lower bounds, accurate to a few
        per cent after the fixed number of iterations.
    """
    right = problems.normal((matrices.shape[2], 1), 1.0, "init", 8).to(matrices)
    norms = matrices.new_zeros(len(matrices))
    for _ in range(POWER_ITERATIONS):
        right = right / torch.linalg.vector_norm(right, dim=1, keepdim=True).clamp_min(_tiny(right))
        left = torch.bmm(matrices, right)
        norms = torch.linalg.vector_norm(left, dim=(1, 2))
        # scale by a power of two, which is exact: the square of MᵀM v may overflow even if that of M v does not
        unit = torch.exp2(torch.frexp(norms).exponent.to(norms))
        right = torch.bmm(matrices.mT, left / unit[:, None, None])
    return norms, right / torch.linalg.vector_norm(right, dim=1, keepdim=True).clamp_min(_tiny(right))


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


@torch.no_grad()
def automatic_tau(problems: ProblemBatch, operator: Operator, loss: Loss, alpha: Sequence[float] | None) -> list[float]:
    """Return τ of each problem of a batch.

    Args:
        problems: the batch, of matrices.
        operator: A.
        loss: ℓ, squared.
        alpha: ratio of the rates of each problem; ``None`` without a corruption.

    Raises:
        ValueError: the signals are not matrices, or the loss is not squared, so that the curvature is unknown.
    """
    y, shape = problems.observation, problems.signal_shape
    if len(shape) != 2 or not isinstance(loss, SquaredLoss):
        what = f"a signal of shape {shape}" if len(shape) != 2 else f"the loss {type(loss).__name__}"
        raise ValueError(f"tau 'auto' supports only matrices with a squared loss, got {what}; specify a number")
    norms, _ = spectral_norms(operator.adjoint(y), problems)
    curvature = UNDERESTIMATED * norms.cpu().double()
    if alpha is not None:
        curvature += torch.tensor(alpha, dtype=torch.float64, device="cpu") * y.flatten(1).abs().amax(dim=1).cpu()
    factor = loss.derivative_(y[:1].clone())  # 2w
    # if y = 0, any rate works
    return (0.5 * SAFETY / factor / torch.where(curvature > 0, curvature, 1.0)).tolist()
