r"""``tau: auto``: a learning rate from the data of each problem.

For the quarter squared loss, gradient descent on ``¼‖UUᵀ + s − Y‖²`` near a solution has its largest curvature below
``2‖X‖₂ + 2α·max|s|`` (in the metric of the discrepant rates, the two parts of the tangent space added), so that steps
``τ < 1/(‖X‖₂ + α·max|s|)`` are stable. X and s are not known, but neither is larger than the data: the rate is

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
"""Power iterations find a little less than the norm."""


def spectral_norms(matrices: Tensor, problems: ProblemBatch) -> tuple[Tensor, Tensor]:
    """Estimates of ``‖M‖₂``, ``(K,)``, by power iteration on ``MᵀM`` from the problems' own streams.

    Args:
        matrices: ``(K, n, m)``.
        problems: of whom they are.

    Returns:
        The norms, and the right singular vectors ``(K, m, 1)``. The norms are lower bounds, within a few per cent after
        the iterations done here.
    """
    right = problems.normal((matrices.shape[2], 1), 1.0, "init", 8).to(matrices)
    norms = matrices.new_zeros(len(matrices))
    for _ in range(POWER_ITERATIONS):
        right = right / torch.linalg.vector_norm(right, dim=1, keepdim=True).clamp_min(_tiny(right))
        left = torch.bmm(matrices, right)
        norms = torch.linalg.vector_norm(left, dim=(1, 2))
        # by a power of two, which rounds nothing: the square of MᵀM v need not be a number where that of M v is
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
        ValueError: the signals are not matrices, or the loss is not squared: the curvature is not known then.
    """
    y, shape = problems.observation, problems.signal_shape
    if len(shape) != 2 or not isinstance(loss, SquaredLoss):
        what = f"a signal of shape {shape}" if len(shape) != 2 else f"the loss {type(loss).__name__}"
        raise ValueError(f"tau 'auto' is for matrices and squared losses, got {what}; give a number")
    norms, _ = spectral_norms(operator.adjoint(y), problems)
    curvature = UNDERESTIMATED * norms.cpu().double()
    if alpha is not None:
        curvature += torch.tensor(alpha, dtype=torch.float64, device="cpu") * y.flatten(1).abs().amax(dim=1).cpu()
    factor = loss.derivative_(y[:1].clone())  # 2w
    # where there is nothing at all, any rate will do
    return (0.5 * SAFETY / factor / torch.where(curvature > 0, curvature, 1.0)).tolist()
