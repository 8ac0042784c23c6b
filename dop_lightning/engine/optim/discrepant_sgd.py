"""Gradient descent with discrepant learning rates: τ for θ and α·τ for g, h (Eqs. 6 and 10)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.engine.optim.capturable import is_capturable_optimizer
from dop_lightning.foundation.checks import not_negative, positive
from dop_lightning.model.part import Rate

Scale = float | Tensor | None


def _check_scale(scale: Scale, parameter: Tensor) -> Scale:
    """Check a scale: a number, one number per problem (leading dimension), or a tensor of the parameter's shape."""
    if scale is None or not isinstance(scale, Tensor):
        return None if scale is None else not_negative("scale", scale)
    if scale.shape not in (parameter.shape, parameter.shape[:1]):
        raise ValueError(
            f"scale must have one entry per problem, ({parameter.shape[0]},), or the shape of the parameter "
            f"{tuple(parameter.shape)}, got {tuple(scale.shape)}"
        )
    if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
        raise ValueError("scale must be finite and at least 0 everywhere")
    if scale.shape == parameter.shape:
        return scale
    return scale.view(-1, *[1] * (parameter.dim() - 1))


class DiscrepantSGD(Optimizer):
    """Plain gradient descent, ``p ← p − lr·scale·∇p``, with learning rates per group, problem or coordinate.

    SGD of torch supports only one rate per group. Here, a group may have ``scale``, a list with one entry per
    parameter: a number, a tensor ``(K,)`` with one value per problem of a stacked parameter, a tensor of the
    parameter's shape (the diagonal Λ of appendix A), or ``None`` for 1.

    Args:
        params: parameters or parameter groups.
        lr: default learning rate of groups, at least 0.

    Raises:
        ValueError: a rate or scale is negative, not finite, or has the wrong shape.

    >>> p = nn.Parameter(torch.ones(2, 3))
    >>> optimizer = DiscrepantSGD([{"params": [p], "lr": 0.1, "scale": [torch.tensor([1.0, 10.0])]}])
    >>> p.grad = torch.ones(2, 3)
    >>> optimizer.step()
    >>> p[:, 0].detach().round(decimals=4).abs()
    tensor([0.9000, 0.0000])
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3) -> None:
        not_negative("lr", lr)
        super().__init__(params, {"lr": lr, "scale": None})
        for group in self.param_groups:
            not_negative("lr", group["lr"])
            if group["scale"] is not None:
                if len(group["scale"]) != len(group["params"]):
                    raise ValueError(
                        f"scale must have one entry per parameter, {len(group['params'])}, got {len(group['scale'])}"
                    )
                group["scale"] = [_check_scale(s, p) for s, p in zip(group["scale"], group["params"], strict=True)]

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step on every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    @staticmethod
    def _step_group(group: dict[str, Any]) -> None:
        scales = group["scale"] or [None] * len(group["params"])
        plain, gradients = [], []
        for p, scale in zip(group["params"], scales, strict=True):
            if p.grad is None:
                continue
            if isinstance(scale, Tensor):
                p.addcmul_(p.grad, scale, value=-group["lr"])
            elif scale is not None:
                p.add_(p.grad, alpha=-group["lr"] * scale)
            else:
                plain.append(p)
                gradients.append(p.grad)
        if plain:
            torch._foreach_add_(plain, gradients, alpha=-group["lr"])

    def rate(self, name: str) -> Rate:
        """Return ``lr·scale`` of the group ``name``, for steps in closed form; all its scales must be equal."""
        group = next(g for g in self.param_groups if g["name"] == name)
        scale = None if group["scale"] is None else group["scale"][0]
        return group["lr"] if scale is None else group["lr"] * scale


@is_capturable_optimizer.register
def _(optimizer: DiscrepantSGD) -> bool:
    return type(optimizer) is DiscrepantSGD  # it does not count steps; a subclass may


def parameter_groups(
    theta: Sequence[nn.Parameter],
    corruption: Sequence[nn.Parameter],
    tau: float,
    alpha: float,
) -> list[dict[str, Any]]:
    """Return the parameter groups ``theta`` with rate τ and ``corruption`` with rate α·τ, for :class:`DiscrepantSGD`.

    They work for any torch module: ``parameter_groups(list(net.parameters()), [g, h], tau=1.0, alpha=500.0)``.

    Args:
        theta: parameters of the signal.
        corruption: g and h; may be empty (DIP, factorisation).
        tau: learning rate of θ, above 0.
        alpha: ratio of the learning rates, above 0; λ = 1/α in Eq. 8.
    """
    positive("tau", tau)
    positive("alpha", alpha)
    groups = [
        {"name": "theta", "params": list(theta), "lr": tau},
        {"name": "corruption", "params": list(corruption), "lr": alpha * tau},
    ]
    return [group for group in groups if group["params"]]
