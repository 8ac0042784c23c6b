"""The optimizers of a batch: one with the groups ``theta`` and ``corruption``, or two if θ has another one.

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
    """Make the optimizers of θ, g and h.

    Args:
        signal: φ(θ) of K problems.
        corruption: s of K problems.
        tau: learning rate of θ of each problem, K of them.
        alpha: ratio of the rates of each problem, K of them.
        theta_optimizer: makes another optimizer of θ; ``None`` is gradient descent at τ.
        capturable: whether steps are to be counted on the device, for CUDA graphs.

    Returns:
        The optimizers, and which of them is gradient descent with discrepant rates, if any.

    Raises:
        ValueError: the optimizer of θ needs a closure, or would mix the problems of a batch.
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
        _check(own, signal, len(tau))
        if capturable:
            make_capturable(own)  # with graphs and without, for the same bits
        optimizers.append(own)
    if not groups:
        return optimizers, None
    descent = DiscrepantSGD(groups)
    return [*optimizers, descent], descent


def _check(optimizer: Optimizer, signal: Signal, size: int) -> None:
    """Refuse an optimizer of θ that cannot be used."""
    name = type(optimizer).__name__
    if signature(optimizer.step).parameters["closure"].default is Parameter.empty:
        raise ValueError(
            "theta_optimizer must step along a gradient that it is given, got "
            f"{name}, which works out its own; torch.optim.Adam does not"
        )
    stacked = any(i is not None for k in range(size) for _, _, i in signal.problem_parameters(k))
    if getattr(optimizer, "mixes_rows", False) and stacked:
        raise ValueError(
            f"theta_optimizer must not be {name} for {type(signal).__name__}, whose parameters hold all "
            "problems of a batch, which it would mix; torch.optim.Adam does not"
        )


def _scales(part: Part, factors: list[float], parameters: Sequence[nn.Parameter]) -> list[float | Tensor | None]:
    """The scale of each parameter, given one factor per problem."""
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
