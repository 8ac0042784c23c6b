r"""The ratio α of the learning rates where none is given.

*Matrices.* ``α = √max(n, m)``: λ = 1/√n is right for robust PCA [Candès et al., 2011], and λ = 1/α (section 2.3).

*Images.* Under a loss ``w·Σ rᵢ²`` an entry of g under a steady residual t grows by the factor ``e^{4wατ·t}`` an
iteration, from the scale γ of its start. A corruption of size t is therefore *revealed*, ``g² = t``, after

    ``T(t) = log(√t/γ) / (4wατ·t)``

iterations: that must be when the network has become as fine as it can before it begins to follow the outliers. When
this is depends on its optimizer, and on the size of the image: a small one is followed earlier, by a network that is
large for it. So

    ``α = log(√t/γ) / (4wτ·t·T)``,   t = ¼ of the range,   T = T*·min(√(N/N₀), 2),   N₀ = 3·128²,

which grows like √N with the number N of entries, since w = 1/N, and like N above 4N₀. T* was measured, see
docs/alpha.md: 1330 iterations of gradient descent at rate 1, 1.5 in units of the learning rate of Adam (300 iterations
at 0.005), and 1.5 in units of that of Muon (75 iterations at 0.02).
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
"""t, in scales of the observation."""

MEASURED_AT = 3 * 128**2
"""N₀, in entries."""

LONGEST = 2.0
"""T/T* of large images: what was measured at 256×256."""

LARGEST_STEP = 0.125
"""An entry of g is multiplied by 1 − 4wατ·r in a step: wατ is at most this, so that tiny images do not diverge."""


def reveal_time(loss: Loss, rate: float, size: float, corruption: Corruption, problems: ProblemBatch, k: int) -> float:
    """``T(t) = log(√t/γ) / (4wατ·t)``: iterations until a corruption of a size is revealed.

    Args:
        loss: a squared loss, of weight w.
        rate: ατ, above 0.
        size: t, above 0.
        corruption: at its start, whose scale γ it knows.
        problems: the batch.
        k: which of its problems.
    """
    begin = corruption.start_scale(k, None if problems.mask is None else problems.mask[k])
    twice_weight = loss.derivative_(torch.empty_like(problems.observation[:1]))  # 2w
    return math.log(max(math.sqrt(size) / begin, 2.0)) / (2 * twice_weight * rate * size)


def default_alphas(
    problems: ProblemBatch,
    loss: Loss,
    tau: Sequence[float],
    corruption: Corruption | None = None,
    theta_optimizer: Callable[[Sequence[nn.Parameter]], Optimizer] | None = None,
) -> list[float]:
    """The ratio of the rates of each problem: its own, and by the rules of this module where it has none.

    Args:
        problems: the batch.
        loss: ℓ.
        tau: τ of each problem.
        corruption: s at its start, ``None`` for a convex program.
        theta_optimizer: makes the optimizer of θ, ``None`` for gradient descent at τ.

    Raises:
        ValueError: there is no rule for such a signal and loss, or the optimizer's rate is not above 0.
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
    """The ratio of the rates of problem k by the rules of this module; see :func:`default_alphas`."""
    shape = problems.signal_shape
    if len(shape) == 2:
        return float(max(shape) ** 0.5)
    if len(shape) == 3 and (corruption is None or not list(corruption.parameters())):
        return 1.0  # no corruption, no ratio: any number will do
    if corruption is None or len(shape) != 3 or not (isinstance(loss, SquaredLoss) and loss.reduction == "mean"):
        raise ValueError(f"alpha has no default for a signal of shape {shape} and this loss, give a number")
    size = REVEALED * scale(problems[k])
    iterations = GRADIENT_DESCENT / tau
    if theta_optimizer is not None:
        optimizer = theta_optimizer([nn.Parameter(torch.zeros(1, device="cpu"))])
        own = positive("lr of the theta_optimizer", float(optimizer.param_groups[0]["lr"]))
        iterations = pace(optimizer) / own
    entries = math.prod(problems.observation.shape[1:])
    iterations *= min(math.sqrt(entries / MEASURED_AT), LONGEST)
    return min(reveal_time(loss, tau, size, corruption, problems, k) / iterations, LARGEST_STEP * entries / tau)
