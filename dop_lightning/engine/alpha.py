r"""Default ratio α of the learning rates.

*Matrices.* ``α = √max(n, m)``: λ = 1/√n is the theoretical choice for robust PCA [Candès et al., 2011], and λ = 1/α
(section 2.3).

*Images.* Under a loss ``w·Σ rᵢ²`` with a constant residual t, an entry of g grows by the factor ``e^{4wατ·t}`` per
iteration, from its initial scale γ. A corruption of size t is therefore *revealed*, ``g² = t``, after

    ``T(t) = log(√t/γ) / (4wατ·t)``

iterations. At that time, the network should fit as much detail as possible, but not yet the outliers. This time depends
on the optimizer and on the size of the image: a network that is large relative to the image fits outliers earlier.
Therefore

    ``α = log(√t/γ) / (4wτ·t·T)``,   t = ¼ of the range,   T = T*·min(√(N/N₀), 2),   N₀ = 3·128².

Since w = 1/N, α grows like √N with the number N of entries up to 4N₀, and like N above. T* was measured
(docs/alpha.md): 1330 iterations of gradient descent at rate 1, 1.5 divided by the learning rate of Adam (300 iterations
at 0.005), and 1.5 divided by that of Muon (75 iterations at 0.02).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from dop_lightning.engine.optim.pace import GRADIENT_DESCENT, pace
from dop_lightning.foundation.checks import positive
from dop_lightning.model.corruption import Corruption
from dop_lightning.model.losses import Loss, SquaredLoss
from dop_lightning.problems.problem import ProblemBatch, scale

REVEALED = 0.25
"""t, relative to the scale of the observation."""

MEASURED_AT = 3 * 128**2
"""Number of entries N₀."""

LONGEST = 2.0
"""Maximum of T/T*, measured at 256×256."""

LARGEST_STEP = 0.125
"""Upper bound on wατ. A step multiplies an entry of g by 1 − 4wατ·r; without the bound, tiny images would diverge."""


def reveal_time(loss: Loss, rate: float, size: float, corruption: Corruption, problems: ProblemBatch, k: int) -> float:
    """Return ``T(t) = log(√t/γ) / (4wατ·t)``, the number of iterations until a corruption of size t is revealed.

    Args:
        loss: a squared loss with weight w.
        rate: ατ, above 0.
        size: t, above 0.
        corruption: corruption before the first iteration; it provides γ.
        problems: the batch.
        k: position of the problem in the batch.
    """
    begin = corruption.initial_scale(k, None if problems.mask is None else problems.mask[k])
    twice_weight = loss.derivative_(torch.empty_like(problems.observation[:1]))  # 2w
    return math.log(max(math.sqrt(size) / begin, 2.0)) / (2 * twice_weight * rate * size)


def default_alphas(
    problems: ProblemBatch,
    loss: Loss,
    tau: Sequence[float],
    corruption: Corruption | None = None,
    theta_optimizer: Callable[[Sequence[nn.Parameter]], Optimizer] | None = None,
) -> list[float]:
    """Return α of each problem: ``problem.alpha``, or the default of this module if that is ``None``.

    Args:
        problems: the batch.
        loss: ℓ.
        tau: τ of each problem.
        corruption: s before the first iteration; ``None`` for a convex program.
        theta_optimizer: creates the optimizer of θ; ``None`` for gradient descent at τ.

    Raises:
        ValueError: α has no default for this signal and loss, or the learning rate of the optimizer is not positive.
    """
    return [
        default_alpha(problems, k, loss, tau[k], corruption, theta_optimizer)
        if problem.alpha is None
        else problem.alpha
        for k, problem in enumerate(problems)
    ]


def default_alpha(
    problems: ProblemBatch,
    k: int,
    loss: Loss,
    tau: float,
    corruption: Corruption | None,
    theta_optimizer: Callable[[Sequence[nn.Parameter]], Optimizer] | None,
) -> float:
    """Return the default α of problem k; see :func:`default_alphas`."""
    shape = problems.signal_shape
    if len(shape) == 2:
        return float(max(shape) ** 0.5)
    if len(shape) == 3 and (corruption is None or not list(corruption.parameters())):
        return 1.0  # unused: there is no corruption
    if corruption is None or len(shape) != 3 or not (isinstance(loss, SquaredLoss) and loss.reduction == "mean"):
        raise ValueError(f"alpha has no default for a signal of shape {shape} and this loss; specify alpha")
    size = REVEALED * scale(problems[k])
    iterations = GRADIENT_DESCENT / tau
    if theta_optimizer is not None:
        optimizer = theta_optimizer([nn.Parameter(torch.zeros(1, device="cpu"))])
        own = positive("lr of the theta_optimizer", float(optimizer.param_groups[0]["lr"]))
        iterations = pace(optimizer) / own
    entries = math.prod(problems.observation.shape[1:])
    iterations *= min(math.sqrt(entries / MEASURED_AT), LONGEST)
    return min(reveal_time(loss, tau, size, corruption, problems, k) / iterations, LARGEST_STEP * entries / tau)
