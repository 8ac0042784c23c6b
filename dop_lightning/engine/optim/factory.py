"""The optimizers of a batch: one with the groups ``theta`` and ``corruption``, or two if θ has a custom optimizer.

Shapes: K problems.
"""

from collections.abc import Callable, Sequence
from inspect import Parameter, signature

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.engine.optim.capturable import make_capturable
from dop_lightning.engine.optim.discrepant_sgd import DiscrepantSGD, parameter_groups
from dop_lightning.model.corruption import Corruption
from dop_lightning.model.part import Part
from dop_lightning.model.signals.base import Signal

ThetaOptimizer = Callable[[Sequence[nn.Parameter]], Optimizer]


def make_optimizers(
    signal: Signal,
    corruption: Corruption,
    tau: Sequence[float],
    alpha: Sequence[float],
    theta_optimizer: ThetaOptimizer | None,
    capturable: bool,
) -> tuple[list[Optimizer], DiscrepantSGD | None]:
    """Create the optimizers of θ, g and h.

    Args:
        signal: φ(θ) of K problems.
        corruption: s of K problems.
        tau: learning rates of θ, K values.
        alpha: ratios of the learning rates, K values.
        theta_optimizer: creates the optimizer of θ; ``None`` for gradient descent at τ.
        capturable: whether steps are counted on the device, for CUDA graphs.

    Returns:
        All optimizers, and the one with discrepant rates, if any.

    Raises:
        ValueError: the optimizer of θ requires a closure, or would mix the problems of a batch.
    """
    groups = parameter_groups(list(signal.parameters()), list(corruption.parameters()), tau=tau[0], alpha=alpha[0])
    theta_rates = [t / tau[0] for t in tau]
    rates = {
        "theta": [signal.rate_scale * ratio for ratio in theta_rates],
        "corruption": [r * a / alpha[0] for r, a in zip(theta_rates, alpha, strict=True)],
    }
    for group in groups:
        part = signal if group["name"] == "theta" else corruption
        group["scale"] = _scales(part, rates[group["name"]], group["params"])
    optimizers: list[Optimizer] = []
    if theta_optimizer is not None:
        own = theta_optimizer(groups.pop(0)["params"])
        _check_optimizer(own, signal, len(tau))
        if capturable:
            make_capturable(own)  # even without graphs, to get the same bits
        optimizers.append(own)
    if not groups:
        return optimizers, None
    descent = DiscrepantSGD(groups)
    return [*optimizers, descent], descent


def _check_optimizer(optimizer: Optimizer, signal: Signal, size: int) -> None:
    """Reject optimizers of θ that cannot be used."""
    name = type(optimizer).__name__
    if signature(optimizer.step).parameters["closure"].default is Parameter.empty:
        raise ValueError(
            f"theta_optimizer must not require a closure, got {name}; use another optimizer, such as torch.optim.Adam"
        )
    stacked = any(i is not None for k in range(size) for _, _, i in signal.problem_parameters(k))
    if getattr(optimizer, "mixes_rows", False) and stacked:
        raise ValueError(
            f"theta_optimizer must not mix the rows of the parameters of {type(signal).__name__}, which are the "
            f"problems of a batch, got {name}; use another optimizer, such as torch.optim.Adam"
        )


def _scales(part: Part, factors: list[float], parameters: Sequence[nn.Parameter]) -> list[float | Tensor | None]:
    """Return the scale of each parameter, given one factor per problem."""
    scales: dict[nn.Parameter, float | Tensor | None] = {}
    for k in range(len(factors)):
        for _, p, i in part.problem_parameters(k):
            if len(set(factors)) == 1:
                scales[p] = None if factors[0] == 1.0 else factors[0]
            elif i is None:
                scales[p] = factors[k]
            else:
                scales[p] = torch.tensor(factors, dtype=p.dtype, device=p.device)
    return [scales[p] for p in parameters]
